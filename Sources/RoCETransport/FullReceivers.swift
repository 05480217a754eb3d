import RoCEWire

// Back pressure on one host, where a packet ring takes the place of the network: what InfiniBand's credits and Ethernet's
// priority flow control are between ports. A receiver without room loses no packet. Its queue pairs wait for it, and those
// of other receivers go on.

/// The devices of this host (`Path.sameHost`) that have no room for a packet, by the prefix of their QPNs
/// (`Configuration.qpnPrefix`).
struct FullReceivers {
    /// Two bits for each prefix: whether it is full, and whether datagrams to it are sent nevertheless.
    private var full = InlineArray<4, UInt64>(repeating: 0)
    private var late = InlineArray<4, UInt64>(repeating: 0)
    private(set) var count = 0

    @inline(__always)
    func isFull(_ prefix: UInt32) -> Bool { full[Int(prefix >> 6 & 3)] & 1 << UInt64(prefix & 63) != 0 }

    @inline(__always)
    func takesDatagrams(_ prefix: UInt32) -> Bool {
        !isFull(prefix) || late[Int(prefix >> 6 & 3)] & 1 << UInt64(prefix & 63) != 0
    }

    mutating func set(_ prefix: UInt32, isFull: Bool) {
        late[Int(prefix >> 6 & 3)] &= ~(1 << UInt64(prefix & 63))
        guard isFull != self.isFull(prefix) else { return }
        full[Int(prefix >> 6 & 3)] ^= 1 << UInt64(prefix & 63)
        count += isFull ? 1 : -1
    }

    mutating func setLate(_ prefix: UInt32) { late[Int(prefix >> 6 & 3)] |= 1 << UInt64(prefix & 63) }
}

extension Engine {
    /// Writes no more packets to a device of this host, which has no room for another one, until `resume`. Its queue pairs
    /// wait; requests that access its memory directly do not.
    /// - Parameter prefix: The prefix of its QPNs (`Configuration.qpnPrefix`).
    public borrowing func suspend(receiver prefix: UInt32) { core.pointee.fullReceivers.set(prefix, isFull: true) }

    /// Ends `suspend`.
    public borrowing func resume(receiver prefix: UInt32) {
        core.pointee.fullReceivers.set(prefix, isFull: false)
        core.pointee.serveParked()
    }

    /// Writes datagrams (UD) to a suspended device nevertheless, for the caller to drop: a queue pair that sends to many
    /// receivers does not wait for one of them without end.
    public borrowing func resumeDatagrams(receiver prefix: UInt32) {
        core.pointee.fullReceivers.setLate(prefix)
        core.pointee.serveParked()
    }
}

extension Core {
    mutating func serveParked() {
        acknowledgements.unpark()
        readResponses.unpark()
        while let pair = requests.unparkFirst() { endRoomTimer(pair) }
    }

    // These are mutating: the call of a function that is neither mutating nor inlined may copy the whole engine, and the loads
    // of the copy wait for all stores before, such as those of a packet ring.

    /// Whether the next packet of a connection has to wait for room at its receiver.
    @inline(__always)
    mutating func waitsForRoom(_ pair: Pair) -> Bool { fullReceivers.count != 0 && isSuspended(pair) }

    /// Whether the next request of a queue pair has to wait for room at its receiver.
    @inline(__always)
    mutating func requestWaitsForRoom(_ pair: Pair) -> Bool {
        guard fullReceivers.count != 0 else { return false }
        return pair.pointee.type == .ud ? datagramIsSuspended(pair) : isSuspended(pair)
    }

    @inline(never)
    private mutating func isSuspended(_ pair: Pair) -> Bool {
        pair.pointee.attributes.path.tag == Path.sameHost
            && fullReceivers.isFull(prefix(of: pair.pointee.attributes.destinationQPN))
    }

    @inline(never)
    private mutating func datagramIsSuspended(_ pair: Pair) -> Bool {
        let current = pair.pointee.requester.current
        guard pair.pointee.send.has(current) else { return false }
        let entry = pair.pointee.sendWQE(current)
        let path = (UnsafeRawPointer(entry) + SendWQE.size).assumingMemoryBound(to: Path.self)
        return path.pointee.tag == Path.sameHost && !fullReceivers.takesDatagrams(prefix(of: entry.pointee.remoteQPN))
    }

    @inline(__always)
    private func prefix(of number: UInt32) -> UInt32 {
        (number & mask24) >> (24 - configuration.qpnPrefixBits)
    }
}
