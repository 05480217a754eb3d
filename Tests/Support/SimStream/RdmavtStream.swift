import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// Like `Stream`, for hfi1: receive queues and completion queues are in the kernel's memory and are compared as a
/// whole. Sends are POST_SEND commands, which the libraries may divide differently, so the requests that the device has
/// decoded are compared, one by one.
final class RdmavtStream {
    let sides: Twin<RdmavtSide>
    private(set) var step = 0
    var posted = 0
    var completed = 0
    private var random: Random
    private let requests = Requests()
    private let memory = Memory()
    private var operation = ""
    /// Number of sends that the device has queued, for each queue pair; of unpolled CQEs, for each completion queue.
    private var waiting = [Int](repeating: 0, count: RdmavtSide.types.count)
    private var pending = [Int](repeating: 0, count: RdmavtSide.completions.count)

    init(kind: String, seed: UInt64, libraries: Twin<Library>) throws(Difference) {
        random = Random(seed: seed, name: kind)
        let memory = memory
        sides = try both { (side) throws(Difference) -> RdmavtSide in
            RdmavtSide(libraries[side], device: createDevice(kind), memory: memory.all)
        }
        try expectEqual(Twin(sides.vendor.key, sides.ours.key), "the key of the memory region")
        for index in RdmavtSide.types.indices {
            try expectEqual(Twin(sides.vendor.number(index), sides.ours.number(index)), "the number of a queue pair")
        }
    }

    func run(count: Int) throws(Difference) {
        while posted < count {
            step += 1
            switch random.below(100) {
            case ..<20: try postSends(random.below(waiting.count))
            case ..<25: try compareSends(random.below(waiting.count))
            case ..<40: try postReceives(random.below(waiting.count + 1))
            case ..<78: try complete(random.below(waiting.count))
            case ..<94: try poll(random.below(pending.count))
            case ..<97: try resize(random.below(pending.count))
            default: try reset(random.below(waiting.count))
            }
        }
        for index in waiting.indices { try compareSends(index) }
    }

    func close() {
        sides.vendor.close()
        sides.ours.close()
    }

    // MARK: - Sends

    private func postSends(_ index: Int) throws(Difference) {
        let count = random.chance(40) ? 1 : 1 + random.below(40)
        operation = "posting \(count) sends to queue pair \(index)"
        for request in 0..<count { fillSend(request, RdmavtSide.types[index]) }
        requests.linkSends(count)
        let accepted = try postBoth(count, requests.sends, operation) { side, bad in
            for request in 0..<count where RdmavtSide.types[index] == IBV_QPT_UD {
                requests.sends[request].wr.ud.ah = sides[side].addresses[requests.addresses[request]]
            }
            return ibv_post_send(sides[side].pairs[index], requests.sends, &bad)
        }
        posted += accepted
        waiting[index] += accepted
        if random.chance(70) { try compareSends(index) }
    }

    /// Removes the queued sends from both devices, and compares them as decoded.
    private func compareSends(_ index: Int) throws(Difference) {
        for place in 0..<waiting[index] {
            let decoded = try both { (side) throws(Difference) -> uverbs_sim_request in
                var request = uverbs_sim_request()
                let result = sim!.pointee.take(sides[side].device, sides[side].number(index), &request)
                if result != 0 { throw Difference("\(operation): request \(place) did not reach the device") }
                return request
            }
            if decoded.vendor.hasDifference(from: decoded.ours) {
                throw Difference(
                    "\(operation): request \(place): the vendor's library sends \(decoded.vendor), ours \(decoded.ours)"
                )
            }
        }
        waiting[index] = 0
        let rest = try both { (side) throws(Difference) -> Int32 in
            var request = uverbs_sim_request()
            return sim!.pointee.take(sides[side].device, sides[side].number(index), &request)
        }
        try expectEqual(Twin(rest.vendor, rest.ours), "\(operation): whether there are more requests")
    }

