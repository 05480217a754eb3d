import CSimulator

/// A command as a struct: it came by write(2), or inside the ioctl.
struct CommandCall {
    let number: UInt32
    let isExtended: Bool
    let request: UnsafeRawBufferPointer
    let response: UnsafeMutableRawBufferPointer
    let driver: DriverData

    /// The struct; as long as the shape of the command says.
    func load<Value>(_ type: Value.Type) -> Value { request.load(0, as: type) }

    /// The answer: as much of it as there is room for.
    func answer<Value>(_ value: Value) {
        withUnsafeBytes(of: value) { bytes in
            response.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, response.count)]))
        }
    }
}

extension Context {
    /// Carries out a command whose sizes fit its shape.
    func perform(_ call: CommandCall) throws(Refusal) {
        if !isReady { try demand(call.number == Command.getContext, EINVAL, "the first command must be GET_CONTEXT") }
        try demand(!device.isDead, EIO, "the device has died")
        if call.isExtended { return try performExtended(call) }
        switch call.number {
        case Command.getContext, Command.queryDevice, Command.queryPort: try performQuery(call)
        case Command.createCQ, Command.resizeCQ, Command.destroyCQ, Command.notifyCQ, Command.createChannel:
            try performCompletion(call)
        case Command.createQP, Command.queryQP, Command.modifyQP, Command.destroyQP, Command.attach, Command.detach,
            Command.postSend:
            try performQueuePair(call)
        case Command.createSRQ, Command.modifySRQ, Command.querySRQ, Command.destroySRQ: try performShared(call)
        default: try performMemory(call)
        }
    }

