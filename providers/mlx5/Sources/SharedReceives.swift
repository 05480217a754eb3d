import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

/// The memory of a shared receive queue. Its WQEs are linked by their next segments. WQEs are posted from the head of
/// the list of free WQEs; completed WQEs, in any order, are appended to its tail.
struct SharedReceives: NativeReceiveQueue {
    let memory: DeviceMemory
    /// The number of WQEs minus one, and the logarithm of the WQE size in bytes.
    let mask: UInt32
    let shift: UInt32
    /// The `wr_id` of each WQE.
    let posted: UnsafeMutablePointer<UInt64>
    let doorbellRecord: UnsafeMutableRawPointer
    /// The first and the last free WQE. The last one is never posted.
    private var head: UInt32 = 0
    private var tail: UInt32
    /// The number of WQEs posted so far.
    private var count: UInt32 = 0

    /// - Parameters:
    ///   - posted: Memory for one id for each WQE.
    ///   - doorbellRecord: The doorbell record.
    init(
        memory: DeviceMemory, size: SharedReceiveSize, posted: UnsafeMutablePointer<UInt64>,
        doorbellRecord: UnsafeMutableRawPointer
    ) {
        self.memory = memory
        mask = size.entries - 1
        shift = size.shift
        self.posted = posted
        self.doorbellRecord = doorbellRecord
        tail = mask
        posted.initialize(repeating: 0, count: Int(size.entries))
        for index in 0..<mask {
            NextSegment.next.put(UInt16(truncatingIfNeeded: index + 1), in: place(index))
        }
    }

    @inline(__always)
    private func place(_ index: UInt32) -> UnsafeMutableRawPointer {
        memory.start + Int(truncatingIfNeeded: UInt64(index) &<< UInt64(shift))
    }

    @inline(__always)
    private var maxSGE: UInt32 { (1 &<< (shift &- 4)) &- 1 }

    /// The WQE of an index; nil if the index is out of range.
    @inline(__always)
    func wqe(_ index: UInt32) -> UnsafeMutableRawPointer? { index <= mask ? place(index) : nil }

    /// Writes the WQEs of a chain of work requests. Returns 0; or ENOMEM (queue full) or EINVAL, with the failed work
    /// request in `bad`.
    @inline(__always)
    mutating func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        var request = first
        var error: Int32 = 0
        var next = head
        var more: UInt32 = 0
        while let current = request {
            if _slowPath(next == tail) {
                error = ENOMEM
                break
            }
            let wqe = place(next)
            guard current.writeSGEs(to: wqe + NextSegment.byteCount, room: maxSGE) else {
                error = EINVAL
                break
            }
            posted[Int(next)] = current.pointee.wr_id
            // The device only reads the link. The mask keeps a corrupted link within the ring.
            next = UInt32(NextSegment.next.get(wqe)) & mask
            more &+= 1
            request = current.pointee.next
        }
        if _fastPath(more != 0) {
            head = next
            count &+= more
            linux_barrier_to_device()
            SharedReceiveQueueDoorbellRecord.receives.put(count, in: doorbellRecord)
        }
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    /// Appends a WQE to the list of free WQEs.
    @inline(__always)
    mutating func free(_ index: UInt32) {
        NextSegment.next.put(UInt16(truncatingIfNeeded: index), in: place(tail))
        tail = index
    }

    /// Copies data in a CQE to the SGEs of its WQE. Does nothing if the CQE has no data.
    func scatter(_ completion: Completion, to wqe: UnsafeMutableRawPointer) -> ibv_wc_status {
        guard let data = completion.inlineData else { return IBV_WC_SUCCESS }
        guard completion.length <= data.capacity else { return IBV_WC_LOC_LEN_ERR }
        return Mlx5Provider.scatter(
            data.bytes, completion.length, to: wqe + NextSegment.byteCount, sges: maxSGE
        ) { $0 }
    }
}

extension SharedReceiveQueuePointer {
    /// Appends a WQE to the list of free WQEs under the queue's lock; for the thread that polls the completion queue.
    @inline(__always)
    func free(_ index: UInt32) {
        pointee.lock.lock()
        queue.pointee.free(index)
        pointee.lock.unlock()
    }
}

@inline(never)
func postSharedReceive(
    srq: UnsafeMutablePointer<ibv_srq>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let shared = srq.unsafelyUnwrapped.native
    return shared.postReceive(to: shared.queue, first, bad)
}
