import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// Like `Stream`, for cxgb4. What libcxgb4 leaves uninitialised, or writes for debugging only, is masked:
///
/// | bytes | why |
/// |-------|-----|
/// | 12 ..< 16 of a WRITE | libcxgb4 leaves what was on its stack |
/// | 40 ..< 48 of a SEND or WRITE without SGEs | likewise, after inline data of length 0 |
/// | after the last unit of a work request, in a slot that is written to the doorbell | likewise; ours has the queue's older contents |
/// | the same of an on-chip queue, to which whole slots are written | likewise |
/// | 2 ..< 4 of a shared receive | its index; of one that has waited, libcxgb4 writes the index of the time when it was posted |
/// | the status page, except for `host_wq_pidx` and `host_pidx` | `host_cidx` is for debugging; the kernel writes the rest |
final class Cxgb4Stream {
    let sides: Twin<Cxgb4Side>
    private(set) var step = 0
    var posted = 0
    var completed = 0
    var random: Random
    let requests = Requests()
    let memory = Memory()
    var operation = ""
    var pairs: [Cxgb4Pair] = []
    var shared = Cxgb4Shared(entries: 32)
    let hasShared: Bool
    let hasImmediate: Bool
    private let isOnChip: Bool
    private let isTrapped: Bool
    private var nextID: UInt64 = 1
    private let stores = UnsafeMutablePointer<uverbs_sim_store>.allocate(capacity: 1 << 12)

    init(kind: String, seed: UInt64, libraries: Twin<Library>) throws(Difference) {
        random = Random(seed: seed, name: kind)
        let isT6 = kind.contains(" t6") && !kind.contains("cqe32")
        hasShared = isT6
        hasImmediate = isT6
        isOnChip = kind.contains("onchip")
        isTrapped = !kind.contains("notrap")
        let memory = memory
        let hasShared = hasShared
        sides = try both { (side) throws(Difference) -> Cxgb4Side in
            Cxgb4Side(libraries[side], device: createDevice(kind), memory: memory.all, hasShared: hasShared)
        }
        for index in sides.ours.pairs.indices {
            try expectEqual(Twin(sides.vendor.number(index), sides.ours.number(index)), "the number of a queue pair")
            try expectEqual(
                Twin(sides.vendor.limits[index].max_send_wr, sides.ours.limits[index].max_send_wr), "max_send_wr")
            pairs.append(Cxgb4Pair(sides.ours.limits[index], sides.ours.plans[index]))
        }
        _ = try readStores()
    }

    func run(count: Int) throws(Difference) {
        while posted < count {
            step += 1
            switch random.below(1000) {
            case ..<300: try postSends(random.below(pairs.count))
            case ..<420: try postReceives(random.below(pairs.count + (hasShared ? 3 : 0)))
            case ..<650: try completeSend(random.below(pairs.count))
            case ..<780: try completeReceive(random.below(pairs.count))
            case ..<950: _ = try poll(random.below(2))
            case ..<990: try notify(random.below(2))
            default: try disconnect(random.below(pairs.count))
            }
            try compareStores()
        }
        for index in pairs.indices { try disconnect(index) }
    }

    func close() {
        sides.vendor.close()
        sides.ours.close()
        stores.deallocate()
    }

    func newID() -> UInt64 {
        nextID += 1
        return nextID
    }

    // MARK: - Posting

    /// Posts a list with both libraries. libcxgb4 returns negative errno values.
    private func post<Request>(
        _ count: Int, _ first: UnsafeMutablePointer<Request>,
        _ body: (Int, inout UnsafeMutablePointer<Request>?) -> Int32
    ) throws(Difference) -> Int {
        try postBoth(count, first, operation) { side, bad in
            let error = body(side, &bad)
            if side == 0 && error != 0 && bad == nil { bad = first }
            return side == 0 ? -error : error
        }
    }

    private func postSends(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let count = random.chance(40) ? 1 : random.chance(30) ? 2 : 1 + random.below(16)
        operation = "posting \(count) sends to queue pair \(index)"
        for place in 0..<count { fillSend(place) }
        if count == 2 && random.chance(90) { fillPair() }
        // A full queue is found before the number of SGEs by both.
        let hasDefect = count > 1 && count <= pair.room && random.chance(3)
        if hasDefect { requests.sends[count - 1].num_sge = 18 }
        requests.linkSends(count)
        let accepted = try post(count, requests.sends) { side, bad in
            ibv_post_send(sides[side].pairs[index], requests.sends, &bad)
        }
        for place in 0..<accepted {
            let request = requests.sends[place]
            pair.outstanding.append(
                Cxgb4Pair.Send(
                    index: pair.index, opcode: request.opcode,
                    isSignaled: pair.signalsAll || request.send_flags & IBV_SEND_SIGNALED.rawValue != 0))
            pair.index = (pair.index + 1) % pair.entries
        }
        posted += accepted
        let queue = sides.memory(UVERBS_SIM_SENDS, sides.ours.number(index))
        // libcxgb4 does not store `host_wq_pidx` after a WRITE and a SEND as one work request.
        let isPair = accepted == 2 && queue.ours[pair.sendSlot * 64] == 0x21
        try compareQueue(queue, &pair.sendSlot, slots: pair.entries * 5, storesSlot: accepted > 0 && !isPair)
    }

