/// The events of one object (`struct ibv_async_event`, or a completion event) that the caller has not taken. There is
/// one bit for each event type and one place in the engine's list for each object, so the list is bounded and loses no
/// event.
struct EventNode {
    /// The types of objects that have events (`ibv_async_event.element`).
    enum Owner {
        case queuePair, sharedReceiveQueue, completionQueue
    }

    let owner: Owner
    /// Bit n: event n of `enum ibv_event_type`; bit 31: a completion event of a completion queue.
    var pending: UInt32 = 0
    var isQueued = false
    var next: UnsafeMutablePointer<EventNode>?
    var previous: UnsafeMutablePointer<EventNode>?
    /// The storage of the object.
    var object: UnsafeMutableRawPointer?

    init(owner: Owner) { self.owner = owner }

    /// The bit of a completion event.
    static let notification: UInt32 = 1 << 31
}

/// The list of objects with events, in the order of their first events (the engine's own).
struct EventList {
    private var first: UnsafeMutablePointer<EventNode>?
    private var last: UnsafeMutablePointer<EventNode>?

    var isEmpty: Bool { first == nil }

    mutating func post(_ node: UnsafeMutablePointer<EventNode>, _ bits: UInt32) {
        node.pointee.pending |= bits
        if !node.pointee.isQueued { append(node) }
    }

    mutating func post(_ node: UnsafeMutablePointer<EventNode>, _ event: AsyncEventType) {
        post(node, 1 << event.rawValue)
    }

    private mutating func append(_ node: UnsafeMutablePointer<EventNode>) {
        node.pointee.isQueued = true
        node.pointee.next = nil
        node.pointee.previous = last
        if let last { last.pointee.next = node } else { first = node }
        last = node
    }

    /// Removes the events of an object that is destroyed.
    mutating func remove(_ node: UnsafeMutablePointer<EventNode>) {
        node.pointee.pending = 0
        guard node.pointee.isQueued else { return }
        if let before = node.pointee.previous {
            before.pointee.next = node.pointee.next
        } else {
            first = node.pointee.next
        }
        if let after = node.pointee.next {
            after.pointee.previous = node.pointee.previous
        } else {
            last = node.pointee.previous
        }
        node.pointee.isQueued = false
        node.pointee.next = nil
        node.pointee.previous = nil
    }

    /// The next event: the object's node and the number of the bit.
    mutating func pop() -> (node: UnsafeMutablePointer<EventNode>, bit: UInt32)? {
        guard let node = first else { return nil }
        let bit = UInt32(node.pointee.pending.trailingZeroBitCount)
        let left = node.pointee.pending & (node.pointee.pending &- 1)
        if left == 0 { remove(node) } else { node.pointee.pending = left }
        return (node, bit)
    }
}

/// An event that the engine's caller reports (`ibv_get_async_event`, `ibv_get_cq_event`).
public enum Event: Sendable {
    /// A completion event of an armed completion queue, for `ibv_get_cq_event`.
    case completion(CompletionQueue)
    /// An asynchronous event of a completion queue: `IBV_EVENT_CQ_ERR`.
    case completionQueue(CompletionQueue, AsyncEventType)
    /// An asynchronous event of a queue pair: `IBV_EVENT_QP_FATAL` and the other events with a queue pair.
    case queuePair(QueuePair, AsyncEventType)
    /// An asynchronous event of a shared receive queue: `IBV_EVENT_SRQ_LIMIT_REACHED`.
    case sharedReceiveQueue(SharedReceiveQueue, AsyncEventType)
}
