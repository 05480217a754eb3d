import CSimulator

/// A piece of the program's memory, as a work request names it.
struct Segment {
    var address: UInt64
    var length: UInt32
    var key: UInt32
}

/// What a send work request asks for, whichever way the vendor writes it.
enum Operation: UInt8 {
    case send, write, read, compareAndSwap, fetchAndAdd, invalidate, bind, none
}

/// A send work request, decoded. One of them is used again and again: fetching a request allocates nothing.
final class SendRequest {
    static let capacity = 64

    /// Its own number in the codec: what the completion names it by.
    var tag: UInt64 = 0
    var operation = Operation.send
    /// Immediate data, big endian, is sent with it.
    var hasImmediate = false
    var immediate: UInt32 = 0
    /// The receiver is to invalidate this key of its own.
    var invalidates = false
    var invalidKey: UInt32 = 0
    var isSignaled = false
    var isSolicited = false
    /// All flags that the program has set, where the codec sees them (`enum ibv_send_flags`).
    var flags: UInt32 = 0
    var remoteAddress: UInt64 = 0
    var remoteKey: UInt32 = 0
    var compare: UInt64 = 0
    var swapOrAdd: UInt64 = 0
    let segments = UnsafeMutablePointer<Segment>.allocate(capacity: SendRequest.capacity)
    var segmentCount = 0
    /// The data itself, where it stands in the work request.
    let inlineData = Message()
    var isInline = false
    /// Where a datagram goes.
    var destination = Destination()
    /// The window that `bind` opens, or the key that `invalidate` closes.
    var window = WindowBinding()
    /// The request itself is wrong, and why: completes so at once.
    var defect: UInt32 = IBV_WC_SUCCESS.rawValue

    init() {}

    func clear() {
        (tag, operation, hasImmediate, immediate) = (0, .send, false, 0)
        (invalidates, invalidKey, isSignaled, isSolicited) = (false, 0, false, false)
        (remoteAddress, remoteKey, compare, swapOrAdd) = (0, 0, 0, 0)
        (segmentCount, isInline, destination, window) = (0, false, Destination(), WindowBinding())
        defect = IBV_WC_SUCCESS.rawValue
        inlineData.count = 0
    }

    /// Of its data, or of the room for what comes back, in bytes.
    var length: Int {
        if isInline { return inlineData.count }
        var sum = 0
        for index in 0..<segmentCount { sum += Int(segments[index].length) }
        return sum
    }

    /// Becomes what another one is.
    func copy(_ other: SendRequest) {
        (tag, operation, hasImmediate, immediate) = (other.tag, other.operation, other.hasImmediate, other.immediate)
        (invalidates, invalidKey) = (other.invalidates, other.invalidKey)
        (isSignaled, isSolicited, flags) = (other.isSignaled, other.isSolicited, other.flags)
        (remoteAddress, remoteKey, compare, swapOrAdd) =
            (other.remoteAddress, other.remoteKey, other.compare, other.swapOrAdd)
        (isInline, destination, window, defect) = (other.isInline, other.destination, other.window, other.defect)
        segments.update(from: other.segments, count: other.segmentCount)
        segmentCount = other.segmentCount
    }

    deinit { segments.deallocate() }

    /// Adds a piece of memory; false when there are more than a device takes.
    func append(_ segment: Segment) -> Bool {
        guard segmentCount < SendRequest.capacity else { return false }
        segments[segmentCount] = segment
        segmentCount += 1
        return true
    }
}

/// Where a datagram goes.
struct Destination {
    var queuePair: UInt32 = 0
    var qkey: UInt32 = 0
    var lid: UInt16 = 0
    var serviceLevel: UInt8 = 0
    var isGlobal = false
    /// Destination GID, in the order of its bytes.
    var gid: (UInt64, UInt64) = (0, 0)

    /// All queue pairs of a multicast group.
    var isGroup: Bool { queuePair == 0xFF_FFFF }
}

/// What a window is opened to.
struct WindowBinding {
    /// The window's key afterwards, and the region's.
    var key: UInt32 = 0
    var regionKey: UInt32 = 0
    var address: UInt64 = 0
    var length: UInt64 = 0
    var access: UInt32 = 0
}

/// A receive work request, decoded.
final class ReceiveRequest {
    var tag: UInt64 = 0
    /// The request itself is wrong: nothing can be received into it.
    var isDefect = false
    let segments = UnsafeMutablePointer<Segment>.allocate(capacity: SendRequest.capacity)
    var segmentCount = 0

    init() {}

    var length: UInt64 {
        var sum: UInt64 = 0
        for index in 0..<segmentCount { sum += UInt64(segments[index].length) }
        return sum
    }

    func append(_ segment: Segment) -> Bool {
        guard segmentCount < SendRequest.capacity else { return false }
        segments[segmentCount] = segment
        segmentCount += 1
        return true
    }
}

/// Bytes on their way. The memory is kept for the next message.
final class Message {
    private(set) var bytes = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
    private var capacity = 4096
    var count = 0

    init() {}

    deinit { bytes.deallocate() }

    /// Makes room for so many bytes in all; what was there is lost.
    func reserve(_ size: Int) {
        count = 0
        guard size > capacity else { return }
        bytes.deallocate()
        bytes = .allocate(byteCount: size, alignment: 64)
        capacity = size
    }

    /// Adds bytes, for which there is room.
    func append(_ source: UnsafeRawPointer, _ size: Int) {
        precondition(count + size <= capacity, "a message longer than the room made for it")
        (bytes + count).copyMemory(from: source, byteCount: size)
        count += size
    }
}

/// What a completion says, before the vendor's codec writes it down.
struct Completion {
    let queuePair: QueuePair
    var isReceive: Bool
    /// The number of the work request in the codec.
    var tag: UInt64
    var status: UInt32
    /// What was carried out; of a receive: what arrived.
    var operation = Operation.send
    var hasImmediate = false
    var immediate: UInt32 = 0
    var invalidated = false
    var byteLength: UInt32 = 0
    var isSolicited = false
    var source: UInt32 = 0
    var isGlobal = false
    var lid: UInt16 = 0
    var serviceLevel: UInt8 = 0
    var pathBits: UInt8 = 0
    var partitionIndex: UInt16 = 0
    var vendorError: UInt32 = 0
    /// The message, where the vendor may put a short one into the completion.
    var payload: UnsafeRawBufferPointer?
}