    /// Fills a random request that the kernel accepts; it checks the lkeys when a request is posted.
    private func fillSend(_ index: Int, _ type: ibv_qp_type) {
        let request = requests.sends + index
        request.initialize(to: ibv_send_wr())
        request.pointee.wr_id = random.any()
        for flag in [IBV_SEND_SIGNALED, IBV_SEND_FENCE, IBV_SEND_SOLICITED] where random.chance(35) {
            request.pointee.send_flags |= flag.rawValue
        }
        let sends = [IBV_WR_SEND, IBV_WR_SEND_WITH_IMM]
        let writes = [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM]
        let others = [IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD]
        request.pointee.opcode = random.pick(
            type == IBV_QPT_UD ? sends : type == IBV_QPT_UC ? sends + writes : sends + writes + others)
        var isAtomic = false
        switch request.pointee.opcode {
        case IBV_WR_SEND_WITH_IMM: request.pointee.imm_data = random.any()
        case IBV_WR_SEND_WITH_INV: request.pointee.invalidate_rkey = random.any()
        case IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ:
            if request.pointee.opcode == IBV_WR_RDMA_WRITE_WITH_IMM { request.pointee.imm_data = random.any() }
            request.pointee.wr.rdma.remote_addr = random.any()
            request.pointee.wr.rdma.rkey = random.any()
        case IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD:
            isAtomic = true
            request.pointee.wr.atomic.remote_addr = random.any()
            request.pointee.wr.atomic.rkey = random.any()
            request.pointee.wr.atomic.compare_add = random.any()
            request.pointee.wr.atomic.swap = random.any()
        default: break
        }
        if type == IBV_QPT_UD {
            requests.addresses[index] = random.below(RdmavtSide.addressCount)
            request.pointee.wr.ud.remote_qpn = random.any(UInt32.self) & 0xFF_FFFF
            request.pointee.wr.ud.remote_qkey = random.any()
        }
        request.pointee.num_sge = isAtomic ? 1 : Int32(random.below(RdmavtSide.sges + 1))
        fillSGEs(index, Int(request.pointee.num_sge), length: isAtomic ? 8 : nil)
        request.pointee.sg_list = requests.list(index)
    }

    private func fillSGEs(_ index: Int, _ count: Int, length: Int?) {
        for place in 0..<count {
            let length = length ?? random.below(2000)
            let offset = random.below(Memory.sourceCount - length)
            requests.list(index)[place] = ibv_sge(
                addr: UInt64(UInt(bitPattern: memory.source + offset)), length: UInt32(length), lkey: sides.ours.key)
        }
    }

    // MARK: - Receives

    /// Posts to a queue pair, or to the shared receive queue if `index` is the number of queue pairs.
    private func postReceives(_ index: Int) throws(Difference) {
        let isShared = index == waiting.count
        if !isShared && RdmavtSide.isSharing(index) { return }
        let count = random.chance(40) ? 1 : 1 + random.below(12)
        operation = "posting \(count) receives to \(isShared ? "the shared receive queue" : "queue pair \(index)")"
        for place in 0..<count {
            let request = requests.receives + place
            request.initialize(to: ibv_recv_wr())
            request.pointee.wr_id = random.any()
            request.pointee.num_sge = Int32(random.below(RdmavtSide.sges + 1))
            for sge in 0..<Int(request.pointee.num_sge) {
                requests.list(place)[sge] = ibv_sge(addr: random.any(), length: random.any(), lkey: random.any())
            }
            request.pointee.sg_list = requests.list(place)
        }
        let area = isShared ? sides.memory(UVERBS_SIM_SHARED_RECEIVES, 0x101) : sides.receives(index)
        let places = isShared ? RdmavtSide.sharedRequests : RdmavtSide.requests
        let used = (area.vendor.word(0) + places + 1 - area.vendor.word(4)) % (places + 1)
        // In a full queue the libraries check the number of SGEs and the room in another order.
        if random.chance(6) && used + count <= places {
            requests.receives[count - 1].num_sge = Int32(RdmavtSide.sges) + 1
        }
        requests.linkReceives(count)
        let accepted = try postBoth(count, requests.receives, operation) { side, bad in
            isShared
                ? ibv_post_srq_recv(sides[side].shared, requests.receives, &bad)
                : ibv_post_recv(sides[side].pairs[index], requests.receives, &bad)
        }
        posted += accepted
        try expectEqual(area, unit: 16, "\(operation): the queue")
        // The device consumes some of them.
        let consumed = random.below((used + accepted) + 1)
        for side in 0...1 {
            let tail = (area[side].word(4) + consumed) % (places + 1)
            area[side].storeBytes(of: UInt32(tail), toByteOffset: 4, as: UInt32.self)
        }
    }

    // MARK: - Completions

