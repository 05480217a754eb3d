import CSimulator

private typealias Attribute = AttributeSpecification

extension MethodCall {
    /// Executes the method.
    mutating func perform() throws(Refusal) {
        let isFirst = object == UVERBS_OBJECT_DEVICE.rawValue && method == UVERBS_METHOD_GET_CONTEXT.rawValue
        let isStruct = object == UVERBS_OBJECT_DEVICE.rawValue && method == UVERBS_METHOD_INVOKE_WRITE.rawValue
        let isEvents = object == UVERBS_OBJECT_ASYNC_EVENT.rawValue
        if !context.isReady {
            // INVOKE_WRITE checks this itself (`Context.perform`): libraries probe the kernel with it.
            try demand(isFirst || isStruct || isEvents, EINVAL, "the first call must be GET_CONTEXT")
        }
        try demand(!context.device.isDead, EIO, "the device is dead")
        switch (uverbs_default_objects(rawValue: UInt32(object)), UInt32(method)) {
        case (UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE.rawValue): try invokeWrite()
        case (UVERBS_OBJECT_DEVICE, _): try callDevice()
        case (UVERBS_OBJECT_ASYNC_EVENT, UVERBS_METHOD_ASYNC_EVENT_ALLOC.rawValue):
            try check([Attribute(UVERBS_ATTR_ASYNC_EVENT_ALLOC_FD_HANDLE, .newDescriptor)])
            made(UVERBS_ATTR_ASYNC_EVENT_ALLOC_FD_HANDLE, UInt64(try context.makeEvents().descriptor))
        case (UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_CREATE.rawValue): try createCompletionQueue()
        case (UVERBS_OBJECT_QP, UVERBS_METHOD_QP_CREATE.rawValue): try createQueuePair()
        case (UVERBS_OBJECT_SRQ, UVERBS_METHOD_SRQ_CREATE.rawValue): try createSharedReceiveQueue()
        case (UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY.rawValue):
            try destroy(.completionQueue, UVERBS_ATTR_DESTROY_CQ_HANDLE, UVERBS_ATTR_DESTROY_CQ_RESP, 8)
        case (UVERBS_OBJECT_QP, UVERBS_METHOD_QP_DESTROY.rawValue):
            try destroy(.queuePair, UVERBS_ATTR_DESTROY_QP_HANDLE, UVERBS_ATTR_DESTROY_QP_RESP, 4)
        case (UVERBS_OBJECT_SRQ, UVERBS_METHOD_SRQ_DESTROY.rawValue):
            try destroy(.sharedReceiveQueue, UVERBS_ATTR_DESTROY_SRQ_HANDLE, UVERBS_ATTR_DESTROY_SRQ_RESP, 4)
        case (UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY.rawValue):
            try destroy(.domain, UVERBS_ATTR_DESTROY_PD_HANDLE)
        case (UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY.rawValue):
            try destroy(.region, UVERBS_ATTR_DESTROY_MR_HANDLE)
        case (UVERBS_OBJECT_MW, UVERBS_METHOD_MW_DESTROY.rawValue):
            try destroy(.window, UVERBS_ATTR_DESTROY_MW_HANDLE)
        case (UVERBS_OBJECT_AH, UVERBS_METHOD_AH_DESTROY.rawValue):
            try destroy(.addressHandle, UVERBS_ATTR_DESTROY_AH_HANDLE)
        default: try context.device.codec.call(context, &self)
        }
    }

    // MARK: - The device

