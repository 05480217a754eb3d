import CSimulator

/// A scatter/gather element (`struct ibv_sge`).
struct SGE {
    var address: UInt64
    var length: UInt32
    var key: UInt32
}

/// The operation of a send work request.
enum Operation: UInt8 {
    case send, write, read, compareAndSwap, fetchAndAdd, invalidate, bind, none
}

/// A decoded send WQE. A device reuses one object, so that fetching allocates nothing.
final class SendRequest {
    static let capacity = 64

    /// The codec's identifier of the WQE, which the CQE carries: hfi1's `wr_id`, mlx5's WQE counter.
    var tag: UInt64 = 0
    var operation = Operation.send
    var hasImmediate = false
    /// Big endian.
    var immediate: UInt32 = 0
    /// Send with invalidate: the responder's rkey.
    var invalidates = false
    var invalidKey: UInt32 = 0
    var isSignaled = false
    var isSolicited = false
    /// `enum ibv_send_flags`; 0 where the WQE does not hold them.
    var flags: UInt32 = 0
    var remoteAddress: UInt64 = 0
    var remoteKey: UInt32 = 0
    var compare: UInt64 = 0
    var swapOrAdd: UInt64 = 0
    let sges = UnsafeMutablePointer<SGE>.allocate(capacity: SendRequest.capacity)
    var sgeCount = 0
    /// Inline data.
    let inlineData = Message()
    var isInline = false
    /// The destination of a datagram.
    var destination = Destination()
    /// The window that `bind` binds, or the rkey that `invalidate` invalidates.
    var window = WindowBinding()
    /// The status with which a malformed WQE completes at once.
    var defect: UInt32 = IBV_WC_SUCCESS.rawValue

    init() {}

    func clear() {
        (tag, operation, hasImmediate, immediate) = (0, .send, false, 0)
        (invalidates, invalidKey, isSignaled, isSolicited) = (false, 0, false, false)
        (remoteAddress, remoteKey, compare, swapOrAdd) = (0, 0, 0, 0)
        (sgeCount, isInline, destination, window) = (0, false, Destination(), WindowBinding())
        defect = IBV_WC_SUCCESS.rawValue
        inlineData.count = 0
    }

    /// Sum of the SGEs or of the inline data, in bytes.
    var length: Int {
        if isInline { return inlineData.count }
        var sum = 0
        for index in 0..<sgeCount { sum += Int(sges[index].length) }
        return sum
    }

    /// Copies all fields except the inline data.
    func copy(_ other: SendRequest) {
        (tag, operation, hasImmediate, immediate) = (other.tag, other.operation, other.hasImmediate, other.immediate)
        (invalidates, invalidKey) = (other.invalidates, other.invalidKey)
        (isSignaled, isSolicited, flags) = (other.isSignaled, other.isSolicited, other.flags)
        (remoteAddress, remoteKey, compare, swapOrAdd) =
            (other.remoteAddress, other.remoteKey, other.compare, other.swapOrAdd)
        (isInline, destination, window, defect) = (other.isInline, other.destination, other.window, other.defect)
        sges.update(from: other.sges, count: other.sgeCount)
        sgeCount = other.sgeCount
    }

    deinit { sges.deallocate() }

    /// Appends an SGE; false when `capacity` is reached.
    func append(_ sge: SGE) -> Bool {
        guard sgeCount < SendRequest.capacity else { return false }
        sges[sgeCount] = sge
        sgeCount += 1
        return true
    }
}

/// The destination of a datagram.
struct Destination {
    var queuePair: UInt32 = 0
    var qkey: UInt32 = 0
    var lid: UInt16 = 0
    var serviceLevel: UInt8 = 0
    var isGlobal = false
    /// Destination GID, in the order of its bytes.
    var gid: (UInt64, UInt64) = (0, 0)

    /// Whether the destination is a multicast group (QPN 0xFFFFFF).
    var isMulticast: Bool { queuePair == 0xFF_FFFF }
}

/// The parameters of a window's binding (`struct ibv_mw_bind_info`).
struct WindowBinding {
    /// The window's new rkey, and the region's lkey.
    var key: UInt32 = 0
    var regionKey: UInt32 = 0
    var address: UInt64 = 0
    var length: UInt64 = 0
    var access: UInt32 = 0
}

/// A decoded receive WQE.
final class ReceiveRequest {
    var tag: UInt64 = 0
    /// The WQE is malformed: nothing can be received into it.
    var isDefect = false
    let sges = UnsafeMutablePointer<SGE>.allocate(capacity: SendRequest.capacity)
    var sgeCount = 0

    init() {}

    deinit { sges.deallocate() }

    func copy(_ other: ReceiveRequest) {
        (tag, isDefect, sgeCount) = (other.tag, other.isDefect, other.sgeCount)
        sges.update(from: other.sges, count: other.sgeCount)
    }

    var length: UInt64 {
        var sum: UInt64 = 0
        for index in 0..<sgeCount { sum += UInt64(sges[index].length) }
        return sum
    }

    func append(_ sge: SGE) -> Bool {
        guard sgeCount < SendRequest.capacity else { return false }
        sges[sgeCount] = sge
        sgeCount += 1
        return true
    }
}

/// The payload of a message. Its memory is reused.
final class Message {
    private(set) var bytes = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
    private var capacity = 4096
    var count = 0

    init() {}

    deinit { bytes.deallocate() }

    /// Removes the payload and allocates room for `size` bytes.
    func reserve(_ size: Int) {
        count = 0
        guard size > capacity else { return }
        bytes.deallocate()
        bytes = .allocate(byteCount: size, alignment: 64)
        capacity = size
    }

    /// Appends bytes; `reserve` has allocated room for them.
    func append(_ source: UnsafeRawPointer, _ size: Int) {
        precondition(count + size <= capacity, "a message longer than the room made for it")
        (bytes + count).copyMemory(from: source, byteCount: size)
        count += size
    }
}

/// A completion, which the codec writes as a CQE.
struct Completion {
    let queuePair: QueuePair
    var isReceive: Bool
    /// The codec's identifier of the WQE.
    var tag: UInt64
    var status: UInt32
    /// The operation; of a receive, the requester's.
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
    var pkeyIndex: UInt16 = 0
    var vendorError: UInt32 = 0
    /// The payload, which mlx5 may scatter to the CQE.
    var payload: UnsafeRawBufferPointer?
}