    private func performQuery(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.getContext:
            try open(call.driver)
            var answer = ib_uverbs_get_context_resp()
            answer.async_fd = UInt32(bitPattern: try makeEvents().descriptor)
            answer.num_comp_vectors = Simulation.vectorCount
            call.answer(answer)
        case Command.queryDevice: call.answer(device.queryDevice())
        default: call.answer(try device.queryPort(UInt64(call.load(ib_uverbs_query_port.self).port_num)))
        }
    }

    private func performMemory(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.allocatePD: call.answer(try createDomain(call.driver).handle)
        case Command.deallocatePD: try destroy(try object(call.load(UInt32.self), .domain))
        case Command.createAH:
            call.answer(try createAddressHandle(call.load(ib_uverbs_create_ah.self), call.driver).handle)
        case Command.destroyAH: try destroy(try object(call.load(UInt32.self), .addressHandle))
        case Command.registerMR:
            let region = try register(call.load(ib_uverbs_reg_mr.self), call.driver)
            call.answer((region.handle, region.key, region.key))
        case Command.reregisterMR:
            let region = try reregister(call.load(ib_uverbs_rereg_mr.self), call.driver)
            call.answer((region.key, region.key))
        case Command.deregisterMR: try destroy(try object(call.load(UInt32.self), .region))
        case Command.allocateMW:
            let window = try createWindow(call.load(ib_uverbs_alloc_mw.self), call.driver)
            call.answer((window.handle, window.key))
        case Command.deallocateMW: try destroy(try object(call.load(UInt32.self), .window))
        default: throw Refusal(EOPNOTSUPP, "this kernel has no such command", has: Int(call.number))
        }
    }

    private func performCompletion(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.createChannel: call.answer(try makeChannel().descriptor)
        case Command.createCQ:
            let request = call.load(ib_uverbs_create_cq.self)
            let channel =
                request.comp_channel < 0
                ? nil : try eventFile(request.comp_channel, isAsynchronous: false, errno: EINVAL)
            let queue = try createCompletionQueue(
                userHandle: request.user_handle, entries: request.cqe, channel: channel, vector: request.comp_vector,
                flags: 0, call.driver)
            call.answer(ib_uverbs_create_cq_resp(queue))
        case Command.resizeCQ:
            let request = call.load(ib_uverbs_resize_cq.self)
            let queue = try completionQueue(request.cq_handle)
            try resizeCompletionQueue(queue, entries: request.cqe, call.driver)
            call.answer(ib_uverbs_resize_cq_resp(queue))
        case Command.destroyCQ:
            let queue = try completionQueue(call.load(ib_uverbs_destroy_cq.self).cq_handle)
            try destroy(queue)
            call.answer(
                ib_uverbs_destroy_cq_resp(
                    comp_events_reported: queue.completionEventsReported, async_events_reported: queue.reported))
        default:
            let request = call.load(ib_uverbs_req_notify_cq.self)
            try device.codec.notify(
                try completionQueue(request.cq_handle), solicitedOnly: request.solicited_only != 0)
        }
    }

    private func performExtended(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.queryDevice:
            try demand(call.load(ib_uverbs_ex_query_device.self).comp_mask == 0, EINVAL, "a mask that is not known")
            var answer = ib_uverbs_ex_query_device_resp()
            answer.base = device.queryDevice()
            answer.response_length = UInt32(min(call.response.count, MemoryLayout<ib_uverbs_ex_query_device_resp>.size))
            answer.timestamp_mask = device.options.vendor == .mlx5 ? .max : 0
            answer.hca_core_clock = device.options.vendor == .mlx5 ? 156_250 : 0
            answer.device_cap_flags_ex = UInt64(answer.base.device_cap_flags)
            call.answer(answer)
            try device.codec.queryDevice(call.driver)
        case Command.createCQ:
            let request = call.load(ib_uverbs_ex_create_cq.self)
            try demand(request.comp_mask == 0 && request.reserved == 0, EINVAL, "a mask that is not known")
            let channel =
                request.comp_channel < 0
                ? nil : try eventFile(request.comp_channel, isAsynchronous: false, errno: EINVAL)
            let queue = try createCompletionQueue(
                userHandle: request.user_handle, entries: request.cqe, channel: channel, vector: request.comp_vector,
                flags: request.flags, call.driver)
            var answer = ib_uverbs_ex_create_cq_resp()
            answer.base = ib_uverbs_create_cq_resp(queue)
            answer.response_length = UInt32(MemoryLayout<ib_uverbs_ex_create_cq_resp>.size)
            call.answer(answer)
        default: throw Refusal(EOPNOTSUPP, "this kernel has no such extended command", has: Int(call.number))
        }
    }

    private func performShared(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.createSRQ:
            let request = call.load(ib_uverbs_create_srq.self)
            let queue = try createSharedReceiveQueue(
                try domain(request.pd_handle), userHandle: request.user_handle, requests: request.max_wr,
                elements: request.max_sge, limit: request.srq_limit, call.driver)
            var answer = ib_uverbs_create_srq_resp()
            answer.srq_handle = queue.handle
            answer.max_wr = queue.maximumRequests
            answer.max_sge = queue.maximumElements
            answer.srqn = queue.number
            call.answer(answer)
        case Command.modifySRQ:
            let request = call.load(ib_uverbs_modify_srq.self)
            try modify(try sharedReceiveQueue(request.srq_handle), request, call.driver)
        case Command.querySRQ:
            let queue = try sharedReceiveQueue(call.load(ib_uverbs_query_srq.self).srq_handle)
            var answer = ib_uverbs_query_srq_resp()
            answer.max_wr = queue.maximumRequests
            answer.max_sge = queue.maximumElements
            answer.srq_limit = queue.limit
            call.answer(answer)
        default:
            let queue = try sharedReceiveQueue(call.load(ib_uverbs_destroy_srq.self).srq_handle)
            try destroy(queue)
            call.answer(ib_uverbs_destroy_srq_resp(events_reported: queue.reported))
        }
    }
}

extension ib_uverbs_create_cq_resp {
    fileprivate init(_ queue: CompletionQueue) {
        self.init()
        cq_handle = queue.handle
        cqe = queue.entries
    }
}

extension ib_uverbs_resize_cq_resp {
    fileprivate init(_ queue: CompletionQueue) {
        self.init()
        cqe = queue.entries
    }
}
