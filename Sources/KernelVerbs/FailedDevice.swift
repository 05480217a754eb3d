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
    fileprivate struct State {
        var pairs: NativeQueuePairPointer?
        var queues: NativeCompletionQueuePointer?
        /// Of a device that has failed: what polled it before.
        var poll: PollFunction?
    }

    fileprivate let lock = Lock()
    fileprivate let state: UnsafeMutablePointer<State>

    init() {
        state = .allocate(capacity: 1)
        state.initialize(to: State())
    }

    deinit { state.deallocate() }
}

typealias PollFunction =
    @convention(c) (UnsafeMutablePointer<ibv_cq>?, Int32, UnsafeMutablePointer<ibv_wc>?) -> Int32

/// A place in a list of queues.
struct Neighbours<Queue: ~Copyable> {
    var previous: UnsafeMutablePointer<Queue>?
    var next: UnsafeMutablePointer<Queue>?
}

extension NativeContextPointer {
    fileprivate func fail(_ context: UnsafeMutablePointer<ibv_context>) {
        pointee.extendedQueues.lock.lock()
        defer { pointee.extendedQueues.lock.unlock() }
        let state = pointee.extendedQueues.state
        guard state.pointee.poll == nil else { return }
        state.pointee.poll = context.pointee.ops.poll_cq
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
        var pair = state.pointee.pairs
        while let current = pair {
            current.fail()
            pair = current.pointee.neighbours.next
        }
        var queue = state.pointee.queues
        while let current = queue {
            current.fail()
            queue = current.pointee.neighbours.next
        }
    }
}

extension NativeQueuePairPointer {
    /// Lists a queue pair with builders.
    func enlist() {
        let context = pointee.base.qp_base.context.native
        context.pointee.extendedQueues.lock.lock()
        defer { context.pointee.extendedQueues.lock.unlock() }
        let state = context.pointee.extendedQueues.state
        pointee.neighbours.next = state.pointee.pairs
        state.pointee.pairs?.pointee.neighbours.previous = self
        state.pointee.pairs = self
        if state.pointee.poll != nil { fail() }
    }

    /// Takes a queue pair out of the list, if it is there.
    func leave() {
        guard pointee.base.wr_start != nil else { return }
        let context = pointee.base.qp_base.context.native
        context.pointee.extendedQueues.lock.lock()
        defer { context.pointee.extendedQueues.lock.unlock() }
        let (previous, next) = (pointee.neighbours.previous, pointee.neighbours.next)
        next?.pointee.neighbours.previous = previous
        if let previous {
            previous.pointee.neighbours.next = next
        } else {
            context.pointee.extendedQueues.state.pointee.pairs = next
        }
    }

    /// What is built can be built to its end, by those who are at it, and is then taken back.
    fileprivate func fail() {
        pointee.base.wr_complete = { qp in
            qp?.pointee.wr_abort?(qp)
            return EIO
        }
    }
}

extension NativeCompletionQueuePointer {
    /// Lists a completion queue that is polled field by field.
    func enlist() {
        let context = pointee.base.context.native
        context.pointee.extendedQueues.lock.lock()
        defer { context.pointee.extendedQueues.lock.unlock() }
        let state = context.pointee.extendedQueues.state
        pointee.neighbours.next = state.pointee.queues
        state.pointee.queues?.pointee.neighbours.previous = self
        state.pointee.queues = self
        if state.pointee.poll != nil { fail() }
    }

    /// Takes a completion queue out of the list, if it is there.
    func leave() {
        guard pointee.base.start_poll != nil else { return }
        let context = pointee.base.context.native
        context.pointee.extendedQueues.lock.lock()
        defer { context.pointee.extendedQueues.lock.unlock() }
        let (previous, next) = (pointee.neighbours.previous, pointee.neighbours.next)
        next?.pointee.neighbours.previous = previous
        if let previous {
            previous.pointee.neighbours.next = next
        } else {
            context.pointee.extendedQueues.state.pointee.queues = next
        }
    }

    /// What is in the queue can still be polled.
    fileprivate func fail() {
        pointee.startPoll = pointee.base.start_poll
        pointee.nextPoll = pointee.base.next_poll
        pointee.base.start_poll = { cq, attr in
            let answer = cq?.native.pointee.startPoll?(cq, attr) ?? EINVAL
            return answer == ENOENT ? EIO : answer
        }
        pointee.base.next_poll = { cq in
            let answer = cq?.native.pointee.nextPoll?(cq) ?? EINVAL
            return answer == ENOENT ? EIO : answer
        }
    }
}

/// What is in the queue, then -EIO.
private func pollFailed(
    cq: UnsafeMutablePointer<ibv_cq>?, count: Int32, completions: UnsafeMutablePointer<ibv_wc>?
) -> Int32 {
    guard let cq, let poll = cq.pointee.context.native.pointee.extendedQueues.state.pointee.poll else { return -EINVAL }
    let found = poll(cq, count, completions)
    return found == 0 && count > 0 ? -EIO : found
}