    private func callDevice() throws(Refusal) {
        switch uverbs_methods_device(rawValue: UInt32(method)) {
        case UVERBS_METHOD_GET_CONTEXT:
            try check([
                Attribute(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS, .output(4), isMandatory: false),
                Attribute(UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT, .output(8), isMandatory: false),
            ])
            try context.open(driver)
            respond(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS, Simulation.vectorCount)
            respond(
                UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT, UInt64(IB_UVERBS_CORE_SUPPORT_OPTIONAL_MR_ACCESS.rawValue))
        case UVERBS_METHOD_QUERY_PORT:
            try check([
                Attribute(UVERBS_ATTR_QUERY_PORT_PORT_NUM, .input(8...8)),
                Attribute(UVERBS_ATTR_QUERY_PORT_RESP, .output(MemoryLayout<ib_uverbs_query_port_resp>.size)),
            ])
            var port = ib_uverbs_query_port_resp_ex()
            port.legacy_resp = try context.device.queryPort(value(UVERBS_ATTR_QUERY_PORT_PORT_NUM, 0))
            respond(UVERBS_ATTR_QUERY_PORT_RESP, port)
        case UVERBS_METHOD_QUERY_GID_ENTRY: try queryGIDEntry()
        case UVERBS_METHOD_QUERY_GID_TABLE: try queryGIDTable()
        default: throw Refusal(MethodCall.unknown, "the device has no such method in this kernel", has: Int(method))
        }
    }

    private func queryGIDEntry() throws(Refusal) {
        try check([
            Attribute(UVERBS_ATTR_QUERY_GID_ENTRY_PORT, .input(4...8)),
            Attribute(UVERBS_ATTR_QUERY_GID_ENTRY_GID_INDEX, .input(4...8)),
            Attribute(UVERBS_ATTR_QUERY_GID_ENTRY_FLAGS, .input(4...8)),
            Attribute(
                UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY, .output(MemoryLayout<ib_uverbs_gid_entry>.size)),
        ])
        let port: UInt32 = value(UVERBS_ATTR_QUERY_GID_ENTRY_PORT, 0)
        let index: UInt32 = value(UVERBS_ATTR_QUERY_GID_ENTRY_GID_INDEX, 0)
        try demand(value(UVERBS_ATTR_QUERY_GID_ENTRY_FLAGS, 0 as UInt32) == 0, EINVAL, "unknown flags")
        try demand(port == 1, EINVAL, "there is no such port", has: Int(port))
        try demand(index < context.device.gidCount, EINVAL, "there is no such GID index", has: Int(index))
        respond(UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY, context.device.gidEntry(Int(index)))
    }

    private func queryGIDTable() throws(Refusal) {
        let size = MemoryLayout<ib_uverbs_gid_entry>.size
        try check([
            Attribute(UVERBS_ATTR_QUERY_GID_TABLE_ENTRY_SIZE, .input(8...8)),
            Attribute(UVERBS_ATTR_QUERY_GID_TABLE_FLAGS, .input(4...8), isMandatory: false),
            Attribute(UVERBS_ATTR_QUERY_GID_TABLE_RESP_ENTRIES, .output(0)),
            Attribute(UVERBS_ATTR_QUERY_GID_TABLE_RESP_NUM_ENTRIES, .output(8)),
        ])
        let stride = Int(value(UVERBS_ATTR_QUERY_GID_TABLE_ENTRY_SIZE, 0 as UInt64))
        try demand(stride >= size, EINVAL, "an entry is longer than that, in bytes", has: stride, wants: size)
        let room = room(UInt16(UVERBS_ATTR_QUERY_GID_TABLE_RESP_ENTRIES.rawValue))
        let count = context.device.gidCount
        try demand(
            room.count / stride >= count, EINVAL, "room for fewer entries than there are", has: room.count / stride,
            wants: count)
        for index in 0..<count {
            room.storeBytes(
                of: context.device.gidEntry(index), toByteOffset: index * stride, as: ib_uverbs_gid_entry.self)
        }
        respond(UVERBS_ATTR_QUERY_GID_TABLE_RESP_NUM_ENTRIES, UInt64(count))
    }

