/// A queue pair's place in one of the lists of those that have something to send.
struct ReadyLink {
    let owner: UnsafeMutablePointer<QueuePairStorage>
    var next: UnsafeMutablePointer<ReadyLink>?
    var previous: UnsafeMutablePointer<ReadyLink>?
    var isQueued = false

    init(owner: UnsafeMutablePointer<QueuePairStorage>) { self.owner = owner }
}

/// Queue pairs that have something to send, served from the front.
struct ReadyList {
    private(set) var first: UnsafeMutablePointer<ReadyLink>?
    private var last: UnsafeMutablePointer<ReadyLink>?

    /// Puts a queue pair at the end, unless it is in the list.
    @inline(__always)
    mutating func add(_ link: UnsafeMutablePointer<ReadyLink>) {
        if !link.pointee.isQueued { append(link) }
    }

    private mutating func append(_ link: UnsafeMutablePointer<ReadyLink>) {
        link.pointee.isQueued = true
        link.pointee.next = nil
        link.pointee.previous = last
        if let last { last.pointee.next = link } else { first = link }
        last = link
    }

    /// Takes a queue pair out, if it is in the list.
    mutating func remove(_ link: UnsafeMutablePointer<ReadyLink>) {
        guard link.pointee.isQueued else { return }
        let next = link.pointee.next
        let previous = link.pointee.previous
        if let previous { previous.pointee.next = next } else { first = next }
        if let next { next.pointee.previous = previous } else { last = previous }
        link.pointee.isQueued = false
    }

    /// Moves the front to the end, so that the others get their turn.
    mutating func rotate() {
        guard let link = first, link.pointee.next != nil else { return }
        remove(link)
        append(link)
    }
}
