import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import Synchronization

// The functions of a device with fault rules. Each asks the rules first, and then does what the function of a device
// without rules does. So a device without rules pays nothing for them.

/// The control table of devices with fault rules: that of the others, with the functions that can fail replaced.
nonisolated(unsafe) let faultControlTable: UnsafeMutablePointer<rdma_context_ops> = {
    let table = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
    table.initialize(to: controlTable.pointee)
    table.pointee.query_device_ex = { context, input, attr, size in
        let error = injectedError(context, .queryDevice)
        return error != 0 ? error : controlTable.pointee.query_device_ex(context, input, attr, size)
    }
    table.pointee.query_port = { context, port, attr, size in
        let error = injectedError(context, .queryPort)
        return error != 0 ? error : controlTable.pointee.query_port(context, port, attr, size)
    }
    table.pointee.query_gid_ex = { context, port, index, entry, flags, size in
        let error = injectedError(context, .queryGID)
        return error != 0 ? error : controlTable.pointee.query_gid_ex(context, port, index, entry, flags, size)
    }
    table.pointee.query_gid_table = { context, entries, capacity, flags, size in
        let error = injectedError(context, .queryGID)
        return error != 0
            ? -Int(error) : controlTable.pointee.query_gid_table(context, entries, capacity, flags, size)
    }
    table.pointee.query_rt_values = { context, values in
        let error = injectedError(context)
        return error != 0 ? error : controlTable.pointee.query_rt_values(context, values)
    }
    table.pointee.query_pkey = { context, port, index, key in
        let error = injectedError(context)
        return error != 0 ? error : controlTable.pointee.query_pkey(context, port, index, key)
    }

    table.pointee.alloc_pd = { context in
        let error = injectedError(context, .allocPD)
        return error != 0 ? failure(error) : controlTable.pointee.alloc_pd(context)
    }
    table.pointee.alloc_parent_domain = { context, attr in
        let error = injectedError(context, .allocParentDomain)
        return error != 0 ? failure(error) : controlTable.pointee.alloc_parent_domain(context, attr)
    }
    table.pointee.alloc_td = { context, attr in
        let error = injectedError(context, .allocTD)
        return error != 0 ? failure(error) : controlTable.pointee.alloc_td(context, attr)
    }

    table.pointee.reg_mr = { pd, address, length, virtualAddress, access in
        let error = injectedError(pd?.pointee.context, .regMR)
        return error != 0 ? failure(error) : controlTable.pointee.reg_mr(pd, address, length, virtualAddress, access)
    }
    table.pointee.rereg_mr = { mr, flags, pd, address, length, access in
        let error = injectedError(mr?.pointee.context, .reregMR)
        return error != 0 ? error : controlTable.pointee.rereg_mr(mr, flags, pd, address, length, access)
    }

    table.pointee.reg_dmabuf_mr = { pd, offset, length, virtualAddress, descriptor, access in
        let error = injectedError(pd?.pointee.context, .regDMABufMR)
        return error != 0
            ? failure(error)
            : controlTable.pointee.reg_dmabuf_mr(pd, offset, length, virtualAddress, descriptor, access)
    }
    table.pointee.alloc_null_mr = { pd in
        let error = injectedError(pd?.pointee.context, .allocNullMR)
        return error != 0 ? failure(error) : controlTable.pointee.alloc_null_mr(pd)
    }
    table.pointee.advise_mr = { pd, advice, flags, sgList, count in
        let error = injectedError(pd?.pointee.context, .adviseMR)
        return error != 0 ? error : controlTable.pointee.advise_mr(pd, advice, flags, sgList, count)
    }
    table.pointee.alloc_dm = { context, attr in
        let error = injectedError(context, .allocDM)
        return error != 0 ? failure(error) : controlTable.pointee.alloc_dm(context, attr)
    }
    table.pointee.reg_dm_mr = { pd, dm, offset, length, access in
        let error = injectedError(pd?.pointee.context, .regDMMR)
        return error != 0 ? failure(error) : controlTable.pointee.reg_dm_mr(pd, dm, offset, length, access)
    }

    table.pointee.create_comp_channel = { context in
        let error = injectedError(context, .createCompChannel)
        if error != 0 { return failure(error) }
        let channel = controlTable.pointee.create_comp_channel(context)
        if let channel { context!.soft.addChannel(channel.soft) }
        return channel
    }
    table.pointee.destroy_comp_channel = { channel in
        guard let channel else { return EINVAL }
        let context = channel.pointee.context.soft
        let made = channel.soft
        // Not in the list any more before it is freed; in the list again if it is not.
        context.removeChannel(made)
        let error = controlTable.pointee.destroy_comp_channel(channel)
        if error != 0 { context.addChannel(made) }
        return error
    }

    table.pointee.create_cq = { context, entries, cqContext, channel, vector in
        let error = injectedError(context, .createCQ)
        return error != 0
            ? failure(error) : controlTable.pointee.create_cq(context, entries, cqContext, channel, vector)
    }
    table.pointee.create_cq_ex = { context, attr in
        let error = injectedError(context, .createCQ)
        if error != 0 { return failure(error) }
        let queue = controlTable.pointee.create_cq_ex(context, attr)
        queue?.pointee.start_poll = faultStartPoll
        queue?.pointee.next_poll = faultNextPoll
        return queue
    }
    table.pointee.resize_cq = { cq, entries in
        let error = injectedError(cq?.pointee.context, .resizeCQ)
        return error != 0 ? error : controlTable.pointee.resize_cq(cq, entries)
    }

    table.pointee.modify_cq = { cq, attr in
        let error = injectedError(cq?.pointee.context, .modifyCQ)
        return error != 0 ? error : controlTable.pointee.modify_cq(cq, attr)
    }

    table.pointee.create_srq_ex = { context, attr in
        let error = injectedError(context, .createSRQ)
        return error != 0 ? failure(error) : controlTable.pointee.create_srq_ex(context, attr)
    }
    table.pointee.modify_srq = { srq, attr, mask in
        let error = injectedError(srq?.pointee.context, .modifySRQ)
        return error != 0 ? error : controlTable.pointee.modify_srq(srq, attr, mask)
    }
    table.pointee.query_srq = { srq, attr in
        let error = injectedError(srq?.pointee.context, .querySRQ)
        return error != 0 ? error : controlTable.pointee.query_srq(srq, attr)
    }

    table.pointee.get_srq_num = { srq, number in
        let error = injectedError(srq?.pointee.context, .getSRQNum)
        return error != 0 ? error : controlTable.pointee.get_srq_num(srq, number)
    }
    table.pointee.open_xrcd = { context, attr in
        let error = injectedError(context, .openXRCD)
        return error != 0 ? failure(error) : controlTable.pointee.open_xrcd(context, attr)
    }

    table.pointee.create_qp_ex = { context, attr in
        let error = injectedError(context, .createQP)
        if error != 0 { return failure(error) }
        let pair = controlTable.pointee.create_qp_ex(context, attr)
        if let extended = controlTable.pointee.qp_to_qp_ex(pair) { extended.pointee.wr_complete = faultComplete }
        return pair
    }
    table.pointee.open_qp = { context, attr in
        let error = injectedError(context, .openQP)
        return error != 0 ? failure(error) : controlTable.pointee.open_qp(context, attr)
    }
    table.pointee.modify_qp = { qp, attr, mask in
        let error = injectedError(qp?.pointee.context, .modifyQP)
        return error != 0 ? error : controlTable.pointee.modify_qp(qp, attr, mask)
    }
    table.pointee.modify_qp_rate_limit = { qp, attr in
        let error = injectedError(qp?.pointee.context)
        return error != 0 ? error : controlTable.pointee.modify_qp_rate_limit(qp, attr)
    }
    table.pointee.query_ece = { qp, ece, size in
        let error = injectedError(qp?.pointee.context)
        return error != 0 ? error : controlTable.pointee.query_ece(qp, ece, size)
    }
    table.pointee.set_ece = { qp, ece, size in
        let error = injectedError(qp?.pointee.context)
        return error != 0 ? error : controlTable.pointee.set_ece(qp, ece, size)
    }
    table.pointee.query_qp = { qp, attr, mask, initial in
        let error = injectedError(qp?.pointee.context, .queryQP)
        return error != 0 ? error : controlTable.pointee.query_qp(qp, attr, mask, initial)
    }

    table.pointee.create_ah = { pd, attr in
        let error = injectedError(pd?.pointee.context, .createAH)
        return error != 0 ? failure(error) : controlTable.pointee.create_ah(pd, attr)
    }
    table.pointee.attach_mcast = { qp, gid, lid in
        let error = injectedError(qp?.pointee.context, .attachMcast)
        return error != 0 ? error : controlTable.pointee.attach_mcast(qp, gid, lid)
    }
    return table
}()

