import CIBVerbs
import CLinux
import CProviderABI

/// Shared receive queues and XRC.
func addSharedReceives(to table: inout rdma_context_ops) {
    table.create_srq_ex = { context, attr in object { ibv_create_srq_ex(context, attr) } }
    table.modify_srq = { srq, attr, mask in status { ibv_modify_srq(srq, attr, mask) } }
    table.query_srq = { srq, attr in status { ibv_query_srq(srq, attr) } }
    table.post_srq_ops = { srq, op, bad in status { ibv_post_srq_ops(srq, op, bad) } }
    table.get_srq_num = { srq, number in status { ibv_get_srq_num(srq, number) } }
    table.destroy_srq = { srq in status { ibv_destroy_srq(srq) } }
    table.open_xrcd = { context, attr in object { ibv_open_xrcd(context, attr) } }
    table.close_xrcd = { xrcd in status { ibv_close_xrcd(xrcd) } }
    table.open_qp = { context, attr in object { ibv_open_qp(context, attr) } }
}

/// Queue pairs.
func addQueuePairs(to table: inout rdma_context_ops) {
    table.create_qp_ex = { context, attr in object { ibv_create_qp_ex(context, attr) } }
    table.qp_to_qp_ex = { qp in ibv_qp_to_qp_ex(qp) }
    table.modify_qp = { qp, attr, mask in status { ibv_modify_qp(qp, attr, mask) } }
    table.query_qp = { qp, attr, mask, initial in status { ibv_query_qp(qp, attr, mask, initial) } }
    table.modify_qp_rate_limit = { qp, attr in status { ibv_modify_qp_rate_limit(qp, attr) } }
    table.query_qp_data_in_order = { qp, opcode, flags in ibv_query_qp_data_in_order(qp, opcode, flags) }
    table.query_ece = { qp, ece, size in
        var result = ibv_ece()
        let error = status { ibv_query_ece(qp, &result) }
        if error == 0 { copyOut(result, to: ece, size: size) }
        return error
    }
    table.set_ece = { qp, ece, size in
        guard let ece else { return EINVAL }
        var requested = ibv_ece()
        withUnsafeMutableBytes(of: &requested) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: ece, count: min(size, $0.count)))
        }
        return status { ibv_set_ece(qp, &requested) }
    }
    table.destroy_qp = { qp in status { ibv_destroy_qp(qp) } }
}
