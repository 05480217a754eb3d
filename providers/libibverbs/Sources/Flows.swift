import CIBVerbs
import CProviderABI

/// Work queues and indirection tables.
func addWorkQueues(to table: inout rdma_context_ops) {
    table.create_wq = { context, attr in object { ibv_create_wq(context, attr) } }
    table.modify_wq = { wq, attr in status { ibv_modify_wq(wq, attr) } }
    table.destroy_wq = { wq in status { ibv_destroy_wq(wq) } }
    table.create_rwq_ind_table = { context, attr in object { ibv_create_rwq_ind_table(context, attr) } }
    table.destroy_rwq_ind_table = { indirection in status { ibv_destroy_rwq_ind_table(indirection) } }
}

/// Flow steering, IPsec and counters.
func addFlows(to table: inout rdma_context_ops) {
    table.create_flow = { qp, attr in object { ibv_create_flow(qp, attr) } }
    table.destroy_flow = { flow in status { ibv_destroy_flow(flow) } }
    table.create_flow_action_esp = { context, attr in object { ibv_create_flow_action_esp(context, attr) } }
    table.modify_flow_action_esp = { action, attr in status { ibv_modify_flow_action_esp(action, attr) } }
    table.destroy_flow_action = { action in status { ibv_destroy_flow_action(action) } }
    table.create_counters = { context, attr in object { ibv_create_counters(context, attr) } }
    table.attach_counters_point_flow = { counters, attr, flow in
        status { ibv_attach_counters_point_flow(counters, attr, flow) }
    }
    table.read_counters = { counters, values, count, flags in
        status { ibv_read_counters(counters, values, count, flags) }
    }
    table.destroy_counters = { counters in status { ibv_destroy_counters(counters) } }
}