/// The errno value with which the verb fails; 0 when it does not fail.
private func injectedError(_ context: UnsafeMutablePointer<ibv_context>?, _ verb: FaultVerb? = nil) -> Int32 {
    context.map { $0.soft.injectedError(verb) } ?? 0
}

/// Sets the functions of the data path of a device with fault rules.
func fillFaultDataPath(_ ops: inout ibv_context_ops) {
    ops.poll_cq = { cq, count, wc in
        // Read before the queue: what a failure flushes is in the queue when it is set.
        let hasFailed = cq?.soft.context.pointee.hasFailed.load(ordering: .acquiring) ?? false
        let taken = pollCompletions(cq: cq, count: count, wc: wc)
        if taken == 0 && count > 0 && hasFailed { return -EIO }
        if taken > 0, let cq, let wc { cq.soft.context.noteCompletions(wc, count: Int(taken)) }
        return taken
    }
    ops.req_notify_cq = { cq, solicitedOnly in
        let error = injectedError(cq?.pointee.context)
        return error != 0 ? error : requestNotification(cq: cq, solicitedOnly: solicitedOnly)
    }
    ops.alloc_mw = { pd, type in
        let error = injectedError(pd?.pointee.context, .allocMW)
        return error != 0 ? failure(error) : allocateMemoryWindow(pd: pd, type: type)
    }
    ops.bind_mw = { qp, mw, bind in
        let error = injectedError(qp?.pointee.context, .bindMW)
        return error != 0 ? error : bindMemoryWindow(qp: qp, mw: mw, bind: bind)
    }
    ops.post_send = { qp, first, bad in
        let error = injectedError(qp?.pointee.context, .postSend)
        if error == 0 { return postSend(qp: qp, first: first, bad: bad) }
        bad?.pointee = first
        return error
    }
    ops.post_recv = { qp, first, bad in
        let error = injectedError(qp?.pointee.context, .postRecv)
        if error == 0 { return postReceive(qp: qp, first: first, bad: bad) }
        bad?.pointee = first
        return error
    }
    ops.post_srq_recv = { srq, first, bad in
        let error = injectedError(srq?.pointee.context, .postSRQRecv)
        if error == 0 { return postSharedReceive(srq: srq, first: first, bad: bad) }
        bad?.pointee = first
        return error
    }
}

