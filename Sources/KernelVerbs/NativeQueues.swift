import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

// The objects of the data path: the struct of verbs.h, the locks, and behind both, in the same allocation, the
// provider's state that the locks guard (ProviderKit/StateBehind).
//
// An object is created in three steps: the provider's `allocate`; the initialiser of rdma_provider.h, such as
// rdma_init_qp; the provider's `make`, which creates the object in the kernel and attaches its queues. Destruction
// reverses the steps.

// MARK: - Queue pairs

/// A queue pair (`ibv_qp_ex`, which begins with the `ibv_qp`).
public struct NativeQueuePair: ~Copyable {
    /// The struct of verbs.h.
    public var base = ibv_qp_ex()
    private let room = ObjectRoom()
    /// Guards the send queue (`post_send`, `wr_start` to `wr_complete`).
    public let sendLock: QueueLock
    /// Guards the receive queue (`post_recv`).
    public let receiveLock: QueueLock
    var neighbours = Neighbours<NativeQueuePair>()

    /// A queue pair with a zeroed `ibv_qp_ex`.
    public init(isSingleThreaded: Bool) {
        sendLock = QueueLock(isSkipped: isSingleThreaded)
        receiveLock = QueueLock(isSkipped: isSingleThreaded)
    }
}

/// A pointer to a queue pair.
public typealias NativeQueuePairPointer = UnsafeMutablePointer<NativeQueuePair>

extension UnsafeMutablePointer<ibv_qp> {
    /// The queue pair that contains this struct.
    @inline(__always)
    public var native: NativeQueuePairPointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeQueuePair.self)
    }
}

extension UnsafeMutablePointer<ibv_qp_ex> {
    /// The queue pair that contains this struct.
    @inline(__always)
    public var native: NativeQueuePairPointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeQueuePair.self)
    }
}

extension NativeQueuePairPointer {
    /// The `ibv_qp`.
    @inline(__always)
    public var verbs: UnsafeMutablePointer<ibv_qp> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp.self)
    }

    /// The `ibv_qp_ex`, for ibv_wr_post(3).
    @inline(__always)
    public var extended: UnsafeMutablePointer<ibv_qp_ex> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_qp_ex.self)
    }

    /// Whether the state (`ibv_qp.state`) allows posting to the send queue: RTS, SQD, SQE and ERR do (IBTA volume 1,
    /// 10.3.1). In an error state, work requests are flushed.
    @inline(__always)
    public var allowsPostSend: Bool {
        let state = pointee.base.qp_base.state.rawValue
        return state &- IBV_QPS_RTS.rawValue <= IBV_QPS_ERR.rawValue - IBV_QPS_RTS.rawValue
    }

    /// The request to create the queue pair in the kernel, with the given limits and the attributes of the `ibv_qp`.
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

/// A completion queue (`ibv_cq_ex`, which begins with the `ibv_cq`).
public struct NativeCompletionQueue: ~Copyable {
    /// The struct of verbs.h.
    public var base = ibv_cq_ex()
    private let room = ObjectRoom()
    /// Guards polling, resizing, and the removal of a queue pair's completions.
    public let lock: CompletionQueueLock
    var neighbours = Neighbours<NativeCompletionQueue>()
    /// The original `ibv_cq_ex.start_poll` and `next_poll` after the device has failed; nil before.
    var startPoll:
        (@convention(c) (UnsafeMutablePointer<ibv_cq_ex>?, UnsafeMutablePointer<ibv_poll_cq_attr>?) -> Int32)?
    var nextPoll: (@convention(c) (UnsafeMutablePointer<ibv_cq_ex>?) -> Int32)?

    /// A completion queue with a zeroed `ibv_cq_ex`.
    public init(isSingleThreaded: Bool) { lock = CompletionQueueLock(isSkipped: isSingleThreaded) }
}

/// A pointer to a completion queue.
public typealias NativeCompletionQueuePointer = UnsafeMutablePointer<NativeCompletionQueue>

extension UnsafeMutablePointer<ibv_cq> {
    /// The completion queue that contains this struct.
    @inline(__always)
    public var native: NativeCompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeCompletionQueue.self)
    }
}

extension UnsafeMutablePointer<ibv_cq_ex> {
    /// The completion queue that contains this struct.
    @inline(__always)
    public var native: NativeCompletionQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeCompletionQueue.self)
    }
}

extension NativeCompletionQueuePointer {
    /// The `ibv_cq`.
    @inline(__always)
    public var verbs: UnsafeMutablePointer<ibv_cq> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq.self)
    }

    /// The `ibv_cq_ex`, for ibv_start_poll(3).
    @inline(__always)
    public var extended: UnsafeMutablePointer<ibv_cq_ex> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_cq_ex.self)
    }

    /// The request to create the completion queue in the kernel, with `entries` CQEs, the completion vector `vector`,
    /// and the attributes of the `ibv_cq`.
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

/// A shared receive queue (`ibv_srq`).
public struct NativeSharedReceiveQueue: ~Copyable {
    /// The struct of verbs.h.
    public var base = ibv_srq()
    private let room = ObjectRoom()
    /// Guards posting (`post_srq_recv`) and resizing.
    public let lock: QueueLock

    /// A shared receive queue with a zeroed `ibv_srq`.
    public init(isSingleThreaded: Bool) { lock = QueueLock(isSkipped: isSingleThreaded) }
}

/// A pointer to a shared receive queue.
public typealias NativeSharedReceiveQueuePointer = UnsafeMutablePointer<NativeSharedReceiveQueue>

extension UnsafeMutablePointer<ibv_srq> {
    /// The shared receive queue that contains this `ibv_srq`.
    @inline(__always)
    public var native: NativeSharedReceiveQueuePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: NativeSharedReceiveQueue.self)
    }
}

extension NativeSharedReceiveQueuePointer {
    /// The `ibv_srq`.
    @inline(__always)
    public var verbs: UnsafeMutablePointer<ibv_srq> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_srq.self)
    }
}
