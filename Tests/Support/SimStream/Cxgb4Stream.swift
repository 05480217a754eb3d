import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// Like `Stream`, for cxgb4: send and receive queues are in the kernel's memory, a CQE of a send has the index of its WR, and
/// the libraries flush queue pairs in error. The model has the posted requests, so that it completes only those that an
/// adapter could complete.
final class Cxgb4Stream {
    let kind: String
    let isTrapped: Bool
    let sides: Twin<Cxgb4Side>
    var random: Random
    let requests = Requests()
    let memory = Memory()
    var pairs: [Cxgb4Pair] = []
    var shared: Cxgb4Shared?
    /// Number of CQEs that were written and not polled, for each completion queue.
    var pending = [Int](repeating: 0, count: Cxgb4Side.entries.count)
    private(set) var step = 0
    var posted = 0
    var completed = 0
    var operation = ""
    private let stores = Twin(
        UnsafeMutablePointer<uverbs_sim_store>.allocate(capacity: Cxgb4Stream.storeCount),
        .allocate(capacity: Cxgb4Stream.storeCount))
    private static let storeCount = 1 << 12

    init(kind: String, seed: UInt64, libraries: Twin<Library>) throws(Difference) {
        self.kind = kind
        isTrapped = Matrix.canTrap && !kind.contains("notrap")
        random = Random(seed: seed, name: kind)
        let memory = memory
        let sharing = !kind.contains("cqe32") && !kind.contains("t4")
        sides = try both { (side) throws(Difference) -> Cxgb4Side in
            Cxgb4Side(libraries[side], device: createDevice(kind), sharing: sharing, memory: memory.all)
        }
        for index in sides.ours.plans.indices { pairs.append(try Cxgb4Pair(index, sides)) }
        if sharing { shared = try Cxgb4Shared(sides) }
        for index in Cxgb4Side.entries.indices {
            let sizes = Twin(sides.vendor.completions[index].pointee.cqe, sides.ours.completions[index].pointee.cqe)
            try expectEqual(sizes, "size of completion queue \(index)")
        }
        _ = try readStores()
    }

    func run(count: Int) throws(Difference) {
        let end = posted + count
        while posted < end {
            step += 1
            unwritten = []
            switch random.below(1000) {
            case ..<300: try postSends(random.below(pairs.count))
            case ..<400: try postReceives(random.below(pairs.count))
            case ..<640: try completeSend(random.below(pairs.count))
            case ..<770: try completeReceive(random.below(pairs.count))
            case ..<950: try poll(random.below(pending.count))
            case ..<990: try notify(random.below(pending.count))
            default: try fail(random.below(pairs.count))
            }
            try compareStores()
        }
        // For the flush of the queue pairs that are destroyed, as in `fail`.
        try drain("at the end")
    }

    func close() {
        sides.vendor.close()
        sides.ours.close()
    }

    // MARK: - Doorbells

    private func readStores() throws(Difference) -> Twin<Int> {
        try both { (side) throws(Difference) -> Int in
            Int(sim?.pointee.stores(sides[side].device, stores[side], Int32(Cxgb4Stream.storeCount)) ?? 0)
        }
    }

    /// Compares the stores of the last call to doorbell pages.
    private func compareStores() throws(Difference) {
        guard isTrapped else { return }
        let count = try readStores()
        let made = try both { (side) throws(Difference) -> [Store] in
            var made: [Store] = []
            for index in 0..<count[side] { merge(stores[side][index], into: &made) }
            return made
        }
        try expectEqual(Twin(made.vendor.count, made.ours.count), "\(operation): number of doorbells")
        for index in made.ours.indices {
            var (vendor, ours) = (made.vendor[index], made.ours[index])
            // The log has the first 8 bytes of each store: compare those that both stores show.
            for byte in vendor.bytes.indices where vendor.bytes[byte] == nil || ours.bytes[byte] == nil {
                (vendor.bytes[byte], ours.bytes[byte]) = (nil, nil)
            }
            try expectEqual(Twin("\(vendor)", "\(ours)"), "\(operation): doorbell \(index)")
        }
    }

    /// A store to a doorbell page, or all stores to a write-combining doorbell.
    private struct Store: CustomStringConvertible {
        var page: UInt32
        var offset: Int
        var size: Int
        /// By offset from `offset`; nil for bytes that the log does not have, or that libcxgb4 does not write.
        var bytes: [UInt8?]

        var description: String {
            "\(size) bytes at \(offset) of page \(page): "
                + bytes.map { $0.map { String($0, radix: 16) } ?? "-" }.joined(separator: " ")
        }
    }

    /// Adds a store of the log. The libraries copy to a write-combining doorbell by stores of different sizes.
    private func merge(_ store: uverbs_sim_store, into made: inout [Store]) {
        let place = Int(store.offset) % 128 - 64
        let value = withUnsafeBytes(of: store.value) { $0.prefix(Int(store.size)).map { UInt8?($0) } }
        guard place >= 0, store.size >= 8 else {
            made.append(Store(page: store.page, offset: Int(store.offset), size: Int(store.size), bytes: value))
            return
        }
        let start = Int(store.offset) - place
        if made.last?.offset != start || made.last?.page != store.page || made.last?.size == 64 {
            made.append(Store(page: store.page, offset: start, size: 0, bytes: Array(repeating: nil, count: 64)))
        }
        made[made.count - 1].size += Int(store.size)
        // libcxgb4 copies what its stack has behind the WR, whose size is in its header, too.
        let size = place == 0 ? Int(store.value.7) * 16 : Int((made[made.count - 1].bytes[7] ?? 0)) * 16
        for (index, byte) in value.enumerated() where place + index < size {
            let isUnwritten = stride(from: 0, to: unwritten.count, by: 2).contains {
                (unwritten[$0]..<unwritten[$0] + unwritten[$0 + 1]).contains(place + index)
            }
            if !isUnwritten { made[made.count - 1].bytes[place + index] = byte }
        }
    }

