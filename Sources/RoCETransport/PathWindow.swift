import RoCEWire

// Congestion control of all connections to one destination: the engine's own. Neither verbs.h nor IBTA volume 1 has a
// window; without a shared one, the windows of many queue pairs add up to more than the destination's buffer holds.

/// The packets that the RC queue pairs with one destination GID may have in flight together, and the queue pairs that
/// wait for room. The window of each queue pair (`Requester.window`) is a limit of its own below this one.
///
/// Slow start, growth by one packet per round trip and halving after a loss are those of TCP (RFC 5681). The losses of
/// one round trip halve the window once, whichever queue pairs they belong to.
///
/// Invariant: while `hasRoom` and a queue pair waits, a queue pair with `QueuePairStorage.hasPathTurn` is in the list
/// `Core.requests`. It sends, or leaves that list, and then the next one gets the turn. So no wait is without an end.
struct PathWindow {
    let destination: GID
    /// The next one of the table's chain.
    var next: UnsafeMutablePointer<PathWindow>?
    /// The number of queue pairs that use it.
    var users: UInt32 = 0
    /// The packets that may be in flight, and those that are: the sum of `QueuePairStorage.charged`.
    var window: UInt32
    var inFlight: UInt32 = 0
    /// The progress towards one packet more, and the size below which the window doubles per round trip.
    var growth: UInt32 = 0
    var slowStartEnd: UInt32
    /// Whether the last READ request was made shorter because of the window, which so limits what is in flight.
    var limitsReads = false
    /// When the window was last halved, in nanoseconds.
    var halvedAt: UInt64 = 0
    /// The last measured round-trip time of a connection, with which new connections to this destination begin (RFC
    /// 9040).
    var roundTrip = RoundTripTime()
    /// The queue pairs that wait for room, in order.
    var waiting = ReadyList()

    @inline(__always) var hasRoom: Bool { inFlight < window }

    init(_ destination: GID, _ configuration: borrowing Configuration) {
        self.destination = destination
        window = configuration.initialPathWindow
        slowStartEnd = configuration.maximumPathWindow
    }

    /// Packets were acknowledged, by responses with data or by acknowledgements. The window grows only while at least
    /// half of it is used, or READs are made shorter because of it, since a window that was never filled says nothing
    /// about the network.
    @inline(__always)
    mutating func grow(by packets: UInt32, isRead: Bool, limit: UInt32) {
        guard window < limit, inFlight >= window / 2 || isRead && limitsReads else { return }
        if window < slowStartEnd {
            window = min(window &+ packets, limit)
            return
        }
        growth &+= packets
        if growth >= window {
            growth = 0
            window &+= 1
        }
    }

    /// Packets were lost. `roundTrip`: that of the connection.
    mutating func halve(at now: UInt64, roundTrip: RoundTripTime) {
        let memory = roundTrip.smoothed &+ 4 &* roundTrip.deviation
        guard halvedAt == 0 || now &- halvedAt > memory else { return }
        halvedAt = max(now, 1)
        window = max(window / 2, min(2, window))
        slowStartEnd = window
        growth = 0
    }
}

/// The windows of all destinations, by GID.
struct PathWindowTable {
    private typealias Chain = UnsafeMutablePointer<PathWindow>?
    private let chains: UnsafeMutablePointer<Chain>
    private static let count = 64

    init() {
        chains = .allocate(capacity: Self.count)
        chains.initialize(repeating: nil, count: Self.count)
    }

    func deallocate() {
        for index in 0..<Self.count {
            while let window = chains[index] {
                chains[index] = window.pointee.next
                window.deallocate()
            }
        }
        chains.deallocate()
    }

    private func index(of destination: GID) -> Int {
        let mixed = (destination.high ^ destination.low) &* 0x9E37_79B9_7F4A_7C15
        return Int(mixed >> 58)
    }

    /// The window of this destination, for one more queue pair.
    func take(_ destination: GID, _ configuration: borrowing Configuration) -> UnsafeMutablePointer<PathWindow> {
        let index = index(of: destination)
        var found = chains[index]
        while let window = found, window.pointee.destination != destination { found = window.pointee.next }
        let window: UnsafeMutablePointer<PathWindow>
        if let found {
            window = found
        } else {
            window = .allocate(capacity: 1)
            window.initialize(to: PathWindow(destination, configuration))
            window.pointee.next = chains[index]
            chains[index] = window
        }
        window.pointee.users += 1
        return window
    }

    /// One queue pair less uses the window. The last one frees it.
    func giveBack(_ window: UnsafeMutablePointer<PathWindow>) {
        window.pointee.users -= 1
        guard window.pointee.users == 0 else { return }
        assert(window.pointee.inFlight == 0 && window.pointee.waiting.first == nil, "the window is still in use")
        let index = index(of: window.pointee.destination)
        if chains[index] == window {
            chains[index] = window.pointee.next
        } else {
            var previous = chains[index]
            while let other = previous, other.pointee.next != window { previous = other.pointee.next }
            previous?.pointee.next = window.pointee.next
        }
        window.deallocate()
    }
}