    /// INVOKE_WRITE: a command's struct in attributes of the ioctl.
    private func invokeWrite() throws(Refusal) {
        try check([
            Attribute(UVERBS_ATTR_WRITE_CMD, .input(8...8)),
            Attribute(UVERBS_ATTR_CORE_IN, .input(0...Int(UInt16.max)), isMandatory: false),
            Attribute(UVERBS_ATTR_CORE_OUT, .output(0), isMandatory: false),
        ])
        let command: UInt64 = value(UVERBS_ATTR_WRITE_CMD, 0)
        let isExtended = command & UInt64(IB_USER_VERBS_CMD_FLAG_EXTENDED) != 0
        let number = UInt32(truncatingIfNeeded: command) & ~IB_USER_VERBS_CMD_FLAG_EXTENDED
        guard let shape = CommandShape(number: number, isExtended: isExtended) else {
            throw Refusal(EPROTONOSUPPORT, "this kernel has no such command", has: Int(number))
        }
        let request = bytes(UInt16(UVERBS_ATTR_CORE_IN.rawValue))
        let response = room(UInt16(UVERBS_ATTR_CORE_OUT.rawValue))
        try demand(
            request.count >= shape.request, ENOSPC, "shorter than the command's struct", has: request.count,
            wants: shape.request)
        try demand(
            response.count >= shape.response, ENOSPC, "less room than the response needs", has: response.count,
            wants: shape.response)
        try context.perform(
            CommandCall(number: number, isExtended: isExtended, request: request, response: response, driver: driver))
        if response.count > 0 { markWritten(UVERBS_ATTR_CORE_OUT) }
    }

    // MARK: - Objects