    /// Offsets and lengths of the bytes of the last WR that libcxgb4 does not write.
    var unwritten: [Int] = []

    /// Drops the stores of a call that libcxgb4 answers with a doorbell for a request that it has refused.
    func dropStores() throws(Difference) { _ = try readStores() }

    // MARK: - Polling

    private func poll(_ index: Int) throws(Difference) {
        let most = 1 + random.below(16)
        operation = "polling completion queue \(index) for \(most)"
        let found = try take(index, most)
        try compare(found)
        if found.ours.count < most { pending[index] = 0 }
    }

    /// Polls with both libraries. Compares the numbers of completions.
    private func take(_ index: Int, _ most: Int) throws(Difference) -> Twin<[ibv_wc]> {
        let list = memory.completions
        let found = try both { (side) throws(Difference) -> [ibv_wc] in
            memset(list, 0, 16 * MemoryLayout<ibv_wc>.size)
            let count = Int(ibv_poll_cq(sides[side].completions[index], Int32(most), list))
            if count < 0 { throw Difference("\(operation): \(side == 0 ? "the vendor's" : "our") library: \(count)") }
            return UnsafeBufferPointer(start: list, count: count).map(\.normalised)
        }
        try expectEqual(Twin(found.vendor.count, found.ours.count), "\(operation): how many were there")
        for completion in found.ours { retire(completion) }
        completed += found.ours.count
        if let shared {
            try shared.observe(operation)
            try expectEqual(shared.ring, unit: 64, "\(operation): the shared receive queue")
        }
        return found
    }

    /// Compares all bytes of completions.
    private func compare(_ found: Twin<[ibv_wc]>) throws(Difference) {
        for place in found.ours.indices {
            let bytes = try both { (side) throws(Difference) -> [UInt8] in
                withUnsafeBytes(of: found[side][place]) { Array($0) }
            }
            if bytes.vendor == bytes.ours { continue }
            throw Difference(
                "\(operation): completion \(place): the vendor's library has \(found.vendor[place]), "
                    + "ours \(found.ours[place])")
        }
    }

    /// Removes the requests that a completion retires from the model.
    private func retire(_ completion: ibv_wc) {
        guard let pair = pairs.first(where: { $0.number == completion.qp_num }) else { return }
        if completion.isReceive {
            if pair.plan.isSharing { shared?.count -= 1 } else { pair.heldReceives -= 1 }
            return
        }
        guard let place = pair.sends.firstIndex(where: { $0.id == completion.wr_id }) else { return }
        pair.sends.removeFirst(place + 1)
    }

    /// Polls all completion queues until they are empty. Compares the completions of each direction of a queue pair:
    /// whether those of sends or of receives are flushed first is not specified.
    private func drain(_ when: String) throws(Difference) {
        operation = when
        for queue in pending.indices {
            var all = Twin<[ibv_wc]>([], [])
            while true {
                let found = try take(queue, 16)
                if found.ours.isEmpty { break }
                all.vendor += found.vendor
                all.ours += found.ours
            }
            pending[queue] = 0
            for number in Set(all.ours.map(\.qp_num)) {
                for isReceive in [false, true] {
                    func ofQueue(_ list: [ibv_wc]) -> [ibv_wc] {
                        list.filter { $0.qp_num == number && $0.isReceive == isReceive }
                    }
                    let found = Twin(ofQueue(all.vendor), ofQueue(all.ours))
                    try expectEqual(Twin(found.vendor.count, found.ours.count), "\(operation): how many were there")
                    try compare(found)
                }
            }
        }
    }

    private func notify(_ index: Int) throws(Difference) {
        let solicited: Int32 = random.chance(50) ? 1 : 0
        operation = "arming completion queue \(index)"
        let errors = try both { (side) throws(Difference) -> Int32 in
            ibv_req_notify_cq(sides[side].completions[index], solicited)
        }
        try expectEqual(errors, "\(operation): errno value")
    }

    // MARK: - Errors

    /// A connection ends: the libraries flush the queue pair, which is then made again.
    private func fail(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        // When libcxgb4 44 flushes a queue pair, it takes every CQE in the completion queue for a copy of the first, which
        // rdma-core 54 mended. So there is at most one.
        try drain("before the end of a connection")
        if random.chance(50) { try completeSend(index) } else { try completeReceive(index) }
        operation = "the end of the connection of queue pair \(index)"
        let errors = try both { (side) throws(Difference) -> Int32 in
            sim!.pointee.disconnect(sides[side].device, pair.number, Int32(UVERBS_SIM_ABORT.rawValue))
        }
        try expectEqual(errors, "\(operation): whether it was connected")
        try drain(operation)
        operation = "making queue pair \(index) again"
        try dropStores()
        for side in 0...1 { sides[side].replace(index) }
        try dropStores()
        pairs[index] = try Cxgb4Pair(index, sides)
    }
}

extension ibv_wc {
    fileprivate var isReceive: Bool { opcode.rawValue & IBV_WC_RECV.rawValue != 0 }

    /// Without the fields that do not belong to the completion, and into which a library may leave anything.
    fileprivate var normalised: ibv_wc {
        var completion = self
        if wc_flags & (IBV_WC_WITH_IMM.rawValue | IBV_WC_WITH_INV.rawValue) == 0 { completion.imm_data = 0 }
        if !isReceive && opcode != IBV_WC_RDMA_READ { completion.byte_len = 0 }
        if status != IBV_WC_SUCCESS { (completion.byte_len, completion.imm_data) = (0, 0) }
        return completion
    }
}
