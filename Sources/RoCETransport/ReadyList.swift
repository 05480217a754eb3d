/// The link of a queue pair in one of the ready lists (the engine's own).
struct ReadyLink {
    let owner: UnsafeMutablePointer<QueuePairStorage>
    var next: UnsafeMutablePointer<ReadyLink>?
    var previous: UnsafeMutablePointer<ReadyLink>?
    /// Whether the link is in the list, or parked in it.
    var isQueued = false
    /// Whether it is parked (`ReadyList.park`).
    var isParked = false

    init(owner: UnsafeMutablePointer<QueuePairStorage>) { self.owner = owner }
}

/// The queue pairs that may have a packet to send, served from the front: the engine's own scheduler, where an adapter
/// arbitrates between send queues.
///
/// The three lists of `Core` (acknowledgements, READ responses, requests) are authoritative: a queue pair that can send
/// a packet is in the list of that kind. A queue pair in a list that has no packet to send is removed. A bit in
/// `Doorbells` only makes the engine check the queue pair again (`Core.serveDoorbell`). A WQE that the window, a fence,
/// an RNR timer or the state holds back is not work: the event that ends the wait adds the queue pair again. A queue pair
/// whose receiver on this host has no room stays in its list, parked.
struct ReadyList {
    private(set) var first: UnsafeMutablePointer<ReadyLink>?
    private var last: UnsafeMutablePointer<ReadyLink>?
    /// Those that wait for room at their receiver (`FullReceivers`): they are not served, and leave with `unpark` or `add`.
    private var firstParked: UnsafeMutablePointer<ReadyLink>?
    private var lastParked: UnsafeMutablePointer<ReadyLink>?

    /// Adds a queue pair at the end, if it is not in the list. One that is parked is looked at again: it may have work for
    /// which it need not wait.
    @inline(__always)
    mutating func add(_ link: UnsafeMutablePointer<ReadyLink>) {
        if link.pointee.isQueued && !link.pointee.isParked { return }
        if link.pointee.isParked { removeParked(link) }
        append(link)
    }

    private mutating func append(_ link: UnsafeMutablePointer<ReadyLink>) {
        assert(!link.pointee.isQueued, "a queue pair is in a list once")
        assert((first == nil) == (last == nil) && last?.pointee.next == nil, "the list's ends disagree")
        link.pointee.isQueued = true
        link.pointee.next = nil
        link.pointee.previous = last
        if let last { last.pointee.next = link } else { first = link }
        last = link
    }

    /// Removes a queue pair, if it is in the list.
    mutating func remove(_ link: UnsafeMutablePointer<ReadyLink>) {
        guard link.pointee.isQueued else { return }
        if link.pointee.isParked { return removeParked(link) }
        let next = link.pointee.next
        let previous = link.pointee.previous
        assert(previous != nil || first == link, "a link that is queued is in this list")
        assert(next != nil || last == link, "a link that is queued is in this list")
        if let previous { previous.pointee.next = next } else { first = next }
        if let next { next.pointee.previous = previous } else { last = previous }
        link.pointee.isQueued = false
    }

    /// Takes a queue pair out of its turn until `unpark` or `add`.
    @inline(never)
    mutating func park(_ link: UnsafeMutablePointer<ReadyLink>) {
        remove(link)
        link.pointee.isQueued = true
        link.pointee.isParked = true
        link.pointee.next = nil
        link.pointee.previous = lastParked
        if let lastParked { lastParked.pointee.next = link } else { firstParked = link }
        lastParked = link
    }

    @inline(never)
    private mutating func removeParked(_ link: UnsafeMutablePointer<ReadyLink>) {
        let next = link.pointee.next
        let previous = link.pointee.previous
        assert(previous != nil || firstParked == link, "a link that is parked is in this list")
        if let previous { previous.pointee.next = next } else { firstParked = next }
        if let next { next.pointee.previous = previous } else { lastParked = previous }
        link.pointee.isQueued = false
        link.pointee.isParked = false
    }

    /// Adds the first one that is parked at the end.
    mutating func unparkFirst() -> UnsafeMutablePointer<QueuePairStorage>? {
        guard let link = firstParked else { return nil }
        removeParked(link)
        append(link)
        return link.pointee.owner
    }

    /// Adds all that are parked at the end, in their order.
    mutating func unpark() {
        while unparkFirst() != nil {}
    }

    /// Moves the first queue pair to the end, so that the next one is served.
    mutating func rotate() {
        guard let link = first, link.pointee.next != nil else { return }
        remove(link)
        append(link)
    }
}