extension Core {
    /// Uses the window of the destination from now on, in place of another one. An RC queue pair without a local ACK
    /// timeout uses none: packets that it lost would stay in flight for ever. A path with a tag has none either: a packet of it is
    /// lost only when its receiver has no processor for milliseconds.
    mutating func joinPathWindow(_ pair: Pair) {
        let path = pair.pointee.attributes.path
        let wants = pair.pointee.type == .rc && path.tag == 0 && pair.pointee.attributes.timeout != 0
        if let window = pair.pointee.pathWindow {
            if wants && window.pointee.destination == path.destination { return }
            leavePathWindow(pair)
            // It may have waited for room in the other window.
            if pair.pointee.isSending { requests.add(pair.pointee.links + QueuePairStorage.requests) }
        }
        guard wants else { return }
        let window = pathWindows.take(path.destination, configuration)
        pair.pointee.pathWindow = window
        pair.pointee.requester.roundTrip.begin(like: window.pointee.roundTrip)
        chargePathWindow(pair)
    }

    /// Uses no window any more.
    mutating func leavePathWindow(_ pair: Pair) {
        guard let window = pair.pointee.pathWindow else { return }
        releasePathWindow(pair)
        pair.pointee.pathWindow = nil
        pathWindows.giveBack(window)
    }

    /// The queue pair sends nothing any more: its packets count as no longer in flight, and it does not wait.
    mutating func releasePathWindow(_ pair: Pair) {
        guard let window = pair.pointee.pathWindow else { return }
        window.pointee.waiting.remove(pair.pointee.links + QueuePairStorage.pathWaiting)
        pair.pointee.hasPathTurn = false
        window.pointee.inFlight &-= pair.pointee.charged
        pair.pointee.charged = 0
        giveTurn(window)
    }

    /// Whether the window of the destination has room for a packet. Otherwise, or when others wait and this queue pair
    /// does not have the turn, the queue pair waits.
    @inline(__always)
    mutating func mayUsePath(_ pair: Pair) -> Bool {
        guard let window = pair.pointee.pathWindow else { return true }
        // A queue pair that gets no response sends a packet in a while, and a second one if there is room, and takes no
        // room from those that get some: its peer may have ended. The response to the first packet, or the timer,
        // continues.
        if pair.pointee.requester.isProbing {
            return window.pointee.hasRoom || pair.pointee.requester.next == pair.pointee.requester.una
        }
        if window.pointee.hasRoom, pair.pointee.hasPathTurn || window.pointee.waiting.first == nil { return true }
        window.pointee.waiting.add(pair.pointee.links + QueuePairStorage.pathWaiting)
        // Nothing of it is in flight, so no response is late: the retries are not used up by the wait. The next packet
        // starts the timer again.
        if pair.pointee.charged == 0 && pair.pointee.timer == .localACK { pair.pointee.timer = .none }
        return false
    }

    /// Whether the window is full after the next packet, or the turn of the queue pair ends with it while others wait.
    @inline(__always)
    mutating func endsPathUse(_ pair: Pair) -> Bool {
        guard let window = pair.pointee.pathWindow else { return false }
        return window.pointee.inFlight &+ 1 >= window.pointee.window
            || inTurn >= configuration.burst && window.pointee.waiting.first != nil
    }

    /// Makes `inFlight` follow the PSNs of the requester, after they have changed.
    @inline(__always)
    mutating func chargePathWindow(_ pair: Pair) {
        guard let window = pair.pointee.pathWindow else { return }
        let flying =
            pair.pointee.requester.isProbing
            ? 0 : steps(from: pair.pointee.requester.una, to: pair.pointee.requester.next)
        window.pointee.inFlight = window.pointee.inFlight &+ flying &- pair.pointee.charged
        pair.pointee.charged = flying
        if window.pointee.waiting.first != nil { giveTurn(window) }
    }

    /// The queue pair leaves the list of requests, or its turn there is over.
    @inline(__always)
    mutating func endPathTurn(_ pair: Pair) {
        guard let window = pair.pointee.pathWindow else { return }
        pair.pointee.hasPathTurn = false
        if window.pointee.waiting.first != nil { giveTurn(window) }
    }

    /// Gives the first queue pair that waits the turn, if there is room.
    private mutating func giveTurn(_ window: UnsafeMutablePointer<PathWindow>) {
        guard window.pointee.hasRoom, let link = window.pointee.waiting.first else { return }
        let pair = link.pointee.owner
        window.pointee.waiting.remove(link)
        assert(pair.pointee.isSending, "only a queue pair that sends waits for room")
        pair.pointee.hasPathTurn = true
        requests.add(pair.pointee.links + QueuePairStorage.requests)
    }
}
