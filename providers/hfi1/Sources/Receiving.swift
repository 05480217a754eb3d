import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// Receive queues, of a queue pair or shared: `context->ops.post_recv` and `post_srq_recv`. The kernel reads `head` when
// a message arrives; there is no doorbell.

/// A receive queue (`struct rvt_rwq`). Its WQEs are `struct rvt_rwqe`.
struct ReceiveQueue: NativeReceiveQueue {
    private(set) var mapping = Mapping.absent
    /// The number of WQEs, `max_wr` + 1; 1 without a queue.
    private var entryCount: UInt32 = 1
    /// The maximum number of SGEs of a work request. `rvt_rwqe.num_sge` has 8 bits.
    private(set) var maxSGE: UInt32 = 0
    private var entrySize = Int(RVT_RECEIVE_SGES)

    /// The queue of an object without a receive queue, to which no work request can be posted.
    init() {}

    /// A mapped queue of `maxWR` + 1 WQEs with `maxSGE` SGEs each.
    init(mapping: Mapping, maxWR: UInt32, maxSGE: UInt32) {
        self.mapping = mapping
        entryCount = maxWR + 1
        self.maxSGE = min(maxSGE, UInt32(UInt8.max))
        entrySize = Self.entrySize(maxSGE)
    }

    /// The size in bytes of a `struct rvt_rwqe` with `maxSGE` SGEs.
    static func entrySize(_ maxSGE: UInt32) -> Int { Int(RVT_RECEIVE_SGES) + Int(RVT_SGE_SIZE) * Int(maxSGE) }

    private var isAbsent: Bool { mapping.byteCount == 0 }

    @inline(__always)
    private var head: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_HEAD)) }

    @inline(__always)
    private var tail: SharedIndex { SharedIndex(at: mapping.memory + Int(RVT_QUEUE_TAIL)) }

    /// Posts a list of work requests. Returns 0, ENOMEM when the queue is full, or EINVAL.
    @inline(__always)
    func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        var request = first
        var error: Int32 = 0
        // Read from the shared memory each time, because the kernel sets it to 0 when the queue pair is reset.
        var index = head.loadOwn()
        if _slowPath(index >= entryCount) { index = 0 }
        let tail = tail.loadAcquiring()
        while let current = request {
            let next = index &+ 1 == entryCount ? 0 : index &+ 1
            if _slowPath(next == tail) {
                error = isAbsent ? EINVAL : ENOMEM
                break
            }
            guard write(current, to: mapping.memory + (Int(RVT_QUEUE_ENTRIES) &+ Int(index) &* entrySize)) else {
                error = EINVAL
                break
            }
            index = next
            request = current.pointee.next
        }
        head.storeReleasing(index)
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    /// Writes a work request to a WQE. Returns false when its scatter/gather list is too long, or nil.
    @inline(__always)
    private func write(_ request: UnsafeMutablePointer<ibv_recv_wr>, to wqe: UnsafeMutableRawPointer) -> Bool {
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= maxSGE else { return false }
        wqe.put(request.pointee.wr_id, at: Int(RVT_RECEIVE_WR_ID))
        wqe.put(UInt8(truncatingIfNeeded: count), at: Int(RVT_RECEIVE_SGE_COUNT))
        guard count != 0 else { return true }
        guard var sge = UnsafeRawPointer(request.pointee.sg_list) else { return false }
        var target = wqe + Int(RVT_RECEIVE_SGES)
        for _ in 0..<Int(count) {
            target.put(sge.get16(0), at: 0)
            target += Int(RVT_SGE_SIZE)
            sge += Int(RVT_SGE_SIZE)
        }
        return true
    }
}

@inline(__always)
func postReceive(
    qp: UnsafeMutablePointer<ibv_qp>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let pair = qp.unsafelyUnwrapped.native
    return pair.postReceive(to: pair.receives, first, bad)
}

@inline(__always)
func postSharedReceive(
    srq: UnsafeMutablePointer<ibv_srq>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let queue = srq.unsafelyUnwrapped.native
    return queue.postReceive(to: queue.receives, first, bad)
}