    /// Writes a completion of any status, opcode and contents.
    private func complete(_ index: Int) throws(Difference) {
        let isReceive = random.chance(50)
        let queue = isReceive ? RdmavtSide.receiveQueue(index) : RdmavtSide.sendQueue(index)
        guard pending[queue] < Int(sides.ours.completions[queue].pointee.cqe) else { return }
        operation = "a completion of queue pair \(index)"
        var completion = uverbs_sim_completion()
        completion.tag = random.any()
        completion.status = UInt32(random.below(24))
        completion.opcode =
            isReceive
            ? random.pick([IBV_WC_RECV, IBV_WC_RECV_RDMA_WITH_IMM]).rawValue
            : random.pick([IBV_WC_SEND, IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ, IBV_WC_COMP_SWAP, IBV_WC_FETCH_ADD])
                .rawValue
        completion.byte_length = random.any()
        completion.immediate = random.any()
        completion.source_queue_pair = random.any(UInt32.self) & 0xFF_FFFF
        let flags = [IBV_WC_GRH, IBV_WC_WITH_IMM, IBV_WC_WITH_INV]
        for flag in flags where random.chance(40) { completion.flags |= flag.rawValue }
        completion.vendor_error = random.any()
        completion.partition_key_index = random.any()
        completion.source_lid = random.any()
        completion.service_level = random.any()
        completion.path_bits = random.any()
        completion.solicited = random.any(UInt8.self) & 1
        let results = try both { (side) throws(Difference) -> Int32 in
            sim!.pointee.complete(sides[side].device, sides[side].number(index), &completion)
        }
        try expectEqual(results, "\(operation): whether there is such a queue pair")
        pending[queue] += 1
    }

    private func poll(_ index: Int) throws(Difference) {
        let most = 1 + random.below(16)
        operation = "polling completion queue \(index) for \(most)"
        let size = MemoryLayout<ibv_wc>.size
        let list = memory.completions
        let found = try both { (side) throws(Difference) -> [UInt8] in
            memset(list, 0x5A, 16 * size)
            let count = Int(ibv_poll_cq(sides[side].completions[index], Int32(most), list))
            if count < 0 { throw Difference("\(operation): \(side == 0 ? "the vendor's" : "our") library: \(count)") }
            // libhfi1verbs returns the kernel's IB_WC_WITH_INVALIDATE, which is IBV_WC_IP_CSUM_OK in verbs.h.
            for place in 0..<count where side == 0 && list[place].wc_flags & IBV_WC_IP_CSUM_OK.rawValue != 0 {
                list[place].wc_flags ^= IBV_WC_IP_CSUM_OK.rawValue | IBV_WC_WITH_INV.rawValue
            }
            return Array(UnsafeRawBufferPointer(start: list, count: count * size))
        }
        try expectEqual(Twin(found.vendor.count / size, found.ours.count / size), "\(operation): how many were there")
        // The kernel sets all fields of a completion, so all bytes are compared.
        try expectEqual(found, "\(operation): completions")
        pending[index] -= found.ours.count / size
        completed += found.ours.count / size
        try expectEqual(sides.completions(index), unit: 48, "\(operation): the queue")
    }

    // MARK: - Reset and resize

    private func resize(_ index: Int) throws(Difference) {
        let entries = Int32(pending[index] + 1 + random.below(40))
        operation = "resizing completion queue \(index) to \(entries)"
        try sides.resizeCompletions(index, to: entries, operation)
        try expectEqual(sides.completions(index), unit: 48, "\(operation): the queue")
    }

    private func reset(_ index: Int) throws(Difference) {
        operation = "resetting queue pair \(index)"
        try compareSends(index)
        for side in 0...1 {
            sides[side].enterReset(index)
            sides[side].connect(index)
        }
        try expectEqual(sides.receives(index), unit: 16, "\(operation): receive queue")
    }
}

extension uverbs_sim_request {
    fileprivate func hasDifference(from other: uverbs_sim_request) -> Bool {
        withUnsafeBytes(of: self) { own in
            withUnsafeBytes(of: other) { memcmp(own.baseAddress!, $0.baseAddress!, own.count) != 0 }
        }
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func word(_ offset: Int) -> Int { Int(load(fromByteOffset: offset, as: UInt32.self)) }
}

extension Twin<RdmavtSide> {
    func memory(_ area: uverbs_sim_area, _ number: UInt32) -> Twin<UnsafeMutableRawBufferPointer> {
        Twin<UnsafeMutableRawBufferPointer>(vendor.memory(area, number), ours.memory(area, number))
    }

    func receives(_ index: Int) -> Twin<UnsafeMutableRawBufferPointer> {
        memory(UVERBS_SIM_RECEIVES, ours.number(index))
    }

    func completions(_ index: Int) -> Twin<UnsafeMutableRawBufferPointer> {
        Twin<UnsafeMutableRawBufferPointer>(
            vendor.memory(UVERBS_SIM_COMPLETIONS, vendor.completions[index].pointee.handle),
            ours.memory(UVERBS_SIM_COMPLETIONS, ours.completions[index].pointee.handle))
    }
}
