import CIBVerbs
import CProviderABI

/// Completion channels, events and completion queues.
func addCompletion(to table: inout rdma_context_ops) {
    table.create_comp_channel = { context in object { ibv_create_comp_channel(context) } }
    table.destroy_comp_channel = { channel in status { ibv_destroy_comp_channel(channel) } }
    table.get_cq_event = { channel, cq in
        var context: UnsafeMutableRawPointer?
        return status { ibv_get_cq_event(channel, cq, &context) }
    }
    table.get_async_event = { context, event in
        // libibverbs writes one member of the union only.
        event?.initialize(to: ibv_async_event())
        return status { ibv_get_async_event(context, event) }
    }
    table.create_cq = { context, cqe, cqContext, channel, vector in
        object { ibv_create_cq(context, cqe, cqContext, channel, vector) }
    }
    table.create_cq_ex = { context, attr in object { ibv_create_cq_ex(context, attr) } }
    table.resize_cq = { cq, cqe in status { ibv_resize_cq(cq, cqe) } }
    table.modify_cq = { cq, attr in status { ibv_modify_cq(cq, attr) } }
    table.destroy_cq = { cq in status { ibv_destroy_cq(cq) } }
}