    private func fillSend(_ index: Int) {
        let request = requests.sends + index
        request.initialize(to: ibv_send_wr())
        request.pointee.wr_id = newID()
        for flag in [IBV_SEND_SIGNALED, IBV_SEND_FENCE, IBV_SEND_SOLICITED] where random.chance(35) {
            request.pointee.send_flags |= flag.rawValue
        }
        var opcodes = [IBV_WR_SEND, IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ]
        if hasImmediate { opcodes.append(IBV_WR_RDMA_WRITE_WITH_IMM) }
        request.pointee.opcode = random.pick(opcodes)
        let isRead = request.pointee.opcode == IBV_WR_RDMA_READ
        if request.pointee.opcode == IBV_WR_SEND_WITH_INV {
            request.pointee.invalidate_rkey = random.any()
        } else if request.pointee.opcode == IBV_WR_RDMA_WRITE_WITH_IMM {
            request.pointee.imm_data = random.any()
        }
        request.pointee.wr.rdma.remote_addr = random.any()
        request.pointee.wr.rdma.rkey = random.any()
        let isInline = !isRead && random.chance(35)
        if isInline { request.pointee.send_flags |= IBV_SEND_INLINE.rawValue }
        let count = isRead ? random.below(2) : isInline ? random.below(5) : random.below(18)
        for place in 0..<count {
            let length = random.below(isInline ? 71 : 1 << 20)
            let offset = random.below(Memory.sourceCount - 71)
            requests.list(index)[place] = ibv_sge(
                addr: isInline ? UInt64(UInt(bitPattern: memory.source + offset)) : random.any(),
                length: UInt32(length), lkey: random.any())
        }
        request.pointee.num_sge = Int32(count)
        // libcxgb4 takes the length of a READ from the list, whatever its count.
        request.pointee.sg_list = isRead && count == 0 ? nil : requests.list(index)
    }

    /// Fills a WRITE and a SEND that can be posted as one work request.
    private func fillPair() {
        fillSend(0)
        fillSend(1)
        requests.sends[0].opcode = IBV_WR_RDMA_WRITE
        requests.sends[1].opcode = random.pick([IBV_WR_SEND, IBV_WR_SEND_WITH_INV])
        for place in 0..<2 {
            requests.sends[place].send_flags &= IBV_SEND_SIGNALED.rawValue
            requests.sends[place].sg_list = requests.list(place)
            requests.sends[place].num_sge = Int32(place == 0 ? 1 + random.below(4) : 1)
            for sge in 0..<4 {
                requests.list(place)[sge] = ibv_sge(
                    addr: UInt64(UInt(bitPattern: memory.source + random.below(1000))),
                    length: place == 0 ? 1 + random.any(UInt32.self) % 1000 : 16, lkey: random.any())
            }
        }
        requests.sends[1].invalidate_rkey = random.any()
        if random.chance(50) { requests.sends[1].send_flags |= IBV_SEND_SIGNALED.rawValue }
        if random.chance(50) { requests.sends[1].send_flags |= IBV_SEND_INLINE.rawValue }
    }

    private func postReceives(_ index: Int) throws(Difference) {
        let isShared = index >= pairs.count
        if !isShared && pairs[index].isSharing { return }
        let count = random.chance(40) ? 1 : 1 + random.below(12)
        operation = "posting \(count) receives to \(isShared ? "the shared receive queue" : "queue pair \(index)")"
        for place in 0..<count {
            let request = requests.receives + place
            request.initialize(to: ibv_recv_wr())
            request.pointee.wr_id = newID()
            request.pointee.num_sge = Int32(random.below(5))
            for sge in 0..<4 {
                requests.list(place)[sge] = ibv_sge(
                    addr: random.any(), length: random.any(UInt32.self) >> 3, lkey: random.any())
            }
            request.pointee.sg_list = requests.list(place)
        }
        requests.linkReceives(count)
        let accepted = try post(count, requests.receives) { side, bad in
            isShared
                ? ibv_post_srq_recv(sides[side].shared!, requests.receives, &bad)
                : ibv_post_recv(sides[side].pairs[index], requests.receives, &bad)
        }
        posted += accepted
        if isShared {
            for place in 0..<accepted { shared.post(requests.receives[place].wr_id) }
            try compareShared()
        } else {
            pairs[index].receives += accepted
            try compareQueue(
                sides.memory(UVERBS_SIM_RECEIVES, sides.ours.number(index)), &pairs[index].receiveSlot,
                slots: pairs[index].receiveEntries * 2)
        }
    }

    func compareShared() throws(Difference) {
        guard hasShared else { return }
        try compareQueue(sharedMemories(), &shared.slot, slots: shared.entries * 2, isShared: true)
    }

