import CIBVerbs
import CLinux
import CProviderABI

/// Protection, parent and thread domains.
func addDomains(to table: inout rdma_context_ops) {
    table.alloc_pd = { context in object { ibv_alloc_pd(context) } }
    table.dealloc_pd = { pd in status { ibv_dealloc_pd(pd) } }
    table.alloc_parent_domain = { context, attr in object { ibv_alloc_parent_domain(context, attr) } }
    table.alloc_td = { context, attr in object { ibv_alloc_td(context, attr) } }
    table.dealloc_td = { td in status { ibv_dealloc_td(td) } }
}

/// Memory regions, device memory, and their import from another process.
func addMemory(to table: inout rdma_context_ops) {
    // ibv_reg_mr_iova2 drops the optional access flags (IBV_ACCESS_OPTIONAL_RANGE) that the kernel does not support.
    table.reg_mr = { pd, start, length, iova, access in object { ibv_reg_mr_iova2(pd, start, length, iova, access) } }
    table.reg_dmabuf_mr = { pd, offset, length, iova, fd, access in
        object { ibv_reg_dmabuf_mr(pd, offset, length, iova, fd, access) }
    }
    table.rereg_mr = reregister
    table.dereg_mr = { mr in status { ibv_dereg_mr(mr) } }
    table.alloc_null_mr = { pd in object { ibv_alloc_null_mr(pd) } }
    table.advise_mr = { pd, advice, flags, list, count in status { ibv_advise_mr(pd, advice, flags, list, count) } }
    table.alloc_dm = { context, attr in object { ibv_alloc_dm(context, attr) } }
    table.free_dm = { dm in status { ibv_free_dm(dm) } }
    table.reg_dm_mr = { pd, dm, offset, length, access in object { ibv_reg_dm_mr(pd, dm, offset, length, access) } }
    table.import_pd = { context, handle in object { ibv_import_pd(context, handle) } }
    table.unimport_pd = { pd in ibv_unimport_pd(pd) }
    table.import_mr = { pd, handle in object { ibv_import_mr(pd, handle) } }
    table.unimport_mr = { mr in ibv_unimport_mr(mr) }
    table.import_dm = { context, handle in object { ibv_import_dm(context, handle) } }
    table.unimport_dm = { dm in ibv_unimport_dm(dm) }
}

/// `ibv_rereg_mr`. Its return value (`ibv_rereg_mr_err_code`) reports which registration is valid; the provider ABI
/// reports it by the errno value.
private func reregister(
    mr: UnsafeMutablePointer<ibv_mr>?, flags: Int32, pd: UnsafeMutablePointer<ibv_pd>?,
    start: UnsafeMutableRawPointer?, length: Int, access: Int32
) -> Int32 {
    let known =
        IBV_REREG_MR_CHANGE_TRANSLATION.rawValue | IBV_REREG_MR_CHANGE_PD.rawValue
        | IBV_REREG_MR_CHANGE_ACCESS.rawValue
    guard UInt32(bitPattern: flags) & ~known == 0 else { return EOPNOTSUPP }
    linux_set_errno(0)
    return reregistration(code: ibv_rereg_mr(mr, flags, pd, start, length, access), error: linux_errno())
}

/// Maps `enum ibv_rereg_mr_err_code` to the codes of the provider ABI.
func reregistration(code: Int32, error: Int32) -> Int32 {
    switch ibv_rereg_mr_err_code(code) {
    case IBV_REREG_MR_ERR_INPUT, IBV_REREG_MR_ERR_DONT_FORK_NEW:
        // The old registration is valid.
        return EINVAL
    case IBV_REREG_MR_ERR_DO_FORK_OLD:
        // The new registration is valid; only "do fork" on the old address range failed (verbs.h).
        return 0
    case _ where code == 0:
        return 0
    default:
        // The command failed. EOPNOTSUPP: the kernel has no such command, and the old registration is valid. Otherwise
        // neither is valid, so the result must not be EINVAL.
        return error == 0 || error == EINVAL ? EIO : errorNumber(error)
    }
}
