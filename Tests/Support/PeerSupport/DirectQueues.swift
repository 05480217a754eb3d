import CIBVerbs
import CMlx5DV
import CMlx5Extension
import CProviderABI
import Glibc

/// The memory of a queue pair and of its completion queue, for direct access: from mlx5dv_init_obj(3) of libmlx5, or from the
/// extension "mlx5-direct" of the provider mlx5.
package struct DirectQueues {
    package var pair = rdma_mlx5_qp()
    package var completions = rdma_mlx5_cq()
}

extension Library {
    /// The queues of an mlx5 device, by mlx5dv_init_obj(3) of the library that libibverbs has loaded.
    func vendorQueues(_ pair: Pair, _ completions: Completions) -> DirectQueues {
        typealias InitialiseObject = @convention(c) (UnsafeMutablePointer<mlx5dv_obj>, UInt64) -> Int32
        let handle = dlopen("libmlx5.so.1", RTLD_NOW)
        let symbol = have(dlsym(have(handle, "libmlx5"), "mlx5dv_init_obj"), "mlx5dv_init_obj")
        var ofPair = mlx5dv_qp()
        var ofCompletions = mlx5dv_cq()
        let error = withUnsafeMutablePointer(to: &ofPair) { ofPair in
            withUnsafeMutablePointer(to: &ofCompletions) { ofCompletions in
                var object = mlx5dv_obj()
                object.qp.in = pair
                object.qp.out = ofPair
                object.cq.in = completions
                object.cq.out = ofCompletions
                return unsafeBitCast(symbol, to: InitialiseObject.self)(
                    &object, UInt64(MLX5DV_OBJ_QP.rawValue | MLX5DV_OBJ_CQ.rawValue))
            }
        }
        equal(error, 0, "mlx5dv_init_obj")
        var queues = DirectQueues()
        queues.pair.dbrec = ofPair.dbrec
        queues.pair.sq = rdma_mlx5_ring(buf: ofPair.sq.buf, wqe_cnt: ofPair.sq.wqe_cnt, stride: ofPair.sq.stride)
        queues.pair.rq = rdma_mlx5_ring(buf: ofPair.rq.buf, wqe_cnt: ofPair.rq.wqe_cnt, stride: ofPair.rq.stride)
        queues.pair.bf.reg = ofPair.bf.reg
        queues.pair.bf.size = ofPair.bf.size
        queues.pair.qpn = pair.pointee.qp_num
        queues.completions.cqn = ofCompletions.cqn
        queues.completions.buf = ofCompletions.buf
        queues.completions.dbrec = ofCompletions.dbrec
        queues.completions.cqe_cnt = ofCompletions.cqe_cnt
        queues.completions.cqe_size = ofCompletions.cqe_size
        queues.completions.cq_uar = ofCompletions.cq_uar
        return queues
    }
}

extension NativeLibrary {
    /// The queues of an mlx5 device, by the extension "mlx5-direct".
    func extensionQueues(_ pair: Pair, _ completions: Completions) -> DirectQueues {
        let query = have(ops.pointee.query_extension, "query_extension")
        let context = pair.pointee.context
        check(
            query(context, RDMA_MLX5_DIRECT, UInt32(RDMA_MLX5_DIRECT_VERSION) + 1) == nil,
            "a version that is not offered")
        check(query(context, RDMA_MLX5_DIRECT + "s", UInt32(RDMA_MLX5_DIRECT_VERSION)) == nil, "another name")
        let found = have(query(context, RDMA_MLX5_DIRECT, UInt32(RDMA_MLX5_DIRECT_VERSION)), "the extension")
        let direct = found.assumingMemoryBound(to: rdma_mlx5_direct.self)
        check(direct.pointee.size >= MemoryLayout<rdma_mlx5_direct>.size, "the size of the extension")
        var queues = DirectQueues()
        equal(direct.pointee.get_qp(pair, &queues.pair), EINVAL, "a struct without room")
        equal(direct.pointee.get_cq(completions, &queues.completions), EINVAL, "a struct without room")
        queues.pair.size = UInt32(MemoryLayout<rdma_mlx5_qp>.size)
        queues.completions.size = UInt32(MemoryLayout<rdma_mlx5_cq>.size)
        equal(direct.pointee.get_qp(pair, &queues.pair), 0, "get_qp")
        equal(direct.pointee.get_cq(completions, &queues.completions), 0, "get_cq")
        return queues
    }
}