    private func createCompletionQueue() throws(Refusal) {
        try check([
            Attribute(UVERBS_ATTR_CREATE_CQ_HANDLE, .newHandle),
            Attribute(UVERBS_ATTR_CREATE_CQ_CQE, .input(4...4)),
            Attribute(UVERBS_ATTR_CREATE_CQ_USER_HANDLE, .input(8...8)),
            Attribute(
                UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL, .descriptor(isAsynchronous: false), isMandatory: false),
            Attribute(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, .input(4...4)),
            Attribute(UVERBS_ATTR_CREATE_CQ_FLAGS, .input(4...8), isMandatory: false),
            Attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE, .output(4)),
            Attribute(UVERBS_ATTR_CREATE_CQ_EVENT_FD, .descriptor(isAsynchronous: true), isMandatory: false),
        ])
        let queue = try context.createCompletionQueue(
            userHandle: value(UVERBS_ATTR_CREATE_CQ_USER_HANDLE, 0), entries: value(UVERBS_ATTR_CREATE_CQ_CQE, 0),
            channel: try eventFile(UVERBS_ATTR_CREATE_CQ_COMP_CHANNEL, isAsynchronous: false),
            vector: value(UVERBS_ATTR_CREATE_CQ_COMP_VECTOR, 0), flags: value(UVERBS_ATTR_CREATE_CQ_FLAGS, 0), driver)
        respond(UVERBS_ATTR_CREATE_CQ_RESP_CQE, queue.entries)
        made(UVERBS_ATTR_CREATE_CQ_HANDLE, UInt64(queue.handle))
    }

    private func createQueuePair() throws(Refusal) {
        try check([
            Attribute(UVERBS_ATTR_CREATE_QP_HANDLE, .newHandle),
            Attribute(UVERBS_ATTR_CREATE_QP_PD_HANDLE, .handle(.domain)),
            Attribute(UVERBS_ATTR_CREATE_QP_SRQ_HANDLE, .handle(.sharedReceiveQueue), isMandatory: false),
            Attribute(UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE, .handle(.completionQueue)),
            Attribute(UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE, .handle(.completionQueue)),
            Attribute(UVERBS_ATTR_CREATE_QP_USER_HANDLE, .input(8...8)),
            Attribute(UVERBS_ATTR_CREATE_QP_CAP, .input(20...20)),
            Attribute(UVERBS_ATTR_CREATE_QP_TYPE, .input(8...8)),
            Attribute(UVERBS_ATTR_CREATE_QP_FLAGS, .input(4...8), isMandatory: false),
            Attribute(UVERBS_ATTR_CREATE_QP_EVENT_FD, .descriptor(isAsynchronous: true), isMandatory: false),
            Attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP, .output(20)),
            Attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, .output(4)),
        ])
        let shared = handle(UVERBS_ATTR_CREATE_QP_SRQ_HANDLE)
        let flags: UInt32 = value(UVERBS_ATTR_CREATE_QP_FLAGS, 0)
        let signalsAll = IB_UVERBS_QP_CREATE_SQ_SIG_ALL.rawValue
        let queuePair = QueuePair(
            domain: try context.domain(handle(UVERBS_ATTR_CREATE_QP_PD_HANDLE) ?? 0),
            userHandle: value(UVERBS_ATTR_CREATE_QP_USER_HANDLE, 0),
            type: UInt32(truncatingIfNeeded: value(UVERBS_ATTR_CREATE_QP_TYPE, 0 as UInt64)),
            sendCompletions: try context.completionQueue(handle(UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE) ?? 0),
            receiveCompletions: try context.completionQueue(handle(UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE) ?? 0),
            sharedReceives: shared == nil ? nil : try context.sharedReceiveQueue(shared!),
            limits: value(UVERBS_ATTR_CREATE_QP_CAP, ibv_qp_cap()), signalsAll: flags & signalsAll != 0)
        try context.createQueuePair(queuePair, flags: flags & ~signalsAll, driver)
        respond(UVERBS_ATTR_CREATE_QP_RESP_CAP, queuePair.limits)
        respond(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, queuePair.number)
        made(UVERBS_ATTR_CREATE_QP_HANDLE, UInt64(queuePair.handle))
    }

    private func createSharedReceiveQueue() throws(Refusal) {
        try check([
            Attribute(UVERBS_ATTR_CREATE_SRQ_HANDLE, .newHandle),
            Attribute(UVERBS_ATTR_CREATE_SRQ_PD_HANDLE, .handle(.domain)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_USER_HANDLE, .input(8...8)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_MAX_WR, .input(4...4)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_MAX_SGE, .input(4...4)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_LIMIT, .input(4...4)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_TYPE, .input(8...8)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_EVENT_FD, .descriptor(isAsynchronous: true), isMandatory: false),
            Attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_WR, .output(4)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE, .output(4)),
            Attribute(UVERBS_ATTR_CREATE_SRQ_RESP_SRQ_NUM, .output(4), isMandatory: false),
        ])
        let type: UInt64 = value(UVERBS_ATTR_CREATE_SRQ_TYPE, 0)
        try demand(
            type == UInt64(IB_UVERBS_SRQT_BASIC.rawValue), EOPNOTSUPP, "only basic shared receive queues are here",
            has: Int(type))
        let queue = try context.createSharedReceiveQueue(
            try context.domain(handle(UVERBS_ATTR_CREATE_SRQ_PD_HANDLE) ?? 0),
            userHandle: value(UVERBS_ATTR_CREATE_SRQ_USER_HANDLE, 0), requests: value(UVERBS_ATTR_CREATE_SRQ_MAX_WR, 0),
            sges: value(UVERBS_ATTR_CREATE_SRQ_MAX_SGE, 0), limit: value(UVERBS_ATTR_CREATE_SRQ_LIMIT, 0), driver)
        respond(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_WR, queue.maximumRequests)
        respond(UVERBS_ATTR_CREATE_SRQ_RESP_MAX_SGE, queue.maximumSGEs)
        respond(UVERBS_ATTR_CREATE_SRQ_RESP_SRQ_NUM, queue.number)
        made(UVERBS_ATTR_CREATE_SRQ_HANDLE, UInt64(queue.handle))
    }

    private func destroy(_ kind: Kind, _ id: some RawRepresentable<UInt32>) throws(Refusal) {
        try check([Attribute(id, .handle(kind))])
        try context.destroy(try context.object(handle(id) ?? 0, kind))
    }

    /// Destroys a source of events. The response is the number of its events that the program has read.
    private func destroy(
        _ kind: Kind, _ id: some RawRepresentable<UInt32>, _ response: some RawRepresentable<UInt32>, _ size: Int
    ) throws(Refusal) {
        try check([Attribute(id, .handle(kind)), Attribute(response, .output(size))])
        let object = try context.object(handle(id) ?? 0, kind)
        try context.destroy(object)
        let source = unsafeDowncast(object, to: EventSource.self)
        if kind == .completionQueue {
            let queue = unsafeDowncast(object, to: CompletionQueue.self)
            respond(
                response,
                ib_uverbs_destroy_cq_resp(
                    comp_events_reported: queue.completionEventsReported, async_events_reported: queue.reported))
        } else {
            respond(response, source.reported)
        }
    }
}
