import CIBVerbs

/// Sets the functions of an extended queue pair (`ibv_qp_ex`, ibv_wr_post(3)): those of its operations, and those
/// common to all extended queue pairs. All others stay null, as verbs.h requires.
///
/// - Parameters:
///   - operations: Bits of `enum ibv_qp_create_send_ops_flags` (`ibv_qp_init_attr_ex.send_ops_flags`).
///   - functions: All functions that the provider has.
public func setWorkRequestFunctions(
    _ qp: UnsafeMutablePointer<ibv_qp_ex>, operations: UInt64, from functions: ibv_qp_ex
) {
    func has(_ operation: ibv_qp_create_send_ops_flags) -> Bool { operations & UInt64(operation.rawValue) != 0 }
    qp.pointee.wr_start = functions.wr_start
    qp.pointee.wr_complete = functions.wr_complete
    qp.pointee.wr_abort = functions.wr_abort
    qp.pointee.wr_set_sge = functions.wr_set_sge
    qp.pointee.wr_set_sge_list = functions.wr_set_sge_list
    qp.pointee.wr_set_inline_data = functions.wr_set_inline_data
    qp.pointee.wr_set_inline_data_list = functions.wr_set_inline_data_list
    if qp.pointee.qp_base.qp_type == IBV_QPT_UD { qp.pointee.wr_set_ud_addr = functions.wr_set_ud_addr }
    if has(IBV_QP_EX_WITH_SEND) { qp.pointee.wr_send = functions.wr_send }
    if has(IBV_QP_EX_WITH_SEND_WITH_IMM) { qp.pointee.wr_send_imm = functions.wr_send_imm }
    if has(IBV_QP_EX_WITH_SEND_WITH_INV) { qp.pointee.wr_send_inv = functions.wr_send_inv }
    if has(IBV_QP_EX_WITH_RDMA_WRITE) { qp.pointee.wr_rdma_write = functions.wr_rdma_write }
    if has(IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM) { qp.pointee.wr_rdma_write_imm = functions.wr_rdma_write_imm }
    if has(IBV_QP_EX_WITH_RDMA_READ) { qp.pointee.wr_rdma_read = functions.wr_rdma_read }
    if has(IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP) { qp.pointee.wr_atomic_cmp_swp = functions.wr_atomic_cmp_swp }
    if has(IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD) { qp.pointee.wr_atomic_fetch_add = functions.wr_atomic_fetch_add }
    if has(IBV_QP_EX_WITH_ATOMIC_WRITE) { qp.pointee.wr_atomic_write = functions.wr_atomic_write }
    if has(IBV_QP_EX_WITH_LOCAL_INV) { qp.pointee.wr_local_inv = functions.wr_local_inv }
    if has(IBV_QP_EX_WITH_BIND_MW) { qp.pointee.wr_bind_mw = functions.wr_bind_mw }
}
