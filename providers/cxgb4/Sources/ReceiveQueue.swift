import CIBVerbs
import CLinux
import ProviderKit

/// The receive queue of a queue pair. A queue pair with a shared receive queue has none.
struct ReceiveQueue {
    var ring: WorkRing
    /// The number of posted work requests, modulo 2^32; and the index of the next one.
    var number: UInt32 = 0
    var index: UInt32 = 0
    /// The number of indices. One fewer work requests can be outstanding.
    let entries: UInt32
    /// The `wr_id` of each index.
    let ids: UnsafeMutablePointer<UInt64>
    /// The number of retired work requests, which the thread that polls writes; and a copy of `number` for it.
    let retired: SharedIndex
    let published: SharedIndex

    let doorbell: Doorbell
    let flags: QueuePairFlags
}

extension UnsafeMutablePointer<ReceiveQueue> {
    /// Writes the work requests of a chain and rings the doorbell for them. Returns 0; or an errno value, with the
    /// first work request that was not posted in `bad`.
    @inline(__always)
    func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?,
        _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?, _ pair: QueuePairPointer
    ) -> Int32 {
        guard _fastPath(!pointee.flags.isInError) else {
            bad?.pointee = first
            return EINVAL
        }
        var room = pointee.entries &- 1 &- (pointee.number &- pointee.retired.loadAcquiring())
        var request = first
        var error: Int32 = 0
        var slots: UInt32 = 0
        var last: UInt32 = 0
        while let current = request {
            if _slowPath(room == 0) {
                error = ENOMEM
                break
            }
            let length = current.write(to: pointee.ring.target, index: pointee.index)
            if _slowPath(length == 0) {
                error = EINVAL
                break
            }
            last = pointee.ring.commit(length)
            record(current.pointee.wr_id)
            slots &+= last
            room &-= 1
            request = current.pointee.next
            if _slowPath(slots >= Doorbell.maximumSlots &- Limits.receiveSlots) {
                ringDoorbell(slots, last: last, of: pair)
                slots = 0
            }
        }
        if _fastPath(slots != 0) { ringDoorbell(slots, last: last, of: pair) }
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    @inline(__always)
    private func record(_ id: UInt64) {
        pointee.ids[Int(pointee.index)] = id
        pointee.number &+= 1
        let next = pointee.index &+ 1
        pointee.index = next == pointee.entries ? 0 : next
    }

    @inline(__always)
    private func ringDoorbell(_ slots: UInt32, last taken: UInt32, of pair: QueuePairPointer) {
        pointee.published.storeReleasing(pointee.number)
        pointee.ring.storeNext(pointee.index)
        if _slowPath(pointee.flags.areDoorbellsOff) {
            pair.ringThroughKernel(sends: 0, receives: slots, or: pointee.doorbell, last: pointee.ring.last(taken))
        } else {
            pointee.doorbell.ring(slots, last: pointee.ring.last(taken))
        }
    }
}

extension UnsafeMutablePointer<ibv_recv_wr> {
    /// Writes a receive work request of the adapter. Returns its size in units of 16 bytes, or 0 for an invalid SGE
    /// list.
    /// - Parameter index: The index of the work request in its queue.
    @inline(__always)
    func write(to target: UnsafeMutableRawPointer, index: UInt32) -> UInt32 {
        let count = UInt32(bitPattern: pointee.num_sge)
        guard count <= Limits.receiveSGE else { return 0 }
        let list = target + ReceiveRequest.listOffset
        list.putListHeader(count)
        if _fastPath(count != 0) {
            guard var sge = pointee.sg_list else { return 0 }
            var entry = list + SGEListHeader.byteCount
            var rest = count
            repeat {
                entry.putSGE(sge.pointee)
                entry += SGE.byteCount
                sge += 1
                rest &-= 1
            } while rest != 0
        }
        let length = 1 &+ count
        target.putHeader(WorkRequestOpcode.receive, index: index, length: length)
        return length
    }
}
