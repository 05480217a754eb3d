import CIBVerbs
import CKernelABI

/// The attributes of a new queue pair (UVERBS_METHOD_QP_CREATE, `struct ib_uverbs_create_qp`).
public struct QueuePairRequest {
    /// The address of the `ibv_qp` (`user_handle`), which the kernel returns in events.
    public var userHandle: UnsafeRawPointer
    /// The transport service (`enum ibv_qp_type`).
    public var type: ibv_qp_type
    /// The handle of the protection domain (`pd_handle`).
    public var domain: UInt32
    /// The handle of the send completion queue (`send_cq_handle`).
    public var sendCompletions: UInt32
    /// The handle of the receive completion queue (`recv_cq_handle`).
    public var receiveCompletions: UInt32
    /// The handle of the shared receive queue, if any (`srq_handle`).
    public var sharedReceiveQueue: UInt32?
    /// The requested limits. With a shared receive queue, `max_recv_wr` and `max_recv_sge` are ignored
    /// (ibv_create_qp(3)): `createQueuePair` passes 0, because not every driver ignores them (mlx5_ib checks
    /// max_recv_wr), and returns 0.
    public var limits: ibv_qp_cap
    /// Whether every send produces a completion (`sq_sig_all`).
    public var signalsAll: Bool
    /// Creation flags (`enum ib_uverbs_qp_create_flags`).
    public var flags: UInt32 = 0
    /// The descriptor of the context's asynchronous events (`ibv_context.async_fd`).
    public var asyncDescriptor: Int32

    /// A queue pair with its own receive queue and no creation flags.
    public init(
        userHandle: UnsafeRawPointer, type: ibv_qp_type, domain: UInt32, sendCompletions: UInt32,
        receiveCompletions: UInt32, limits: ibv_qp_cap, signalsAll: Bool, asyncDescriptor: Int32
    ) {
        self.userHandle = userHandle
        self.type = type
        self.domain = domain
        self.sendCompletions = sendCompletions
        self.receiveCompletions = receiveCompletions
        self.limits = limits
        self.signalsAll = signalsAll
        self.asyncDescriptor = asyncDescriptor
    }
}

/// A queue pair in the kernel (`struct ib_uverbs_create_qp_resp`).
public struct KernelQueuePair {
    /// The kernel's handle (`qp_handle`).
    public var handle: UInt32
    /// The QPN (`ibv_qp.qp_num`), 24 bits.
    public var number: UInt32
    /// The actual limits (`ibv_qp_cap`).
    public var limits: ibv_qp_cap
}

extension KernelDevice {
    /// Creates a queue pair (UVERBS_METHOD_QP_CREATE, or `struct ib_uverbs_create_qp`).
    public func createQueuePair(
        _ request: QueuePairRequest, driver: DriverData = .none
    ) throws(KernelError) -> KernelQueuePair {
        var request = request
        if request.sharedReceiveQueue != nil {
            request.limits.max_recv_wr = 0
            request.limits.max_recv_sge = 0
        }
        var method = Method(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_CREATE)
        let handle = method.newHandle(UVERBS_ATTR_CREATE_QP_HANDLE)
        method.handle(UVERBS_ATTR_CREATE_QP_PD_HANDLE, request.domain)
        if let queue = request.sharedReceiveQueue { method.handle(UVERBS_ATTR_CREATE_QP_SRQ_HANDLE, queue) }
        method.handle(UVERBS_ATTR_CREATE_QP_SEND_CQ_HANDLE, request.sendCompletions)
        method.handle(UVERBS_ATTR_CREATE_QP_RECV_CQ_HANDLE, request.receiveCompletions)
        method.input(UVERBS_ATTR_CREATE_QP_USER_HANDLE, UInt64(UInt(bitPattern: request.userHandle)))
        method.input(UVERBS_ATTR_CREATE_QP_CAP, request.limits)
        method.constant(UVERBS_ATTR_CREATE_QP_TYPE, UInt64(request.type.rawValue))
        let flags = request.flags | (request.signalsAll ? IB_UVERBS_QP_CREATE_SQ_SIG_ALL.rawValue : 0)
        if flags != 0 { method.input(UVERBS_ATTR_CREATE_QP_FLAGS, flags) }
        method.descriptor(UVERBS_ATTR_CREATE_QP_EVENT_FD, request.asyncDescriptor, mandatory: false)
        let limits = method.output(UVERBS_ATTR_CREATE_QP_RESP_CAP, ibv_qp_cap.self)
        let number = method.output(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM, UInt32.self)
        method.driver(driver)
        if try call(&method, orElse: .createQueuePair) {
            return KernelQueuePair(handle: method[handle], number: method[number], limits: method[limits])
        }
        guard request.flags == 0 else { throw .notSupported }
        return try createPlain(request, driver)
    }

