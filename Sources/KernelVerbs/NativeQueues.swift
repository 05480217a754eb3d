import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

// The objects of the data path: the public struct and the locks, and behind both, in the same allocation, what the locks
// guard (ProviderKit/StateBehind), which each provider has of its own.
//
// An object is made in three steps: the provider's `allocate`; then the initialiser of rdma_provider.h; then the provider's
// `make`, which asks the kernel, and gives the object its queues. It goes the same way back.

// MARK: - Queue pairs

/// A queue pair: always the extended form.
public struct NativeQueuePair: ~Copyable {
    /// The public struct.
    public var base = ibv_qp_ex()
    /// Over what is posted to the send queue.
    public let sendLock: QueueLock
    /// Over what is posted to the receive queue.
    public let receiveLock: QueueLock
    var neighbours = Neighbours<NativeQueuePair>()

    /// A queue pair whose public struct is zeroed.
    public init(isSingleThreaded: Bool) {
        sendLock = QueueLock(isSkipped: isSingleThreaded)
        receiveLock = QueueLock(isSkipped: isSingleThreaded)
    }
}

/// Where a queue pair lies.
public typealias NativeQueuePairPointer = UnsafeMutablePointer<NativeQueuePair>

extension UnsafeMutablePointer<ibv_qp> {
    /// The whole of the queue pair.
    @inline(__always)
    public var native: NativeQueuePairPointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeQueuePair.self)
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    /// The whole of the queue pair.
    @inline(__always)
    public var native: NativeQueuePairPointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeQueuePair.self)
    }
}

extension NativeQueuePairPointer {
    /// As everybody else knows it.
    @inline(__always)
    public var verbs: UnsafeMutablePointer<ibv_qp> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp.self)
    }

    /// As those who build work requests know it.
    @inline(__always)
    public var extended: UnsafeMutablePointer<ibv_qp_ex> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp_ex.self)
    }

    /// Whether the state is one in which work requests may be posted to the send queue: not before RTS (IBTA volume 1,
    /// 10.3.1). A queue pair in an error state takes them and flushes them.
    @inline(__always)
    public var takesSends: Bool {
        let state = pointee.base.qp_base.state.rawValue
        return state &- IBV_QPS_RTS.rawValue <= IBV_QPS_ERR.rawValue - IBV_QPS_RTS.rawValue
    }

    /// What the kernel is asked for: a queue pair of these limits, with what stands in the public struct.
    public func request(_ limits: ibv_qp_cap, signalsAll: Bool) -> QueuePairRequest {
        let base = pointee.base.qp_base
        var request = QueuePairRequest(
            userHandle: UnsafeRawPointer(self), type: base.qp_type, domain: base.pd.pointee.handle,
            sendCompletions: base.send_cq.pointee.handle, receiveCompletions: base.recv_cq.pointee.handle,
            limits: limits, signalsAll: signalsAll,
            asyncDescriptor: base.context.native.pointee.opened.asyncDescriptor)
        request.sharedReceiveQueue = base.srq?.pointee.handle
        return request
    }
}

// MARK: - Completion queues

/// A completion queue. The public struct is the extended one, whose beginning is the plain one.
public struct NativeCompletionQueue: ~Copyable {
    /// The public struct.
    public var base = ibv_cq_ex()
    /// Over polling and resizing.
    public let lock: QueueLock
    var neighbours = Neighbours<NativeCompletionQueue>()
    /// When the device has failed: what was in the public struct before.
    var startPoll:
        (@convention(c) (UnsafeMutablePointer<ibv_cq_ex>?, UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32)?
    var nextPoll: (@convention(c) (UnsafeMutablePointer<ibv_cq_ex>?) -> Int32)?

    /// A completion queue whose public struct is zeroed.
    public init(isSingleThreaded: Bool) { lock = QueueLock(isSkipped: isSingleThreaded) }
}

/// Where a completion queue lies.
public typealias NativeCompletionQueuePointer = UnsafeMutablePointer<NativeCompletionQueue>

extension UnsafeMutablePointer<ibv_cq> {
    /// The whole of the completion queue.
    @inline(__always)
    public var native: NativeCompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeCompletionQueue.self)
    }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The whole of the completion queue.
    @inline(__always)
    public var native: NativeCompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeCompletionQueue.self)
    }
}

extension NativeCompletionQueuePointer {
    /// As everybody else knows it.
    @inline(__always)
    public var verbs: UnsafeMutablePointer<ibv_cq> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq.self)
    }

    /// As those who poll it field by field know it.
    @inline(__always)
    public var extended: UnsafeMutablePointer<ibv_cq_ex> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq_ex.self)
    }

    /// What the kernel is asked for: a completion queue of so many entries, with what stands in the public struct.
    public func request(entries: UInt32, vector: UInt32) -> CompletionQueueRequest {
        var request = CompletionQueueRequest(
            userHandle: UnsafeRawPointer(self), entries: entries,
            asyncDescriptor: pointee.base.context.native.pointee.opened.asyncDescriptor)
        request.channel = pointee.base.channel?.pointee.fd
        request.vector = vector
        return request
    }
}

// MARK: - Shared receive queues

/// A shared receive queue.
public struct NativeSharedReceiveQueue: ~Copyable {
    /// The public struct.
    public var base = ibv_srq()
    /// Over posting and resizing.
    public let lock: QueueLock

    /// A shared receive queue whose public struct is zeroed.
    public init(isSingleThreaded: Bool) { lock = QueueLock(isSkipped: isSingleThreaded) }
}

/// Where a shared receive queue lies.
public typealias NativeSharedReceiveQueuePointer = UnsafeMutablePointer<NativeSharedReceiveQueue>

extension UnsafeMutablePointer<ibv_srq> {
    /// The whole of the shared receive queue.
    @inline(__always)
    public var native: NativeSharedReceiveQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeSharedReceiveQueue.self)
    }
}

extension NativeSharedReceiveQueuePointer {
    /// As everybody else knows it.
    @inline(__always)
    public var verbs: UnsafeMutablePointer<ibv_srq> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_srq.self)
    }
}
