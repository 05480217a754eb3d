import CIBVerbs
import CSimulatorABI
import PeerSupport

// The stream's state of the queues: their memory, and the posted work requests.

/// An SGE in `Memory.landing`: offset and length.
struct Landing {
    var offset: Int
    var length: Int
}

/// A posted send.
struct PostedSend {
    /// Index of its first WQEBB, as in the CQE's `wqe_counter`.
    let wqebb: UInt16
    let opcode: ibv_wr_opcode
    /// The SGEs of a READ or atomic; nil when their addresses are random.
    let landing: [Landing]?
}

/// A posted receive.
struct PostedReceive {
    /// Index of the WQE in a shared receive queue.
    let index: UInt16
    let landing: [Landing]?
}

/// A queue pair.
final class PairModel {
    let index: Int
    let plan: PairPlan
    let number: UInt32
    let limits: ibv_qp_cap
    let sends: Twin<UnsafeMutableRawBufferPointer>
    let receives: Twin<UnsafeMutableRawBufferPointer>
    let record: Twin<UnsafeMutableRawBufferPointer>
    /// Sends that were posted and not polled, oldest first; the first has the number `firstSend`.
    var outstanding: [PostedSend] = []
    var firstSend = 0
    /// Number of outstanding sends whose CQE was written, or that a later CQE completes.
    var completedSends = 0
    var outstandingReceives: [PostedReceive] = []
    var completedReceives = 0
    /// The next request is posted with IBV_SEND_FENCE, because libmlx5 may set another fence for it than ours: after a
    /// reset it keeps the fence of an earlier UMR WQE, after some refusals it has dropped it, or sets that of the
    /// refused request. IBV_SEND_FENCE overrides it.
    var mustFence = false

    init(_ index: Int, _ sides: Twin<Side>) throws(Difference) {
        self.index = index
        plan = Plan.pairs[index]
        let numbers = Twin(sides.vendor.pairs[index].pointee.qp_num, sides.ours.pairs[index].pointee.qp_num)
        try expectEqual(numbers, "the number of queue pair \(index)")
        number = numbers.ours
        let granted = Twin(sides.vendor.limits[index], sides.ours.limits[index])
        func describe(_ limits: ibv_qp_cap) -> String {
            "\(limits.max_send_wr) sends of \(limits.max_send_sge), \(limits.max_inline_data) bytes inline, "
                + "\(limits.max_recv_wr) receives of \(limits.max_recv_sge)"
        }
        try expectEqual(Twin(describe(granted.vendor), describe(granted.ours)), "limits of queue pair \(index)")
        limits = granted.ours
        let number = number
        func area(_ area: uverbs_sim_area) -> Twin<UnsafeMutableRawBufferPointer> {
            Twin(sides.vendor.memory(area, number), sides.ours.memory(area, number))
        }
        sends = area(UVERBS_SIM_SENDS)
        receives = area(UVERBS_SIM_RECEIVES)
        record = area(UVERBS_SIM_RECORD)
        try expectEqual(Twin(sends.vendor.count, sends.ours.count), "size of send queue \(index)")
        try expectEqual(Twin(receives.vendor.count, receives.ours.count), "size of receive queue \(index)")
    }

    var name: String {
        let type = plan.type == IBV_QPT_RC ? "RC" : plan.type == IBV_QPT_UC ? "UC" : "UD"
        return "queue pair \(index) (\(type))"
    }

    /// The send queue's producer index, in WQEBBs, from the vendor's doorbell record.
    var wqebb: UInt16 {
        UInt16(truncatingIfNeeded: UInt32(bigEndian: record.vendor.load(fromByteOffset: 4, as: UInt32.self)))
    }

    func compare(_ what: String) throws(Difference) {
        try expectEqual(record, unit: 8, "\(what): doorbell record of \(name)")
        try expectEqual(sends, "\(what): send queue of \(name)")
    }

    func compareReceives(_ what: String) throws(Difference) {
        try expectEqual(record, unit: 8, "\(what): doorbell record of \(name)")
        let size = limits.max_recv_wr == 0 ? 16 : receives.ours.count / Int(limits.max_recv_wr)
        try expectEqual(receives, unit: max(size, 16), "\(what): receive queue of \(name)")
    }

