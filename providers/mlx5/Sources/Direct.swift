import CIBVerbs
import CMlx5Extension
import CProviderABI
import KernelVerbs
import ProviderKit

// The extension "mlx5-direct" (rdma_mlx5.h): the queues of an object, for a program that accesses them itself.

/// `query_extension` of a context.
func queryExtension(
    context: UnsafeMutablePointer<ibv_context>?, name: UnsafePointer<CChar>?, version: UInt32
) -> UnsafeRawPointer? {
    isExtension(name, version, "mlx5-direct", UInt32(RDMA_MLX5_DIRECT_VERSION)) ? UnsafeRawPointer(direct) : nil
}

private nonisolated(unsafe) let direct = {
    let functions = UnsafeMutablePointer<rdma_mlx5_direct>.allocate(capacity: 1)
    functions.initialize(to: rdma_mlx5_direct())
    functions.pointee.size = UInt32(MemoryLayout<rdma_mlx5_direct>.size)
    functions.pointee.get_qp = queuePairMemory
    functions.pointee.get_cq = completionQueueMemory
    return functions
}()

private func queuePairMemory(
    qp: UnsafeMutablePointer<ibv_qp>?, out: UnsafeMutablePointer<rdma_mlx5_qp>?
) -> Int32 {
    guard let pair = qp?.native, let out, out.pointee.size >= MemoryLayout<rdma_mlx5_qp>.size else { return EINVAL }
    let resources = pair.resources.pointee
    let sends = pair.sends.pointee
    var memory = rdma_mlx5_qp()
    memory.size = UInt32(MemoryLayout<rdma_mlx5_qp>.size)
    memory.dbrec = resources.doorbellRecord.assumingMemoryBound(to: UInt32.self)
    memory.sq.buf = sends.ring.start
    memory.sq.wqe_cnt = sends.ring.mask + 1
    memory.sq.stride = UInt32(SendRing.wqebbSize)
    if let ring = pair.receives.pointee.ring {
        memory.rq.buf = ring.start
        memory.rq.wqe_cnt = ring.mask + 1
        memory.rq.stride = 1 << ring.shift
    }
    let blueFlame = sends.blueFlame.register
    memory.bf.reg = blueFlame.register
    memory.bf.size = blueFlame.allowsBlueFlame ? blueFlame.bufferSize : 0
    if blueFlame.isShared { memory.flags |= RDMA_MLX5_QP_SHARED_BF.rawValue }
    memory.qpn = pair.pointee.base.qp_base.qp_num
    out.pointee = memory
    return 0
}

private func completionQueueMemory(
    cq: UnsafeMutablePointer<ibv_cq>?, out: UnsafeMutablePointer<rdma_mlx5_cq>?
) -> Int32 {
    guard let queue = cq?.native, let out, out.pointee.size >= MemoryLayout<rdma_mlx5_cq>.size else { return EINVAL }
    let ring = queue.ring.pointee
    out.pointee = rdma_mlx5_cq(
        size: UInt32(MemoryLayout<rdma_mlx5_cq>.size), cqn: ring.number, buf: ring.memory.start,
        dbrec: ring.doorbellRecord.assumingMemoryBound(to: UInt32.self), cqe_cnt: ring.mask + 1,
        cqe_size: 1 << ring.shift, cq_uar: ring.uarPage)
    return 0
}
