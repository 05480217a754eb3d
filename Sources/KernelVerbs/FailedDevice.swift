import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

// The data path after a device has failed or was removed (rdma_provider.h, chapter 6). Its functions are replaced, so
// that the functions of a working device need no test.

/// `async_event`: replaces the data path functions after IBV_EVENT_DEVICE_FATAL.
public func hearNativeEvent(
    context: UnsafeMutablePointer<ibv_context>?, event: UnsafeMutablePointer<ibv_async_event>?
) {
    guard let context, let event, event.pointee.event_type == IBV_EVENT_DEVICE_FATAL else { return }
    context.native.fail(context)
}

/// The queues of an open device with function pointers of their own: extended queue pairs (`ibv_qp_ex`) and extended
/// completion queues (`ibv_cq_ex`).
struct ExtendedQueues: ~Copyable {
    struct State {
        var pairs = QueueList<NativeQueuePair>()
        var queues = QueueList<NativeCompletionQueue>()
        /// The original `ibv_context_ops.poll_cq` after the device has failed; nil before.
        fileprivate(set) var poll: PollFunction?
    }

    private let lock = Lock()
    fileprivate let state: UnsafeMutablePointer<State>

    init() {
        state = .allocate(capacity: 1)
        state.initialize(to: State())
    }

    deinit { state.deallocate() }

    /// Runs `body` under the lock.
    borrowing func change(_ body: (UnsafeMutablePointer<State>) -> Void) {
        lock.lock()
        body(state)
        lock.unlock()
    }
}

typealias PollFunction =
    @convention(c) (UnsafeMutablePointer<ibv_cq>?, Int32, UnsafeMutablePointer<ibv_wc>?) -> Int32

// MARK: - Lists

/// A queue that can be in a list of its device.
protocol ListedQueue: ~Copyable {
    var neighbours: Neighbours<Self> { get set }
}

/// The links of a queue in its list.
struct Neighbours<Queue: ~Copyable> {
    fileprivate var previous: UnsafeMutablePointer<Queue>?
    fileprivate var next: UnsafeMutablePointer<Queue>?
}

/// A doubly linked list of queues.
struct QueueList<Queue: ListedQueue & ~Copyable> {
    private var first: UnsafeMutablePointer<Queue>?

    mutating func add(_ queue: UnsafeMutablePointer<Queue>) {
        queue.pointee.neighbours.next = first
        first?.pointee.neighbours.previous = queue
        first = queue
    }

    mutating func remove(_ queue: UnsafeMutablePointer<Queue>) {
        let (previous, next) = (queue.pointee.neighbours.previous, queue.pointee.neighbours.next)
        next?.pointee.neighbours.previous = previous
        if let previous {
            previous.pointee.neighbours.next = next
        } else {
            first = next
        }
    }

    fileprivate func forEach(_ body: (UnsafeMutablePointer<Queue>) -> Void) {
        var queue = first
        while let current = queue {
            body(current)
            queue = current.pointee.neighbours.next
        }
    }
}

extension NativeQueuePair: ListedQueue {}

extension NativeCompletionQueue: ListedQueue {}

extension NativeQueuePairPointer {
    /// Adds an extended queue pair to the list.
    func enlist() {
        pointee.base.qp_base.context.native.pointee.extendedQueues.change { state in
            state.pointee.pairs.add(self)
            if state.pointee.poll != nil { fail() }
        }
    }

    /// Removes a queue pair from the list, if it is extended.
    func leave() {
        guard pointee.base.wr_start != nil else { return }
        pointee.base.qp_base.context.native.pointee.extendedQueues.change { $0.pointee.pairs.remove(self) }
    }
}

extension NativeCompletionQueuePointer {
    /// Adds an extended completion queue to the list.
    func enlist() {
        pointee.base.context.native.pointee.extendedQueues.change { state in
            state.pointee.queues.add(self)
            if state.pointee.poll != nil { fail() }
        }
    }

    /// Removes a completion queue from the list, if it is extended.
    func leave() {
        guard pointee.base.start_poll != nil else { return }
        pointee.base.context.native.pointee.extendedQueues.change { $0.pointee.queues.remove(self) }
    }
}

// MARK: - Failing

extension NativeContextPointer {
    fileprivate func fail(_ context: UnsafeMutablePointer<ibv_context>) {
        pointee.extendedQueues.change { state in
            guard state.pointee.poll == nil else { return }
            state.pointee.poll = context.pointee.ops.poll_cq
            // A thread that loads the new function must find the original one.
            linux_barrier_to_device()
            context.pointee.ops.poll_cq = pollFailed
            context.pointee.ops.req_notify_cq = { _, _ in EIO }
            context.pointee.ops.post_send = { _, first, bad in
                bad?.pointee = first
                return EIO
            }
            context.pointee.ops.post_recv = { _, first, bad in
                bad?.pointee = first
                return EIO
            }
            context.pointee.ops.post_srq_recv = { _, first, bad in
                bad?.pointee = first
                return EIO
            }
            if context.pointee.ops.bind_mw != nil { context.pointee.ops.bind_mw = { _, _, _ in EIO } }
            state.pointee.pairs.forEach { $0.fail() }
            state.pointee.queues.forEach { $0.fail() }
        }
    }
}

extension NativeQueuePairPointer {
    /// `wr_complete` aborts the work requests that were built, and returns EIO.
    fileprivate func fail() {
        pointee.base.wr_complete = { qp in
            qp?.pointee.wr_abort?(qp)
            return EIO
        }
    }
}

extension NativeCompletionQueuePointer {
    /// Completions already in the queue can still be polled; then EIO replaces ENOENT.
    fileprivate func fail() {
        pointee.startPoll = pointee.base.start_poll
        pointee.nextPoll = pointee.base.next_poll
        linux_barrier_to_device()
        pointee.base.start_poll = { cq, attr in
            linux_barrier_from_device()
            let error = cq?.native.pointee.startPoll?(cq, attr) ?? EINVAL
            return error == ENOENT ? EIO : error
        }
        pointee.base.next_poll = { cq in
            linux_barrier_from_device()
            let error = cq?.native.pointee.nextPoll?(cq) ?? EINVAL
            return error == ENOENT ? EIO : error
        }
    }
}

/// `poll_cq` of a failed device: returns the completions already in the queue, then -EIO.
private func pollFailed(
    cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, completions: UnsafeMutablePointer<ibv_wc>?
) -> Int32 {
    linux_barrier_from_device()
    guard let cq, let poll = cq.pointee.context.native.pointee.extendedQueues.state.pointee.poll else { return -EINVAL }
    let found = poll(cq, count, completions)
    return found == 0 && count > 0 ? -EIO : found
}
