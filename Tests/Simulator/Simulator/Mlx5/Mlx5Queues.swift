import CSimulator

/// A doorbell record: two words of the program's memory, big endian.
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

    /// Word 0: how far the program is with receives; of a completion queue: how far it has polled.
    var first: UInt32 { UInt32(bigEndian: sim_load(words)) }
    /// Word 1: how far the program is with sends; of a completion queue: what it asks to be told.
    var second: UInt32 { UInt32(bigEndian: sim_load(words + 1)) }

    var bytes: UnsafeMutableRawBufferPointer { .init(start: words, count: 8) }
}

/// A queue's memory, which is the program's.
func programMemory(_ address: UInt64, _ size: Int, alignment: UInt64) throws(Refusal) -> UnsafeMutableRawPointer {
    try demand(
        address & (alignment - 1) == 0, EINVAL, "a queue lies unaligned, at", has: Int(truncatingIfNeeded: address))
    guard sim_is_mapped(address, UInt64(size), true), let bytes = UnsafeMutableRawPointer(bitPattern: UInt(address))
    else { throw Refusal(EFAULT, "a queue is not mapped as far as it reaches, in bytes", has: size) }
    return bytes
}

/// A receive queue of a queue pair's own: entries of data segments.
final class Mlx5Receives {
    let bytes: UnsafeMutableRawPointer
    let count: UInt32
    let stride: Int
    /// The next one to be taken, modulo 2^16.
    var next: UInt16 = 0

    init(_ bytes: UnsafeMutableRawPointer, count: UInt32, stride: Int) {
        self.bytes = bytes
        self.count = count
        self.stride = stride
    }
}

/// The queues of a queue pair: receives first, sends behind them, in basic blocks of 64 bytes.
final class Mlx5Queues: VendorState {
    static let block = 64

    let record: DoorbellRecord
    let sends: UnsafeMutableRawPointer
    let sendBlocks: UInt32
    let receives: Mlx5Receives?
    /// What the program calls the queue pair in completions.
    let userIndex: UInt32
    let scattersToCompletions: Bool
    /// The next request's first block, modulo 2^16, and how many blocks it has.
    var next: UInt16 = 0
    var blocks: UInt16 = 0
    /// Opcode of the request that is being carried out.
    var opcode: UInt8 = 0
    /// What was in a queue made no sense: nothing is read from it any more.
    var isBroken = false

    init(
        record: DoorbellRecord, sends: UnsafeMutableRawPointer, sendBlocks: UInt32, receives: Mlx5Receives?,
        userIndex: UInt32, scattersToCompletions: Bool
    ) {
        self.record = record
        self.sends = sends
        self.sendBlocks = sendBlocks
        self.receives = receives
        self.userIndex = userIndex
        self.scattersToCompletions = scattersToCompletions
        super.init()
    }

    func retireSend() { next &+= blocks }

    func reset() {
        next = 0
        isBroken = false
        receives?.next = 0
    }
}

/// A shared receive queue: entries of 16 bytes, which name the next one, and data segments.
final class Mlx5Shared: VendorState {
    let record: DoorbellRecord
    let bytes: UnsafeMutableRawPointer
    let count: UInt32
    let stride: Int
    private var next: UInt16 = 0
    private var taken: UInt32 = 0

    init(record: DoorbellRecord, bytes: UnsafeMutableRawPointer, count: UInt32, stride: Int) {
        self.record = record
        self.bytes = bytes
        self.count = count
        self.stride = stride
        super.init()
    }

    var waiting: UInt32 { record.first &- taken }

    func take(_ request: ReceiveRequest) -> Bool {
        // More than there are entries for: the record was never written, or is wild.
        guard waiting > 0, waiting <= count else { return false }
        let entry = bytes + Int(next) * stride
        request.tag = UInt64(next)
        decodeSegments(entry + 16, (stride - 16) / 16, request)
        let link = UInt16(bigEndian: entry.load(fromByteOffset: 2, as: UInt16.self))
        if UInt32(link) >= count { request.isDefect = true }
        next = UInt32(link) < count ? link : 0
        taken &+= 1
        return true
    }
}

/// A completion queue: entries of 64 or 128 bytes in the program's memory.
final class Mlx5Completions: VendorState {
    let record: DoorbellRecord
    var bytes: UnsafeMutableRawPointer
    var count: UInt32
    var stride: Int
    let number: UInt32
    let ignoresOverrun: Bool
    /// Where entries are written next, as if the queue had no end.
    var producer: UInt32 = 0
    /// The last request for an event that was seen.
    var lastWish: UInt32 = 0

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

    /// How far the program has polled, in 24 bits.
    var consumer: UInt32 { record.first & 0xFF_FFFF }
    var isFull: Bool { (producer &- consumer) & 0xFF_FFFF >= count }
}

/// The segments of a receive request: up to the end, or to the one of key 0x100 and length 0.
func decodeSegments(_ place: UnsafeMutableRawPointer, _ count: Int, _ request: ReceiveRequest) {
    for index in 0..<count {
        let segment = (place + 16 * index).loadUnaligned(as: mlx5_wqe_data_seg.self)
        let (length, key) = (UInt32(bigEndian: segment.byte_count), UInt32(bigEndian: segment.lkey))
        if length == 0 && key == UInt32(endOfList) { return }
        if !request.append(Segment(address: UInt64(bigEndian: segment.addr), length: length, key: key)) {
            request.isDefect = true
        }
    }
}

/// `MLX5_INVALID_LKEY` of the kernel and libmlx5, which no public header has: the end of a list.
let endOfList = 0x100
