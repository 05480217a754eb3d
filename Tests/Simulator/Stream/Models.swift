import CIBVerbs
import CSimulatorABI
import PeerSupport

// What the stream knows of the queues: where they lie, and what is posted.

/// A piece of landing memory: offset and length.
struct Landing {
    var offset: Int
    var length: Int
}

/// A send that was posted.
struct PostedSend {
    /// Number of its first block, as completions name it.
    let block: UInt16
    let opcode: ibv_wr_opcode
    /// Where what a READ or atomic operation brings goes to; nil where its addresses lead nowhere.
    let landing: [Landing]?
}

/// A receive that was posted; `index` in a shared queue.
struct PostedReceive {
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
    /// Posted and not polled, oldest first; the first has the number `firstSend`.
    var outstanding: [PostedSend] = []
    var firstSend = 0
    /// How many of them have a completion written already.
    var completedSends = 0
    var outstandingReceives: [PostedReceive] = []
    var completedReceives = 0
    /// libmlx5 may have another opinion of whether the next request waits for a change of a key: after a reset it still
    /// remembers one, after some refusals it has forgotten it, or waits for the one that it has refused. The next request
    /// gets a fence of its own, which counts for more.
    var mustFence = false

    init(_ index: Int, _ sides: Twin<Side>) throws(Difference) {
        self.index = index
        plan = Plan.pairs[index]
        let numbers = Twin(sides.vendor.pairs[index].pointee.qp_num, sides.ours.pairs[index].pointee.qp_num)
        try expectEqual(numbers, "the number of queue pair \(index)")
        number = numbers.ours
        let granted = Twin(sides.vendor.limits[index], sides.ours.limits[index])
        func tell(_ limits: ibv_qp_cap) -> String {
            "\(limits.max_send_wr) sends of \(limits.max_send_sge), \(limits.max_inline_data) bytes inline, "
                + "\(limits.max_recv_wr) receives of \(limits.max_recv_sge)"
        }
        try expectEqual(Twin(tell(granted.vendor), tell(granted.ours)), "limits of queue pair \(index)")
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

    /// Up to which block sends are posted, as the vendor's record says.
    var block: UInt16 {
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

    /// What does not belong to posted requests gets the same contents in both queues: so a byte that one library
    /// writes and the other does not is found, and one that neither writes is equal.
    /// - Parameter immediates: libmlx5's builders write no immediate data into requests that have none; it is 0 where any
    ///   of them may begin.
    func fillFree(with byte: UInt8, immediates: Bool = false) {
        let size = sends.ours.count
        if size == 0 { return }
        let first = Int(block) * 64 % size
        let used = outstanding.first.map { (Int(block) &- Int($0.block)) & 0xFFFF } ?? 0
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
    let elements: Int
    let size: Int
    /// The next one that is posted.
    var head: UInt16 = 0
    /// Posted, and no completion written.
    var outstanding: [PostedReceive] = []

    init(_ index: Int, _ sides: Twin<Side>) throws(Difference) {
        self.index = index
        // Both count from the same number on.
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
        elements = size / 16 - 1
    }

    var name: String { "shared receive queue \(index)" }

    /// The link of a request, in the vendor's queue.
    func link(_ index: UInt16) -> UInt16 {
        UInt16(bigEndian: ring.vendor.load(fromByteOffset: Int(index) * size + 2, as: UInt16.self))
    }

    /// Ours is as long as it must be; libmlx5's has a second list behind it, of requests that wait for on-demand paging.
    func compare(_ what: String) throws(Difference) {
        try expectEqual(
            Twin(
                UnsafeMutableRawBufferPointer(rebasing: record.vendor[..<4]),
                UnsafeMutableRawBufferPointer(rebasing: record.ours[..<4])), unit: 8,
            "\(what): doorbell record of \(name)")
        try expectEqual(ring, unit: size, "\(what): \(name)")
    }
}

/// A completion that was written and not polled.
enum Pending {
    /// A send of that number, and the data that stands in it where the vendor's library is not asked.
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
