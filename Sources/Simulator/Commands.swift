import CSimulator

/// A command as a struct, from write(2) or from the ioctl method INVOKE_WRITE.
struct CommandCall {
    let number: UInt32
    let isExtended: Bool
    let request: UnsafeRawBufferPointer
    let response: UnsafeMutableRawBufferPointer
    let driver: DriverData

    /// The command's struct, whose size was checked.
    func load<Value>(_ type: Value.Type) -> Value { request.load(0, as: type) }

    /// Writes the response, truncated to its buffer.
    func respond<Value>(_ value: Value) {
        withUnsafeBytes(of: value) { bytes in
            response.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, response.count)]))
        }
    }
}

extension Context {
    /// Executes a command whose sizes were checked.
    func perform(_ call: CommandCall) throws(Refusal) {
        if !isReady { try demand(call.number == Command.getContext, EINVAL, "the first command must be GET_CONTEXT") }
        try demand(!device.isDead, EIO, "the device is dead")
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
            var response = ib_uverbs_get_context_resp()
            response.async_fd = UInt32(bitPattern: try makeEvents().descriptor)
            response.num_comp_vectors = Simulation.vectorCount
            call.respond(response)
        case Command.queryDevice: call.respond(device.queryDevice())
        default: call.respond(try device.queryPort(UInt64(call.load(ib_uverbs_query_port.self).port_num)))
        }
    }

    private func performMemory(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.allocatePD: call.respond(try createDomain(call.driver).handle)
        case Command.deallocatePD: try destroy(try object(call.load(UInt32.self), .domain))
        case Command.createAH:
            call.respond(try createAddressHandle(call.load(ib_uverbs_create_ah.self), call.driver).handle)
        case Command.destroyAH: try destroy(try object(call.load(UInt32.self), .addressHandle))
        case Command.registerMR:
            let region = try register(call.load(ib_uverbs_reg_mr.self), call.driver)
            call.respond((region.handle, region.key, region.key))
        case Command.reregisterMR:
            let region = try reregister(call.load(ib_uverbs_rereg_mr.self), call.driver)
            call.respond((region.key, region.key))
        case Command.deregisterMR: try destroy(try object(call.load(UInt32.self), .region))
        case Command.allocateMW:
            let window = try createWindow(call.load(ib_uverbs_alloc_mw.self), call.driver)
            call.respond((window.handle, window.key))
        case Command.deallocateMW: try destroy(try object(call.load(UInt32.self), .window))
        default: throw Refusal(EOPNOTSUPP, "this kernel has no such command", has: Int(call.number))
        }
    }

    private func performCompletion(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.createChannel: call.respond(try makeChannel().descriptor)
        case Command.createCQ:
            let request = call.load(ib_uverbs_create_cq.self)
            let queue = try createCompletionQueue(
                userHandle: request.user_handle, entries: request.cqe, channel: try channel(request.comp_channel),
                vector: request.comp_vector, flags: 0, call.driver)
            call.respond(ib_uverbs_create_cq_resp(queue))
        case Command.resizeCQ:
            let request = call.load(ib_uverbs_resize_cq.self)
            let queue = try completionQueue(request.cq_handle)
            try resizeCompletionQueue(queue, entries: request.cqe, call.driver)
            call.respond(ib_uverbs_resize_cq_resp(queue))
        case Command.destroyCQ:
            let queue = try completionQueue(call.load(ib_uverbs_destroy_cq.self).cq_handle)
            try destroy(queue)
            call.respond(
                ib_uverbs_destroy_cq_resp(
                    comp_events_reported: queue.completionEventsReported, async_events_reported: queue.reported))
        default:
            let request = call.load(ib_uverbs_req_notify_cq.self)
            try device.codec.notify(
                try completionQueue(request.cq_handle), solicitedOnly: request.solicited_only != 0)
        }
    }

    /// The completion channel of a `comp_channel` field; nil for a negative value.
    private func channel(_ descriptor: Int32) throws(Refusal) -> EventFile? {
        descriptor < 0 ? nil : try eventFile(descriptor, isAsynchronous: false, errno: EINVAL)
    }

    private func performExtended(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.queryDevice:
            try demand(call.load(ib_uverbs_ex_query_device.self).comp_mask == 0, EINVAL, "an unknown comp_mask")
            var response = ib_uverbs_ex_query_device_resp()
            response.base = device.queryDevice()
            response.response_length = UInt32(
                min(call.response.count, MemoryLayout<ib_uverbs_ex_query_device_resp>.size))
            response.timestamp_mask = device.options.vendor == .mlx5 ? .max : 0
            response.hca_core_clock = device.options.vendor == .mlx5 ? 156_250 : 0
            response.device_cap_flags_ex = UInt64(response.base.device_cap_flags)
            call.respond(response)
            try device.codec.queryDevice(call.driver)
        case Command.createCQ:
            let request = call.load(ib_uverbs_ex_create_cq.self)
            try demand(request.comp_mask == 0 && request.reserved == 0, EINVAL, "an unknown comp_mask")
            let queue = try createCompletionQueue(
                userHandle: request.user_handle, entries: request.cqe, channel: try channel(request.comp_channel),
                vector: request.comp_vector, flags: request.flags, call.driver)
            var response = ib_uverbs_ex_create_cq_resp()
            response.base = ib_uverbs_create_cq_resp(queue)
            response.response_length = UInt32(MemoryLayout<ib_uverbs_ex_create_cq_resp>.size)
            call.respond(response)
        default: throw Refusal(EOPNOTSUPP, "this kernel has no such extended command", has: Int(call.number))
        }
    }

    private func performShared(_ call: CommandCall) throws(Refusal) {
        switch call.number {
        case Command.createSRQ:
            let request = call.load(ib_uverbs_create_srq.self)
            let queue = try createSharedReceiveQueue(
                try domain(request.pd_handle), userHandle: request.user_handle, requests: request.max_wr,
                sges: request.max_sge, limit: request.srq_limit, call.driver)
            var response = ib_uverbs_create_srq_resp()
            response.srq_handle = queue.handle
            response.max_wr = queue.maximumRequests
            response.max_sge = queue.maximumSGEs
            response.srqn = queue.number
            call.respond(response)
        case Command.modifySRQ:
            let request = call.load(ib_uverbs_modify_srq.self)
            try modify(try sharedReceiveQueue(request.srq_handle), request, call.driver)
        case Command.querySRQ:
            let queue = try sharedReceiveQueue(call.load(ib_uverbs_query_srq.self).srq_handle)
            try device.codec.query(queue)
            var response = ib_uverbs_query_srq_resp()
            response.max_wr = queue.maximumRequests
            response.max_sge = queue.maximumSGEs
            response.srq_limit = queue.limit
            call.respond(response)
        default:
            let queue = try sharedReceiveQueue(call.load(ib_uverbs_destroy_srq.self).srq_handle)
            try destroy(queue)
            call.respond(ib_uverbs_destroy_srq_resp(events_reported: queue.reported))
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