    /// Fills the free part of both send queues with the same byte, so that a byte which only one library writes is a
    /// difference, and a byte which neither writes is equal.
    /// - Parameter immediates: Whether to set the immediate data of each free WQEBB to 0, because libmlx5's builders do
    ///   not write the immediate data of a request that has none.
    func fillFree(with byte: UInt8, immediates: Bool = false) {
        let size = sends.ours.count
        if size == 0 { return }
        let first = Int(wqebb) * 64 % size
        let used = outstanding.first.map { (Int(wqebb) &- Int($0.wqebb)) & 0xFFFF } ?? 0
        let count = size - used * 64
        for side in 0...1 {
            let start = sends[side].baseAddress!
            let here = min(count, size - first)
            (start + first).initializeMemory(as: UInt8.self, repeating: byte, count: here)
            start.initializeMemory(as: UInt8.self, repeating: byte, count: count - here)
            guard immediates else { continue }
            for place in stride(from: 0, to: count, by: 64) {
                start.storeBytes(of: 0, toByteOffset: (first + place) % size + 12, as: UInt32.self)
            }
        }
    }
}

/// A shared receive queue.
final class SharedModel {
    let index: Int
    let number: UInt32
    let ring: Twin<UnsafeMutableRawBufferPointer>
    let record: Twin<UnsafeMutableRawBufferPointer>
    let sges: Int
    let size: Int
    /// Index of the next WQE to be posted.
    var head: UInt16 = 0
    /// Receives that were posted and have no CQE.
    var outstanding: [PostedReceive] = []

    init(_ index: Int, _ sides: Twin<Side>) throws(Difference) {
        self.index = index
        // Both devices assign numbers from 0x101.
        number = 0x101 + UInt32(index)
        ring = Twin(
            sides.vendor.memory(UVERBS_SIM_SHARED_RECEIVES, number),
            sides.ours.memory(UVERBS_SIM_SHARED_RECEIVES, number))
        record = Twin(
            sides.vendor.memory(UVERBS_SIM_SHARED_RECORD, number), sides.ours.memory(UVERBS_SIM_SHARED_RECORD, number))
        let asked = Int(Plan.shared[index].1)
        var size = 32
        while size < 16 + 16 * asked { size *= 2 }
        self.size = size
        sges = size / 16 - 1
    }

    var name: String { "shared receive queue \(index)" }

    /// The index of the next WQE in the next segment of a WQE, in the vendor's queue.
    func link(_ index: UInt16) -> UInt16 {
        UInt16(bigEndian: ring.vendor.load(fromByteOffset: Int(index) * size + 2, as: UInt16.self))
    }

    /// Compares up to the size of our queue; libmlx5's queue has a second list behind it, for on-demand paging.
    func compare(_ what: String) throws(Difference) {
        try expectEqual(
            Twin(
                UnsafeMutableRawBufferPointer(rebasing: record.vendor[..<4]),
                UnsafeMutableRawBufferPointer(rebasing: record.ours[..<4])), unit: 8,
            "\(what): doorbell record of \(name)")
        try expectEqual(ring, unit: size, "\(what): \(name)")
    }
}

/// A CQE that was written and not polled.
enum Pending {
    /// A send with this number, and the data in the CQE for our library if the CQE for the vendor's has none.
    case send(pair: Int, number: Int, payload: [UInt8]?)
    case receive(pair: Int)
    case sharedReceive(pair: Int)

    var pair: Int {
        switch self {
        case .send(let pair, _, _), .receive(let pair), .sharedReceive(let pair): pair
        }
    }
}

/// A completion queue.
final class QueueModel {
    let index: Int
    let record: Twin<UnsafeMutableRawBufferPointer>
    var pending: [Pending] = []
    var isExtended: Bool { index == Plan.extended }

    init(_ index: Int, _ sides: Twin<Side>) throws(Difference) {
        self.index = index
        try expectEqual(
            Twin(sides.vendor.completions[index].pointee.cqe, sides.ours.completions[index].pointee.cqe),
            "size of completion queue \(index)")
        record = Twin(
            sides.vendor.memory(UVERBS_SIM_COMPLETION_RECORD, sides.vendor.completions[index].pointee.handle),
            sides.ours.memory(UVERBS_SIM_COMPLETION_RECORD, sides.ours.completions[index].pointee.handle))
    }

    var name: String { "completion queue \(index)" }

    func compare(_ what: String) throws(Difference) {
        try expectEqual(record, unit: 8, "\(what): doorbell record of \(name)")
    }
}
