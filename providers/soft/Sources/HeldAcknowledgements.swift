import CLinux
import ProviderKit
import RoCETransport
import Synchronization

/// An acknowledgement that waits for the next post: over UDP in the queue of the sockets, so that the message that answers a
/// message leaves before the acknowledgement, and both with one system call, in one batch where the two may be in one; to a
/// device of this host in the engine, so that the answer carries it (`OutgoingPacket.acknowledged`).
///
/// One is held only after a poll that received a single message and returns a completion, in the foreground, where the
/// progress thread wakes every millisecond. A post sends it behind its requests. The next poll sends it to a device of
/// this host, and over UDP a poll after 20 us. After that time the application does not answer, or does other work between
/// its calls, and the next acknowledgements are not held: 64 of them at first, and twice as many each time, up to 8192.
/// Anything else that is sent takes it along, and control verbs, the end of the device and exit(3) send it as well.
struct HeldAcknowledgement {
    /// Since when one is held, in nanoseconds; 0: none is.
    var since: UInt64 = 0
    /// Whether that began in this call of a polling thread.
    var isNew = false
    /// The acknowledgements that are not to be held, and their number after the next late call.
    var pause: UInt32 = 0
    var nextPause = Self.shortestPause

    static let shortestPause: UInt32 = 64
    static let longestPause: UInt32 = 8192
    /// A post after this time is late. It covers the wait for the acknowledgement of the previous message, which arrives
    /// some microseconds after the message that is to be answered when the peer does not hold it. Nanoseconds.
    static let lateAfter: UInt64 = 20_000

    init() {}

    /// Holds one from `now` on, if the last calls were not late.
    mutating func begin(at now: UInt64) -> Bool {
        guard pause == 0 else {
            pause -= 1
            return false
        }
        keep(at: now)
        return true
    }

    /// Notes that one could not be sent yet, or is held.
    mutating func keep(at now: UInt64) {
        guard since == 0 else { return }
        since = max(now, 1)
        isNew = true
    }

    /// Whether it has waited too long for a post.
    func isLate(at now: UInt64) -> Bool { now &- since > Self.lateAfter }

    /// It is sent: at a time that decides about the next ones.
    mutating func end(at now: UInt64) {
        if isLate(at: now) {
            pause = nextPause
            nextPause = min(2 &* nextPause, Self.longestPause)
        } else {
            nextPause = max(nextPause / 2, Self.shortestPause)
        }
        since = 0
        isNew = false
    }
}

extension ContextPointer {
    /// Whether an acknowledgement is the only queued datagram and not held yet, and of the packets since this one there
    /// were few: at most the message, an acknowledgement of the peer, and this one.
    @inline(__always)
    func mayHoldAcknowledgement(since first: UInt64) -> Bool {
        guard guarded.pointee.link.held.since == 0 else { return false }
        let count = guarded.pointee.link.packetCount &- first
        return count > 0 && count <= UInt64(fewPackets) && guarded.pointee.sockets.holdsAcknowledgement
    }

    /// Holds the acknowledgement of a message in shared memory in the engine, after few packets, unless one is held in the
    /// queue of the sockets.
    /// - Returns: False when it is to be sent now, or when there is none.
    @inline(__always)
    func mayHoldShared(now: UInt64) -> Bool {
        pointee.engine.hasAcknowledgement && !guarded.pointee.sockets.holdsOne
            && pointee.progressThread.isForeground.load(ordering: .relaxed)
            && guarded.pointee.link.held.begin(at: now)
    }

    /// Holds the acknowledgement that is the only queued datagram.
    /// - Returns: False when it is to be sent now.
    @inline(never)
    func holdAcknowledgement(now: UInt64) -> Bool {
        guard !pointee.engine.hasAcknowledgement, pointee.progressThread.isForeground.load(ordering: .relaxed),
            guarded.pointee.link.held.begin(at: now)
        else { return false }
        guarded.pointee.sockets.holdFirst()
        return true
    }

    /// Sends the queued datagrams, unless that is only an acknowledgement that is held.
    @inline(__always)
    func flushUnlessHeld() {
        if guarded.pointee.link.held.since != 0 {
            if guarded.pointee.sockets.holdsOne { return }
            guarded.pointee.link.held.since = 0
        }
        guarded.pointee.sockets.flush()
    }

    /// Sends the acknowledgement that is held, if there is one. Under the lock. Where the ring of its receiver is full, the
    /// engine keeps it.
    func sendHeldAcknowledgement() {
        // One that waited for room is in no list of the engine until its receiver is looked at.
        guard
            guarded.pointee.link.held.since != 0 || pointee.engine.hasAcknowledgement
                || guarded.pointee.peers.fullCount != 0
        else { return }
        let now = currentTime()
        guarded.pointee.link.held.since = 0
        sendAcknowledgements(now: now)
        if pointee.engine.hasAcknowledgement { guarded.pointee.link.held.keep(at: now) }
        guarded.pointee.sockets.flush()
    }

    /// Sends it without the lock, unless another thread has that.
    func sendHeldAcknowledgementNow() {
        guard pointee.lock.tryLock() else { return }
        sendHeldAcknowledgement()
        unlock()
    }
}
