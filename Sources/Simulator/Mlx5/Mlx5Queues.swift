import CSimulator

/// A doorbell record (DBR): two words of the program's memory, big endian.
struct DoorbellRecord {
    private let words: UnsafeMutablePointer<UInt32>

    init(_ address: UInt64) throws(Refusal) {
        try demand(address & 7 == 0, EINVAL, "a doorbell record is aligned to 8 bytes", has: Int(address & 7))
        guard sim_is_mapped(address, 8, true), let words = UnsafeMutablePointer<UInt32>(bitPattern: UInt(address))
        else {
            throw Refusal(EFAULT, "the doorbell record is not mapped")
        }
        self.words = words
    }

    /// Word 0: MLX5_RCV_DBR, the receive queue's producer index; of a completion queue MLX5_CQ_SET_CI, the consumer
    /// index.
    var first: UInt32 { UInt32(bigEndian: sim_load(words)) }
    /// Word 1: MLX5_SND_DBR, the send queue's producer index; of a completion queue MLX5_CQ_ARM_DB, the arming
    /// doorbell.
    var second: UInt32 { UInt32(bigEndian: sim_load(words + 1)) }

    var bytes: UnsafeMutableRawBufferPointer { .init(start: words, count: 8) }
}

/// The memory of a queue, which the program has allocated.
func programMemory(_ address: UInt64, _ size: Int, alignment: UInt64) throws(Refusal) -> UnsafeMutableRawPointer {
    try demand(
        address & (alignment - 1) == 0, EINVAL, "a queue's address is not aligned:",
        has: Int(truncatingIfNeeded: address))
    guard sim_is_mapped(address, UInt64(size), true), let bytes = UnsafeMutableRawPointer(bitPattern: UInt(address))
    else { throw Refusal(EFAULT, "a queue is not mapped in its whole length, in bytes", has: size) }
    return bytes
}

/// A queue pair's own receive queue: WQEs of data segments.
final class Mlx5Receives {
    let bytes: UnsafeMutableRawPointer
    let count: UInt32
    let stride: Int
    /// Index of the next WQE to be consumed, modulo 2^16.
    var next: UInt16 = 0

    init(_ bytes: UnsafeMutableRawPointer, count: UInt32, stride: Int) {
        self.bytes = bytes
        self.count = count
        self.stride = stride
    }
}

/// The queues of a queue pair: the receive queue, followed by the send queue in WQEBBs (WQE basic blocks) of 64 bytes.
final class Mlx5Queues: VendorState {
    static let wqebb = 64

    let record: DoorbellRecord
    let sends: UnsafeMutableRawPointer
    let sendWQEBBs: UInt32
    let receives: Mlx5Receives?
    /// The user index (`uidx`), which CQEs carry with cqe_version 1.
    let userIndex: UInt32
    let scattersToCompletions: Bool
    /// Index of the next WQE's first WQEBB, modulo 2^16.
    var next: UInt16 = 0
    /// Number of WQEBBs of the WQE that is being executed.
    var wqebbs: UInt16 = 0
    /// Opcode of the WQE that is being executed.
    var opcode: UInt8 = 0
    /// A WQE was malformed: the device reads no more WQEs.
    var isBroken = false

    init(
        record: DoorbellRecord, sends: UnsafeMutableRawPointer, sendWQEBBs: UInt32, receives: Mlx5Receives?,
        userIndex: UInt32, scattersToCompletions: Bool
    ) {
        self.record = record
        self.sends = sends
        self.sendWQEBBs = sendWQEBBs
        self.receives = receives
        self.userIndex = userIndex
        self.scattersToCompletions = scattersToCompletions
        super.init()
    }

    func retireSend() { next &+= wqebbs }

    func reset() {
        next = 0
        isBroken = false
        receives?.next = 0
    }
}

/// A shared receive queue: each WQE has a next segment of 16 bytes (`struct mlx5_wqe_srq_next_seg`), which holds the
/// index of the next WQE, and data segments.
final class Mlx5Shared: VendorState {
    let record: DoorbellRecord
    let bytes: UnsafeMutableRawPointer
    let count: UInt32
    let stride: Int
    private var next: UInt16 = 0
    private var consumed: UInt32 = 0

    init(record: DoorbellRecord, bytes: UnsafeMutableRawPointer, count: UInt32, stride: Int) {
        self.record = record
        self.bytes = bytes
        self.count = count
        self.stride = stride
        super.init()
    }

    var waiting: UInt32 { record.first &- consumed }

    func consume(_ request: ReceiveRequest) -> Bool {
        // With an invalid doorbell record the queue is empty.
        guard waiting > 0, waiting <= count else { return false }
        let wqe = bytes + Int(next) * stride
        request.tag = UInt64(next)
        decodeSGEs(wqe + 16, (stride - 16) / 16, request)
        let link = UInt16(bigEndian: wqe.load(fromByteOffset: 2, as: UInt16.self))
        if UInt32(link) >= count { request.isDefect = true }
        next = UInt32(link) < count ? link : 0
        consumed &+= 1
        return true
    }
}

/// A completion queue: CQEs of 64 or 128 bytes in the program's memory.
final class Mlx5Completions: VendorState {
    let record: DoorbellRecord
    var bytes: UnsafeMutableRawPointer
    var count: UInt32
    var stride: Int
    let number: UInt32
    let ignoresOverrun: Bool
    /// Producer index; it counts on beyond the queue's end.
    var producer: UInt32 = 0
    /// The last arming doorbell (MLX5_CQ_ARM_DB) that the device has read.
    var lastArm: UInt32 = 0

    init(
        record: DoorbellRecord, bytes: UnsafeMutableRawPointer, count: UInt32, stride: Int, number: UInt32,
        ignoresOverrun: Bool
    ) {
        self.record = record
        self.bytes = bytes
        self.count = count
        self.stride = stride
        self.number = number
        self.ignoresOverrun = ignoresOverrun
        super.init()
    }

    /// Consumer index, 24 bits.
    var consumer: UInt32 { record.first & 0xFF_FFFF }
    var isFull: Bool { (producer &- consumer) & 0xFF_FFFF >= count }
}

/// Decodes the data segments of a receive WQE, up to the one with lkey 0x100 and length 0 if there is one.
func decodeSGEs(_ place: UnsafeMutableRawPointer, _ count: Int, _ request: ReceiveRequest) {
    for index in 0..<count {
        let segment = (place + 16 * index).loadUnaligned(as: mlx5_wqe_data_seg.self)
        let (length, key) = (UInt32(bigEndian: segment.byte_count), UInt32(bigEndian: segment.lkey))
        if length == 0 && key == UInt32(endOfList) { return }
        if !request.append(SGE(address: UInt64(bigEndian: segment.addr), length: length, key: key)) {
            request.isDefect = true
        }
    }
}

/// `MLX5_INVALID_LKEY` of the kernel and libmlx5, which is in no public header: the end of the data segments.
let endOfList = 0x100