    /// The memory of the shared receive queue. libibverbs tells its number for XRC only, so it is looked for.
    private func sharedMemories() -> Twin<UnsafeMutableRawBufferPointer> {
        for number in 0..<0x800 as Range<UInt32> {
            let memory = sides.ours.memory(UVERBS_SIM_SHARED_RECEIVES, number)
            if memory.count != 0 { return Twin(sides.vendor.memory(UVERBS_SIM_SHARED_RECEIVES, number), memory) }
        }
        return Twin(
            UnsafeMutableRawBufferPointer(start: nil, count: 0), UnsafeMutableRawBufferPointer(start: nil, count: 0))
    }

    /// Masks the new work requests of a queue, and compares it.
    /// - Parameters:
    ///   - slot: The number of the first new slot; then of the next.
    ///   - storesSlot: Whether both libraries have stored `host_wq_pidx`.
    private func compareQueue(
        _ queue: Twin<UnsafeMutableRawBufferPointer>, _ slot: inout Int, slots: Int, storesSlot: Bool = true,
        isShared: Bool = false
    ) throws(Difference) {
        let count = slots * 64
        guard queue.ours.count > count, queue.vendor.count > count else {
            throw Difference("\(operation): the queue is not there")
        }
        for offset in storesSlot ? [16, 20] : [20] {
            let word = Twin(
                queue.vendor.load(fromByteOffset: count + offset, as: UInt16.self),
                queue.ours.load(fromByteOffset: count + offset, as: UInt16.self))
            try expectEqual(word, "\(operation): byte \(offset) of the status page")
        }
        let end = Int(queue.ours.load(fromByteOffset: count + 16, as: UInt16.self))
        while slot != end {
            let place = slot * 64
            let units = max(1, Int(queue.ours[place + 7]))
            var masked: [Int] = queue.ours[place] == 0x14 ? Array(12..<16) : isShared ? Array(2..<4) : []
            // Inline data of length 0.
            if [0x14, 0x15].contains(queue.ours[place]), units == 3, queue.ours[(place + 32) % count] == 0x81,
                queue.ours[(place + 39) % count] == 0
            {
                masked += Array(40..<48)
            }
            if isOnChip { masked += Array(units * 16..<(units + 3) / 4 * 64) }
            for byte in masked {
                queue.vendor[(place + byte) % count] = 0
                queue.ours[(place + byte) % count] = 0
            }
            slot = (slot + (units + 3) / 4) % slots
        }
        try expectEqual(
            Twin(
                UnsafeMutableRawBufferPointer(rebasing: queue.vendor[..<count]),
                UnsafeMutableRawBufferPointer(rebasing: queue.ours[..<count])), "\(operation): the queue")
    }

    // MARK: - Doorbells

    /// The stores of the last call. A slot is written to the doorbell by 8 stores of 8 bytes or 4 of 16, of which the
    /// log has the first 8: the bytes that both have are compared, up to the end of the work request.
    private func readStores() throws(Difference) -> Twin<[uverbs_sim_store]> {
        try both { (side) throws(Difference) -> [uverbs_sim_store] in
            let count = Int(sim?.pointee.stores(sides[side].device, stores, 1 << 12) ?? 0)
            var kept: [uverbs_sim_store] = []
            var length = 0
            for index in 0..<count {
                var store = stores[index]
                guard store.size >= 8 else {
                    kept.append(store)
                    continue
                }
                let place = Int(store.offset) & 0x7F
                if place == 64 {
                    length = 16 * Int(store.value.7)
                    // As in the memory of a shared receive queue, which alone has no other index to compare.
                    if store.value.0 == 0x17 { (store.value.2, store.value.3) = (0, 0) }
                }
                guard place % 16 == 0, place - 64 < length else { continue }
                store.size = 8
                kept.append(store)
            }
            return kept
        }
    }

    private func compareStores() throws(Difference) {
        guard isTrapped else { return }
        let found = try readStores()
        try expectEqual(
            Twin(found.vendor.count, found.ours.count), "\(operation): number of stores to doorbell pages")
        for (vendor, ours) in zip(found.vendor, found.ours) {
            let equal = withUnsafeBytes(of: vendor) { vendor in
                withUnsafeBytes(of: ours) { memcmp(vendor.baseAddress!, $0.baseAddress!, vendor.count) == 0 }
            }
            if !equal { throw Difference("\(operation): the vendor's library stores \(vendor), ours \(ours)") }
        }
    }

    private func notify(_ index: Int) throws(Difference) {
        operation = "arming completion queue \(index)"
        let solicited: Int32 = random.chance(50) ? 1 : 0
        try expectEqual(
            try both { (side) throws(Difference) -> Int32 in
                ibv_req_notify_cq(sides[side].completions[index], solicited)
            }, "\(operation): result")
    }
}

extension Twin<Cxgb4Side> {
    func memory(_ area: uverbs_sim_area, _ number: UInt32) -> Twin<UnsafeMutableRawBufferPointer> {
        Twin<UnsafeMutableRawBufferPointer>(vendor.memory(area, number), ours.memory(area, number))
    }
}
