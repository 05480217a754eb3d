/// The events of one object that the caller has not taken yet. There is one bit per kind of event and one place in
/// the engine's list per object, so the queue of events is bounded without ever losing one.
struct EventNode {
    /// Which objects can have events.
    enum Owner {
        case queuePair, sharedReceiveQueue, completionQueue
    }

    let owner: Owner
    /// Bit n: event n of `enum ibv_event_type`; bit 31: the completion queue's notification is due.
    var pending: UInt32 = 0
    var isQueued = false
    var next: UnsafeMutablePointer<EventNode>?
    var previous: UnsafeMutablePointer<EventNode>?
    /// The object's storage.
    var object: UnsafeMutableRawPointer?

    init(owner: Owner) { self.owner = owner }

    static let notification: UInt32 = 1 << 31
}

/// Objects with events, in the order in which their first one happened.
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

    /// Takes an object's events back, for one that goes away.
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

/// Something that the engine's caller has to tell someone.
public enum Event: Sendable {
    /// A completion queue that was armed has a completion: `ibv_get_cq_event` returns it now.
    case completion(CompletionQueue)
    /// An asynchronous event of a completion queue: `IBV_EVENT_CQ_ERR`.
    case completionQueue(CompletionQueue, AsyncEventType)
    /// An asynchronous event of a queue pair.
    case queuePair(QueuePair, AsyncEventType)
    /// An asynchronous event of a shared receive queue: `IBV_EVENT_SRQ_LIMIT_REACHED`.
    case sharedReceiveQueue(SharedReceiveQueue, AsyncEventType)
}