/// `ibv_wr_complete`, which posts nothing when it fails.
private func faultComplete(qp: UnsafeMutablePointer<ibv_qp_ex>?) -> Int32 {
    let error = injectedError(qp?.pointee.qp_base.context, .postSend)
    if error == 0 { return completeBuilding(qp: qp) }
    qp?.pointee.wr_abort(qp)
    return error
}

/// `ibv_start_poll`: EIO instead of ENOENT when the device has failed.
private func faultStartPoll(
    cq: UnsafeMutablePointer<ibv_cq_ex>?, attr: UnsafeMutablePointer<ibv_poll_cq_attr>?
) -> Int32 {
    let hasFailed = cq?.soft.context.pointee.hasFailed.load(ordering: .acquiring) ?? false
    return shown(cq, startPoll(cq: cq, attr: attr), hasFailed)
}

/// `ibv_next_poll`, in the same way.
private func faultNextPoll(cq: UnsafeMutablePointer<ibv_cq_ex>?) -> Int32 {
    let hasFailed = cq?.soft.context.pointee.hasFailed.load(ordering: .acquiring) ?? false
    return shown(cq, nextPoll(cq: cq), hasFailed)
}

private func shown(_ cq: UnsafeMutablePointer<ibv_cq_ex>?, _ result: Int32, _ hasFailed: Bool) -> Int32 {
    if result == ENOENT && hasFailed { return EIO }
    if result == 0, let cq { cq.soft.context.noteCompletion(queuePair: cq.pointee.read_qp_num(cq)) }
    return result
}
