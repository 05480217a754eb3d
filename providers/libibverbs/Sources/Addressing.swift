import CIBVerbs
import CProviderABI

/// Address handles and multicast.
func addAddressing(to table: inout rdma_context_ops) {
    table.create_ah = { pd, attr in object { ibv_create_ah(pd, attr) } }
    table.destroy_ah = { handle in status { ibv_destroy_ah(handle) } }
    table.attach_mcast = { qp, gid, lid in status { ibv_attach_mcast(qp, gid, lid) } }
    table.detach_mcast = { qp, gid, lid in status { ibv_detach_mcast(qp, gid, lid) } }
}
