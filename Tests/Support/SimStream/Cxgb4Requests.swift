import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// A posted send of cxgb4.
struct Cxgb4Send {
    let id: UInt64
    /// The index of the WR (`wrid`).
    let index: UInt16
    let opcode: ibv_wr_opcode
    let isSignaled: Bool
    /// The size of its WR in slots of 64 bytes; 0 for the SEND of a WRITE_CMPL.
    let slots: Int
    /// Its CQE was written.
    var isComplete = false
}

/// A queue pair of cxgb4.
final class Cxgb4Pair {
    let index: Int
    let plan: Cxgb4Plan
    let number: UInt32
    let limits: ibv_qp_cap
    let sendQueue: Twin<UnsafeMutableRawBufferPointer>
    let receiveQueue: Twin<UnsafeMutableRawBufferPointer>
    /// The posted sends that no completion has retired.
    var sends: [Cxgb4Send] = []
    /// The index of the next send; the number of receives that were posted and have no CQE, and of those whose
    /// completion was not polled.
    var next: UInt16 = 0
    var receives = 0
    var heldReceives = 0

    init(_ index: Int, _ sides: Twin<Cxgb4Side>) throws(Difference) {
        self.index = index
        plan = sides.ours.plans[index]
        try expectEqual(Twin(sides.vendor.number(index), sides.ours.number(index)), "the number of queue pair \(index)")
        number = sides.ours.number(index)
        var granted = Twin(sides.vendor.limits[index], sides.ours.limits[index])
        // libcxgb4 returns limits of a receive queue that does not exist.
        if plan.isSharing {
            try expectEqual(Twin(0, granted.ours.max_recv_wr), "max_recv_wr with a shared receive queue")
            (granted.vendor.max_recv_wr, granted.vendor.max_recv_sge) = (0, 0)
        }
        // Without max_send_sge: libcxgb4 returns the requested one, ours returns what each WR has room for.
        func describe(_ limits: ibv_qp_cap) -> String {
            "\(limits.max_send_wr) sends, \(limits.max_inline_data) bytes inline, "
                + "\(limits.max_recv_wr) receives of \(limits.max_recv_sge)"
        }
        try expectEqual(Twin(describe(granted.vendor), describe(granted.ours)), "limits of queue pair \(index)")
        limits = granted.ours
        let number = number
        func area(_ area: uverbs_sim_area) -> Twin<UnsafeMutableRawBufferPointer> {
            Twin(sides.vendor.memory(area, number).withoutStatus, sides.ours.memory(area, number).withoutStatus)
        }
        sendQueue = area(UVERBS_SIM_SENDS)
        receiveQueue = area(UVERBS_SIM_RECEIVES)
        try expectEqual(Twin(sendQueue.vendor.count, sendQueue.ours.count), "size of send queue \(index)")
        try expectEqual(Twin(receiveQueue.vendor.count, receiveQueue.ours.count), "size of receive queue \(index)")
    }

    /// The number of WRs in the send queue, and of further WRs for which it has room.
    var entries: Int { sendQueue.ours.count / 320 }
    var room: Int { entries - 1 - sends.count }

    func compareSends(_ what: String) throws(Difference) {
        try expectEqual(sendQueue, "\(what): send queue of queue pair \(index)")
    }

    /// Fills the free part of both send queues with the same byte, so that a byte which only one library writes is a
    /// difference. The first free slot is `slot`.
    func fillFree(from slot: Int, _ byte: UInt8) {
        let slots = sendQueue.ours.count / 64
        let used = sends.reduce(0) { $0 + $1.slots }
        for side in 0...1 {
            for free in 0..<slots - used {
                let start = sendQueue[side].baseAddress! + (slot + free) % slots * 64
                start.initializeMemory(as: UInt8.self, repeating: byte, count: 64)
            }
        }
    }

    /// The first slot of the next send.
    var slot = 0
}

/// The shared receive queue of cxgb4.
final class Cxgb4Shared {
    let ring: Twin<UnsafeMutableRawBufferPointer>
    private let status: UnsafeMutableRawPointer
    let entries: Int
    /// The indexes of the WRs in the ring that no CQE has consumed, in the order of posting.
    var outstanding: [Int] = []
    private var producer = 0
    /// The number of posted receives whose completion was not polled, with those that a library holds back.
    var count = 0

    init(_ sides: Twin<Cxgb4Side>) throws(Difference) {
        let all = Twin(
            sides.vendor.memory(UVERBS_SIM_SHARED_RECEIVES, 0x101), sides.ours.memory(UVERBS_SIM_SHARED_RECEIVES, 0x101)
        )
        try expectEqual(Twin(all.vendor.count, all.ours.count), "size of the shared receive queue")
        ring = Twin(all.vendor.withoutStatus, all.ours.withoutStatus)
        entries = ring.ours.count / 128
        status = all.vendor.baseAddress! + ring.vendor.count
    }

    /// Reads from the vendor's status page which WRs it has put into the ring: it holds WRs back while consumed ones are
    /// out of order.
    func observe(_ operation: String) throws(Difference) {
        let index = Int((status + 20).load(as: UInt16.self))
        while producer != index {
            let offset = slot * 64
            // libcxgb4 gives a WR that it holds back the index that was next at that time. The adapter does not use it.
            try expectEqual(
                Twin(UInt16(producer), ring.ours.load(fromByteOffset: offset + 2, as: UInt16.self)),
                "\(operation): index of a WR of the shared receive queue")
            ring.vendor.storeBytes(of: UInt16(producer), toByteOffset: offset + 2, as: UInt16.self)
            outstanding.append(producer)
            producer = (producer + 1) % entries
            slot = (slot + (Int(ring.vendor[offset + 7]) * 16 + 63) / 64) % (entries * 2)
        }
    }

    /// The first slot of the next WR.
    private var slot = 0
}

extension UnsafeMutableRawBufferPointer {
    /// A queue without the slot of its status page.
    fileprivate var withoutStatus: Self { .init(start: baseAddress, count: Swift.max(count - 64, 0)) }
}