    private func createPlain(
        _ request: QueuePairRequest, _ driver: DriverData
    ) throws(KernelError) -> KernelQueuePair {
        var command = ib_uverbs_create_qp()
        command.user_handle = UInt64(UInt(bitPattern: request.userHandle))
        command.pd_handle = request.domain
        command.send_cq_handle = request.sendCompletions
        command.recv_cq_handle = request.receiveCompletions
        command.srq_handle = request.sharedReceiveQueue ?? 0
        command.max_send_wr = request.limits.max_send_wr
        command.max_recv_wr = request.limits.max_recv_wr
        command.max_send_sge = request.limits.max_send_sge
        command.max_recv_sge = request.limits.max_recv_sge
        command.max_inline_data = request.limits.max_inline_data
        command.sq_sig_all = request.signalsAll ? 1 : 0
        command.qp_type = UInt8(truncatingIfNeeded: request.type.rawValue)
        command.is_srq = request.sharedReceiveQueue == nil ? 0 : 1
        var response = ib_uverbs_create_qp_resp()
        try call(.createQueuePair, command, &response, driver: driver)
        let limits = ibv_qp_cap(
            max_send_wr: response.max_send_wr, max_recv_wr: response.max_recv_wr, max_send_sge: response.max_send_sge,
            max_recv_sge: response.max_recv_sge, max_inline_data: response.max_inline_data)
        return KernelQueuePair(handle: response.qp_handle, number: response.qpn, limits: limits)
    }

    /// Changes the attributes of a queue pair that `mask` names (`ibv_modify_qp`, `enum ibv_qp_attr_mask`,
    /// `struct ib_uverbs_modify_qp`). The kernel checks the transition.
    public func modifyQueuePair(
        _ handle: UInt32, _ attributes: ibv_qp_attr, mask: UInt32, driver: DriverData = .none
    ) throws(KernelError) {
        var request = ib_uverbs_modify_qp(attributes)
        request.qp_handle = handle
        request.attr_mask = mask
        guard mask & IBV_QP_RATE_LIMIT.rawValue != 0 else {
            return try call(.modifyQueuePair, request, driver: driver)
        }
        var extended = ib_uverbs_ex_modify_qp()
        extended.base = request
        extended.rate_limit = attributes.rate_limit
        var response = ib_uverbs_ex_modify_qp_resp()
        try call(.modifyQueuePairExtended, extended, &response, driver: driver)
    }

    /// Queries the attributes of a queue pair (`ibv_query_qp`, `struct ib_uverbs_query_qp`), and whether every send
    /// produces a completion (`sq_sig_all`).
    /// - Parameter mask: The requested attributes (`enum ibv_qp_attr_mask`). The kernel may return more.
    public func queryQueuePair(
        _ handle: UInt32, mask: UInt32
    ) throws(KernelError) -> (attributes: ibv_qp_attr, signalsAll: Bool) {
        var request = ib_uverbs_query_qp()
        request.qp_handle = handle
        request.attr_mask = mask
        var response = ib_uverbs_query_qp_resp()
        try call(.queryQueuePair, request, &response)
        return (response.verbs, response.sq_sig_all != 0)
    }

