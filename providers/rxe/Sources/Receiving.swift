import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

// Receive queues, of a queue pair or shared: `context->ops.post_recv` and `post_srq_recv`. The kernel reads the
// producer index when a message arrives; there is no doorbell.

/// A receive queue. Its WQEs are `struct rxe_recv_wqe`.
struct ReceiveQueue {
    var ring = Ring.absent
    /// The maximum number of SGEs of a work request (`max_recv_sge`, `ibv_srq_init_attr.attr.max_sge`).
    private(set) var maxSGE: UInt32 = 0

    /// Sets `maxSGE`. Returns false when a WQE is too small for it. Without a ring, any limit is accepted and ignored.
    mutating func setLimit(_ limit: UInt32) -> Bool {
        if ring.isAbsent { return true }
        guard Int(limit) <= (ring.entrySize - Int(RXE_RECEIVE_DATA)) / Int(RXE_SGE_SIZE) else { return false }
        maxSGE = limit
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

extension ReceiveQueue: NativeReceiveQueue {
    /// Posts a list of work requests. Returns 0, ENOMEM when the queue is full, or EINVAL.
    @inline(__always)
    func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?,
        _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        let ring = ring
        var request = first
        var error: Int32 = 0
        var index = ring.producer.loadOwn() & ring.mask
        let consumer = ring.consumer.loadAcquiring()
        while let current = request {
            let next = ring.next(index)
            if _slowPath(next == consumer) {
                error = ring.isAbsent ? EINVAL : ENOMEM
                break
            }
            guard write(current, to: ring.entry(index)) else {
                error = EINVAL
                break
            }
            index = next
            request = current.pointee.next
        }
        ring.producer.storeReleasing(index)
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    @inline(__always)
    private func write(_ request: UnsafeMutablePointer<ibv_recv_wr>, to wqe: UnsafeMutableRawPointer) -> Bool {
        let count = UInt32(bitPattern: request.pointee.num_sge)
        guard count <= maxSGE,
            let length = copySGEs(request.pointee.sg_list, count, to: wqe + Int(RXE_RECEIVE_DATA))
        else { return false }
        wqe.put(request.pointee.wr_id, at: RXE_RECEIVE_WR_ID)
        let dma = wqe + Int(RXE_RECEIVE_DMA)
        dma.put(length, at: RXE_DMA_LENGTH)
        dma.put(length, at: RXE_DMA_RESID)
        dma.put(UInt64(count) << 32, at: RXE_DMA_CURRENT_SGE)
        dma.put(0 as UInt64, at: RXE_DMA_SGE_OFFSET)
        return true
    }
}
