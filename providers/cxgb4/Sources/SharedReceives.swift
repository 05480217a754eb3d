import CIBVerbs
import CLinux
import ProviderKit

/// A shared receive queue. Connections consume its work requests in the order in which they were posted, but complete them
/// in any order. While an earlier one is incomplete that a later one has overtaken, the ring's end cannot move, and new
/// work requests wait in a list of their own (libcxgb4: pending WRs) until the order is restored.
struct SharedReceives {
    /// The state of an index of the ring.
    private struct Posted {
        var id: UInt64
        var isPosted: Bool
    }

    /// A work request that waits: its bytes, size and `wr_id`.
    private struct Waiting {
        static var byteCount: Int { 16 * Int(1 + Limits.receiveSGE) }
        var id: UInt64
        var length: UInt32
    }

    private var ring: WorkRing
    /// The number of indices of the ring. One fewer work requests can be outstanding.
    let entries: UInt32
    /// The RQT index of the first, which CQEs count from (`rqt_abs_idx`).
    private let firstIndex: UInt32
    private let doorbell: Doorbell
    private let posted: UnsafeMutablePointer<Posted>
    private let waiting: UnsafeMutablePointer<Waiting>
    private let waitingRequests: UnsafeMutableRawPointer

    /// The index of the next work request, and of the oldest that is not retired.
    private var producer: UInt32 = 0
    private var consumer: UInt32 = 0
    /// The numbers of work requests that are incomplete, in the ring or waiting; of those that wait, and the place of
    /// the first; and of completed ones behind `consumer`.
    private(set) var incomplete: UInt32 = 0
    private(set) var waitingCount: UInt32 = 0
    private var firstWaiting: UInt32 = 0
    private(set) var overtakingCount: UInt32 = 0

    /// The limit below which an event is raised (`srq_limit`), or 0.
    var limit: UInt32 = 0
    /// Whether the adapter itself raises the event (`T4_SRQ_LIMIT_SUPPORT`).
    let raisesLimitEvent: Bool

    init(ring: WorkRing, entries: UInt32, firstIndex: UInt32, doorbell: Doorbell, raisesLimitEvent: Bool) {
        self.ring = ring
        self.entries = entries
        self.firstIndex = firstIndex
        self.doorbell = doorbell
        self.raisesLimitEvent = raisesLimitEvent
        posted = .allocate(capacity: Int(entries))
        posted.initialize(repeating: Posted(id: 0, isPosted: false), count: Int(entries))
        waiting = .allocate(capacity: Int(entries))
        waiting.initialize(repeating: Waiting(id: 0, length: 0), count: Int(entries))
        waitingRequests = .allocate(byteCount: Int(entries) * Waiting.byteCount, alignment: 16)
    }

    func free() {
        posted.deallocate()
        waiting.deallocate()
        waitingRequests.deallocate()
        ring.free()
    }

    @inline(__always)
    private func following(_ index: UInt32) -> UInt32 { index &+ 1 == entries ? 0 : index &+ 1 }

    // MARK: - Posting

    /// Whether new work requests must wait.
    private var mustWait: Bool { overtakingCount != 0 || waitingCount != 0 }

    /// Writes the work requests of a chain. Returns 0; or ENOMEM (queue full) or EINVAL, with the first work request
    /// that was not posted in `bad`.
    @inline(__always)
    mutating func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        var request = first
        var error: Int32 = 0
        var slots: UInt32 = 0
        var last: UInt32 = 0
        while let current = request {
            if _slowPath(incomplete == entries &- 1) {
                error = ENOMEM
                break
            }
            if _slowPath(mustWait) {
                guard wait(current) else {
                    error = EINVAL
                    break
                }
            } else {
                let length = current.write(to: ring.target, index: producer)
                guard length != 0 else {
                    error = EINVAL
                    break
                }
                last = add(length, id: current.pointee.wr_id)
                slots &+= last
            }
            incomplete &+= 1
            request = current.pointee.next
            if _slowPath(slots >= Doorbell.maximumSlots &- Limits.receiveSlots) {
                ringDoorbell(slots, last: last)
                slots = 0
            }
        }
        if _fastPath(slots != 0) { ringDoorbell(slots, last: last) }
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    /// Adds the work request at `ring.target`. Returns the number of its slots.
    @inline(__always)
    private mutating func add(_ length: UInt32, id: UInt64) -> UInt32 {
        posted[Int(producer)].id = id
        posted[Int(producer)].isPosted = true
        producer = following(producer)
        return ring.commit(length)
    }

    @inline(__always)
    private mutating func ringDoorbell(_ slots: UInt32, last taken: UInt32) {
        ring.storeNext(producer)
        doorbell.ring(slots, last: ring.last(taken))
    }

    /// Writes a work request to the list of those that wait. Returns false for an invalid SGE list.
    @inline(never)
    private mutating func wait(_ request: UnsafeMutablePointer<ibv_recv_wr>) -> Bool {
        let place = (firstWaiting &+ waitingCount) % entries
        // The index is known when the work request is posted.
        let length = request.write(to: waitingRequests + Int(place) * Waiting.byteCount, index: 0)
        guard length != 0 else { return false }
        waiting[Int(place)] = Waiting(id: request.pointee.wr_id, length: length)
        waitingCount &+= 1
        return true
    }

    /// Posts the work requests that wait.
    @inline(never)
    private mutating func postWaiting() {
        var slots: UInt32 = 0
        var last: UInt32 = 0
        while waitingCount != 0 {
            let place = Int(firstWaiting)
            let request = waitingRequests + place * Waiting.byteCount
            let length = waiting[place].length
            let target = ring.target
            target.copyMemory(from: request, byteCount: 16 * Int(length))
            target.putHeader(WorkRequestOpcode.receive, index: producer, length: length)
            last = add(length, id: waiting[place].id)
            slots &+= last
            firstWaiting = following(firstWaiting)
            waitingCount &-= 1
            if slots >= Doorbell.maximumSlots &- Limits.receiveSlots {
                ringDoorbell(slots, last: last)
                slots = 0
            }
        }
        if slots != 0 { ringDoorbell(slots, last: last) }
    }

    // MARK: - Retiring

    /// Retires the work request of a CQE. Returns its `wr_id`; nil if none was posted with that index.
    /// - Parameter index: The RQT index in the CQE.
    @inline(__always)
    mutating func retire(_ index: UInt32) -> UInt64? {
        let index = index &- firstIndex
        guard index < entries, posted[Int(index)].isPosted else { return nil }
        posted[Int(index)].isPosted = false
        // Before a work request that waits takes the index.
        let id = posted[Int(index)].id
        incomplete &-= 1
        if _fastPath(index == consumer) {
            consumer = following(consumer)
            if _slowPath(overtakingCount != 0) { passOvertaking() }
        } else {
            overtakingCount &+= 1
        }
        return id
    }

    @inline(never)
    private mutating func passOvertaking() {
        while overtakingCount != 0, !posted[Int(consumer)].isPosted {
            consumer = following(consumer)
            overtakingCount &-= 1
        }
        if overtakingCount == 0, waitingCount != 0 { postWaiting() }
    }

    /// Whether the limit is passed and the provider must raise the event. Disarms it.
    @inline(__always)
    mutating func passesLimit() -> Bool {
        guard _slowPath(limit != 0), !raisesLimitEvent, incomplete < limit else { return false }
        limit = 0
        return true
    }
}
