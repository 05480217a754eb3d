import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

// What becomes of the data path when a device fails or is removed (rdma_provider.h, chapter 6): its functions are exchanged
// for others, so that those of a device that works need not ask.

/// `async_event`: tells the provider of its device's end.
func hearNativeEvent(context: UnsafeMutablePointer<ibv_context>?, event: UnsafeMutablePointer<ibv_async_event>?) {
    guard let context, let event, event.pointee.event_type == IBV_EVENT_DEVICE_FATAL else { return }
    context.native.fail(context)
}

/// The queues of an open device that have functions of their own: queue pairs with builders, completion queues that are
/// polled field by field.
struct ExtendedQueues: ~Copyable {
    struct State {
        var pairs = QueueList<NativeQueuePair>()
        var queues = QueueList<NativeCompletionQueue>()
        /// Of a device that has failed: what polled it before.
        fileprivate(set) var poll: PollFunction?
    }

    private let lock = Lock()
    fileprivate let state: UnsafeMutablePointer<State>

    init() {
        state = .allocate(capacity: 1)
        state.initialize(to: State())
    }

    deinit { state.deallocate() }

    /// Runs `body` while nobody else changes anything.
    borrowing func change(_ body: (UnsafeMutablePointer<State>) -> Void) {
        lock.lock()
        body(state)
        lock.unlock()
    }
}

typealias PollFunction =
    @convention(c) (UnsafeMutablePointer<ibv_cq>?, Int32, UnsafeMutablePointer<ibv_wc>?) -> Int32

// MARK: - Lists

/// A queue that may be in the list of its device.
protocol ListedQueue: ~Copyable {
    var neighbours: Neighbours<Self> { get set }
}

/// A place in a list of queues.
struct Neighbours<Queue: ~Copyable> {
    fileprivate var previous: UnsafeMutablePointer<Queue>?
    fileprivate var next: UnsafeMutablePointer<Queue>?
}

/// Queues that name each other.
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
    /// Lists a queue pair with builders.
    func enlist() {
        pointee.base.qp_base.context.native.pointee.extendedQueues.change { state in
            state.pointee.pairs.add(self)
            if state.pointee.poll != nil { fail() }
        }
    }

    /// Takes a queue pair out of the list, if it is there.
    func leave() {
        guard pointee.base.wr_start != nil else { return }
        pointee.base.qp_base.context.native.pointee.extendedQueues.change { $0.pointee.pairs.remove(self) }
    }
}

extension NativeCompletionQueuePointer {
    /// Lists a completion queue that is polled field by field.
    func enlist() {
        pointee.base.context.native.pointee.extendedQueues.change { state in
            state.pointee.queues.add(self)
            if state.pointee.poll != nil { fail() }
        }
    }

    /// Takes a completion queue out of the list, if it is there.
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
            // Who is told to call the new function finds the old one.
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
    /// What is built can be built to its end, by those who are at it, and is then taken back.
    fileprivate func fail() {
        pointee.base.wr_complete = { qp in
            qp?.pointee.wr_abort?(qp)
            return EIO
        }
    }
}

extension NativeCompletionQueuePointer {
    /// What is in the queue can still be polled.
    fileprivate func fail() {
        pointee.startPoll = pointee.base.start_poll
        pointee.nextPoll = pointee.base.next_poll
        linux_barrier_to_device()
        pointee.base.start_poll = { cq, attr in
            linux_barrier_from_device()
            let answer = cq?.native.pointee.startPoll?(cq, attr) ?? EINVAL
            return answer == ENOENT ? EIO : answer
        }
        pointee.base.next_poll = { cq in
            linux_barrier_from_device()
            let answer = cq?.native.pointee.nextPoll?(cq) ?? EINVAL
            return answer == ENOENT ? EIO : answer
        }
    }
}

/// What is in the queue, then -EIO.
private func pollFailed(
    cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, completions: UnsafeMutablePointer<ibv_wc>?
) -> Int32 {
    linux_barrier_from_device()
    guard let cq, let poll = cq.pointee.context.native.pointee.extendedQueues.state.pointee.poll else { return -EINVAL }
    let found = poll(cq, count, completions)
    return found == 0 && count > 0 ? -EIO : found
}
