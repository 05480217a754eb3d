import CSimulator

/// A send queue, receive queue or shared receive queue: entries of 5 or 2 slots of 64 bytes, in which WRs follow each
/// other slot by slot, and the status page behind them.
///
/// | bytes of the status page | contents |
/// |--------------------------|----------|
/// | 12 | `qp_err`: the queue pair is in error |
/// | 20 ..< 22 | `host_pidx`: index of the next WR, which the library writes before it rings the doorbell |
/// | 24 ..< 28 | `srqidx`: an index of a shared receive queue that was consumed without a CQE |
final class Cxgb4Queue {
    static let slot = 64

    let memory: QueueMemory
    let qid: UInt32
    /// WRs that fit in the queue, of which one is always free.
    let entries: UInt32
    let slotsPerEntry: UInt32
    let page: Cxgb4Page
    /// The queue pair or shared receive queue; nil after its destruction.
    var owner: EventSource?
    /// The first slot and the index of the next WR.
    private(set) var first: UInt32 = 0
    private(set) var index: UInt32 = 0
    /// Slots that the doorbell has announced, from `first` on.
    var rung: UInt32 = 0
    /// Slots for which MODIFY_QP has rung while the doorbells are stopped.
    var withheld: UInt32 = 0
    /// Slots and indexes of the WR that was decoded last. `retire` removes it.
    var headSlots: UInt32 = 0
    /// The SEND of a WRITE_CMPL is next; its WRITE was executed.
    var isAtSend = false
    /// The WR that was decoded last is a WRITE_CMPL.
    var isPair = false

    init(
        memory: QueueMemory, qid: UInt32, entries: UInt32, slotsPerEntry: UInt32, page: Cxgb4Page, owner: EventSource
    ) {
        self.memory = memory
        self.qid = qid
        self.entries = entries
        self.slotsPerEntry = slotsPerEntry
        self.page = page
        self.owner = owner
    }

    var slots: UInt32 { entries * slotsPerEntry }
    private var status: UnsafeMutableRawPointer { memory.bytes + Int(slots) * Cxgb4Queue.slot }
    /// The entries and the status page.
    var all: UnsafeMutableRawBufferPointer {
        .init(start: memory.bytes, count: Int(slots + 1) * Cxgb4Queue.slot)
    }

    /// Whether a WR is posted.
    /// - Parameter countsDoorbells: False: by the status page, for pages whose stores are not trapped.
    func hasRequest(countsDoorbells: Bool) -> Bool {
        countsDoorbells
            ? rung > 0 : UInt32((status + 20).load(as: UInt16.self)) != index
    }

    /// Removes the WR that was decoded last.
    func retire() {
        index = index + 1 == entries ? 0 : index + 1
        if isPair && !isAtSend {
            isAtSend = true
            return
        }
        isAtSend = false
        first = (first + headSlots) % slots
        rung -= min(rung, headSlots)
    }

    func markError() { status.storeBytes(of: 1, toByteOffset: 12, as: UInt8.self) }
    func markShared(_ index: UInt32) { status.storeBytes(of: index, toByteOffset: 24, as: UInt32.self) }

    // MARK: - Bytes of the WR at `first`, which wraps at the queue's end

    func byte(_ offset: Int, from slot: UInt32) -> UInt8 { place(offset, slot).load(as: UInt8.self) }

    /// Big endian.
    func word(_ offset: Int, from slot: UInt32) -> UInt32 {
        UInt32(bigEndian: place(offset, slot).load(as: UInt32.self))
    }
    func quad(_ offset: Int, from slot: UInt32) -> UInt64 {
        UInt64(word(offset, from: slot)) << 32 | UInt64(word(offset + 4, from: slot))
    }

    /// `wrid`, in the byte order of this machine.
    func identifier(_ offset: Int, from slot: UInt32) -> UInt16 { place(offset, slot).load(as: UInt16.self) }

    private func place(_ offset: Int, _ slot: UInt32) -> UnsafeMutableRawPointer {
        memory.bytes + (Int(slot) * Cxgb4Queue.slot + offset) % (Int(slots) * Cxgb4Queue.slot)
    }
}

/// The queues of a queue pair.
final class Cxgb4Queues: VendorState {
    let sends: Cxgb4Queue
    let receives: Cxgb4Queue?
    /// MSN of the next message that the responder receives.
    var nextMSN: UInt32 = 1
    /// A WR was malformed: the device reads no more WRs.
    var isBroken = false
    /// CQEs of READs that are written later (`reorder`).
    var delayed: [(cqe: Cxgb4CQE, ring: Cxgb4Completions)] = []

    init(sends: Cxgb4Queue, receives: Cxgb4Queue?) {
        self.sends = sends
        self.receives = receives
        super.init()
    }

    /// The flag is in the receive queue's status page, or in the send queue's if there is a shared receive queue.
    func markError() { (receives ?? sends).markError() }
}

final class Cxgb4Shared: VendorState {
    let queue: Cxgb4Queue
    /// `rqt_abs_idx`: the index of the first WR in the adapter's table, to which CQEs refer.
    let firstIndex: UInt32

    init(_ queue: Cxgb4Queue, firstIndex: UInt32) {
        self.queue = queue
        self.firstIndex = firstIndex
        super.init()
    }
}

/// A completion queue: CQEs of 64 or 32 bytes, and a status page in the last entry, whose byte 12 is `qp_err`: a queue
/// pair of the queue is in error.
final class Cxgb4Completions: VendorState {
    let memory: QueueMemory
    /// Entries without the status page.
    let count: UInt32
    let stride: Int
    let number: UInt32
    let page: Cxgb4Page
    /// All returned CQEs are known, because stores to the doorbell page are trapped.
    let countsDoorbells: Bool
    /// CQEs written, and returned by the library; they count on beyond the queue's end.
    var producer: UInt32 = 0
    var consumer: UInt32 = 0
    /// `producer` after the last solicited CQE.
    var lastSolicited: UInt32 = 0

    init(memory: QueueMemory, count: UInt32, stride: Int, number: UInt32, page: Cxgb4Page, countsDoorbells: Bool) {
        self.memory = memory
        self.count = count
        self.stride = stride
        self.number = number
        self.page = page
        self.countsDoorbells = countsDoorbells
        super.init()
    }

    /// The entries and the status page.
    var all: UnsafeMutableRawBufferPointer { .init(start: memory.bytes, count: Int(count + 1) * stride) }

    func markError() { memory.bytes.storeBytes(of: 1, toByteOffset: Int(count) * stride + 12, as: UInt8.self) }
}
