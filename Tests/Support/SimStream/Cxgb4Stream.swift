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
        let combined = combinedBytes
        combinedBytes = 64
        guard isTrapped else { return }
        let count = try readStores()
        try expectEqual(count, "\(operation): number of stores to doorbell pages")
        for index in 0..<count.ours {
            let store = Twin(stores.vendor[index], stores.ours[index])
            // libcxgb4 copies its stack to the write-combining doorbell, also what is behind the WR.
            let place = Int(store.ours.offset) % 128 - 64
            if place >= combined && store.vendor.offset == store.ours.offset { continue }
            func text(_ store: uverbs_sim_store) -> String {
                "\(store.size) bytes at \(store.offset) of page \(store.page): "
                    + withUnsafeBytes(of: store.value) { $0.map { String($0, radix: 16) }.joined(separator: " ") }
            }
            var bytes = Twin(
                withUnsafeBytes(of: store.vendor) { Array($0) }, withUnsafeBytes(of: store.ours) { Array($0) })
            for range in Swift.stride(from: 0, to: unwritten.count, by: 2) {
                for byte in 0..<unwritten[range + 1] where (0..<8).contains(unwritten[range] + byte - place) {
                    let value = Cxgb4Stream.storedValue + unwritten[range] + byte - place
                    (bytes.vendor[value], bytes.ours[value]) = (0, 0)
                }
            }
            if bytes.vendor != bytes.ours {
                throw Difference(
                    "\(operation): store \(index) to a doorbell page: the vendor's library makes "
                        + "\(text(store.vendor)); ours \(text(store.ours))")
            }
        }
    }

    /// The bytes of the last WR that a write-combining doorbell may contain.
    var combinedBytes = 64
    /// Offsets and lengths of the bytes of the last WR that libcxgb4 does not write.
    var unwritten: [Int] = []
    private static let storedValue = MemoryLayout<uverbs_sim_store>.offset(of: \.value)!

    /// Drops the stores of a call that libcxgb4 answers with a doorbell for a request that it has refused.
    func dropStores() throws(Difference) { _ = try readStores() }

    // MARK: - Polling

    private func poll(_ index: Int) throws(Difference) {
        let most = 1 + random.below(16)
        operation = "polling completion queue \(index) for \(most)"
        let count = try pollBoth(index, most)
        if count < most { pending[index] = 0 }
    }

    @discardableResult
    private func pollBoth(_ index: Int, _ most: Int) throws(Difference) -> Int {
        let size = MemoryLayout<ibv_wc>.size
        let list = memory.completions
        var found = try both { (side) throws(Difference) -> [ibv_wc] in
            memset(list, 0, 16 * size)
            let count = Int(ibv_poll_cq(sides[side].completions[index], Int32(most), list))
            if count < 0 { throw Difference("\(operation): \(side == 0 ? "the vendor's" : "our") library: \(count)") }
            return Array(UnsafeBufferPointer(start: list, count: count))
        }
        try expectEqual(Twin(found.vendor.count, found.ours.count), "\(operation): how many were there")
        for place in found.ours.indices {
            found.vendor[place].normalise()
            found.ours[place].normalise()
            let bytes = try both { (side) throws(Difference) -> [UInt8] in
                withUnsafeBytes(of: found[side][place]) { Array($0) }
            }
            if bytes.vendor != bytes.ours {
                throw Difference(
                    "\(operation): completion \(place): the vendor's library has \(found.vendor[place]), "
                        + "ours \(found.ours[place])")
            }
            retire(found.ours[place])
        }
        completed += found.ours.count
        if let shared {
            shared.observe()
            try expectEqual(shared.ring, unit: 64, "\(operation): the shared receive queue")
        }
        return found.ours.count
    }

    /// Removes the requests that a completion retires from the model.
    private func retire(_ completion: ibv_wc) {
        guard let pair = pairs.first(where: { $0.number == completion.qp_num }) else { return }
        if completion.opcode.rawValue & IBV_WC_RECV.rawValue != 0 { return }
        guard let place = pair.sends.firstIndex(where: { $0.id == completion.wr_id }) else { return }
        pair.sends.removeFirst(place + 1)
    }

    /// Polls all completion queues until they are empty.
    private func drain(_ when: String) throws(Difference) {
        operation = when
        for queue in pending.indices {
            while try pollBoth(queue, 16) > 0 {}
            pending[queue] = 0
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
    /// Zeroes the fields that do not belong to the completion, and into which a library may leave anything.
    fileprivate mutating func normalise() {
        if wc_flags & (IBV_WC_WITH_IMM.rawValue | IBV_WC_WITH_INV.rawValue) == 0 { imm_data = 0 }
        if opcode.rawValue & IBV_WC_RECV.rawValue == 0 && opcode != IBV_WC_RDMA_READ { byte_len = 0 }
        if status != IBV_WC_SUCCESS { (byte_len, imm_data) = (0, 0) }
    }
}