    /// Destroys a queue pair (UVERBS_METHOD_QP_DESTROY, or `struct ib_uverbs_destroy_qp`). Afterwards none of its
    /// events can be read.
    /// - Returns: The number of events that were read (`events_reported`), or nil if the device is removed (EIO).
    /// - Throws: EBUSY while the queue pair is attached to a multicast group.
    public func destroyQueuePair(_ handle: UInt32) throws(KernelError) -> UInt32? {
        var method = Method(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_DESTROY)
        method.handle(UVERBS_ATTR_DESTROY_QP_HANDLE, handle)
        let output = method.output(UVERBS_ATTR_DESTROY_QP_RESP, ib_uverbs_destroy_qp_resp.self)
        var response = ib_uverbs_destroy_qp_resp()
        do {
            if try call(&method, orElse: .destroyQueuePair) { return method[output].events_reported }
            try call(.destroyQueuePair, ib_uverbs_destroy_qp(response: 0, qp_handle: handle, reserved: 0), &response)
            return response.events_reported
        } catch {
            if error == .deviceGone { return nil }
            throw error
        }
    }
}

extension ib_uverbs_modify_qp {
    /// Converts an `ibv_qp_attr`.
    fileprivate init(_ attributes: ibv_qp_attr) {
        self.init()
        dest = ib_uverbs_qp_dest(attributes.ah_attr)
        alt_dest = ib_uverbs_qp_dest(attributes.alt_ah_attr)
        qkey = attributes.qkey
        rq_psn = attributes.rq_psn
        sq_psn = attributes.sq_psn
        dest_qp_num = attributes.dest_qp_num
        qp_access_flags = attributes.qp_access_flags
        pkey_index = attributes.pkey_index
        alt_pkey_index = attributes.alt_pkey_index
        qp_state = UInt8(truncatingIfNeeded: attributes.qp_state.rawValue)
        cur_qp_state = UInt8(truncatingIfNeeded: attributes.cur_qp_state.rawValue)
        path_mtu = UInt8(truncatingIfNeeded: attributes.path_mtu.rawValue)
        path_mig_state = UInt8(truncatingIfNeeded: attributes.path_mig_state.rawValue)
        en_sqd_async_notify = attributes.en_sqd_async_notify
        max_rd_atomic = attributes.max_rd_atomic
        max_dest_rd_atomic = attributes.max_dest_rd_atomic
        min_rnr_timer = attributes.min_rnr_timer
        port_num = attributes.port_num
        timeout = attributes.timeout
        retry_cnt = attributes.retry_cnt
        rnr_retry = attributes.rnr_retry
        alt_port_num = attributes.alt_port_num
        alt_timeout = attributes.alt_timeout
    }
}

extension ib_uverbs_query_qp_resp {
    /// The attributes as an `ibv_qp_attr`.
    fileprivate var verbs: ibv_qp_attr {
        var attributes = ibv_qp_attr()
        attributes.ah_attr = dest.verbs
        attributes.alt_ah_attr = alt_dest.verbs
        attributes.cap = ibv_qp_cap(
            max_send_wr: max_send_wr, max_recv_wr: max_recv_wr, max_send_sge: max_send_sge,
            max_recv_sge: max_recv_sge, max_inline_data: max_inline_data)
        attributes.qkey = qkey
        attributes.rq_psn = rq_psn
        attributes.sq_psn = sq_psn
        attributes.dest_qp_num = dest_qp_num
        attributes.qp_access_flags = qp_access_flags
        attributes.pkey_index = pkey_index
        attributes.alt_pkey_index = alt_pkey_index
        attributes.qp_state = ibv_qp_state(rawValue: UInt32(qp_state))
        attributes.cur_qp_state = ibv_qp_state(rawValue: UInt32(cur_qp_state))
        attributes.path_mtu = ibv_mtu(rawValue: UInt32(path_mtu))
        attributes.path_mig_state = ibv_mig_state(rawValue: UInt32(path_mig_state))
        attributes.sq_draining = sq_draining
        attributes.max_rd_atomic = max_rd_atomic
        attributes.max_dest_rd_atomic = max_dest_rd_atomic
        attributes.min_rnr_timer = min_rnr_timer
        attributes.port_num = port_num
        attributes.timeout = timeout
        attributes.retry_cnt = retry_cnt
        attributes.rnr_retry = rnr_retry
        attributes.alt_port_num = alt_port_num
        attributes.alt_timeout = alt_timeout
        return attributes
    }
}
