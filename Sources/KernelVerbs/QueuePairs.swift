import CIBVerbs
import CKernelABI

/// What a queue pair is to be.
public struct QueuePairRequest {
    /// Address of the queue pair's verbs.h struct, which the kernel gives back in events.
    public var userHandle: UnsafeRawPointer
    /// `enum ibv_qp_type`.
    public var type: ibv_qp_type
    /// Handle of the protection domain.
    public var domain: UInt32
    /// Handle of the completion queue of sends.
    public var sendCompletions: UInt32
    /// Handle of the completion queue of receives.
    public var receiveCompletions: UInt32
    /// Handle of the shared receive queue that it receives from.
    public var sharedReceiveQueue: UInt32?
    /// What is asked for.
    public var limits: ibv_qp_cap
    /// Whether every send makes a completion.
    public var signalsAll: Bool
    /// `enum ib_uverbs_qp_create_flags`.
    public var flags: UInt32 = 0
    /// Descriptor of the context's asynchronous events.
    public var asyncDescriptor: Int32

    /// A queue pair with a receive queue of its own and no flags.
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

/// A queue pair as the kernel has made it.
public struct KernelQueuePair {
    /// Handle of the object.
    public var handle: UInt32
    /// Its number: 24 bits.
    public var number: UInt32
    /// What it was granted.
    public var limits: ibv_qp_cap
}

extension KernelDevice {
    /// Makes a queue pair.
    public func createQueuePair(
        _ request: QueuePairRequest, driver: DriverData = .none
    ) throws(KernelError) -> KernelQueuePair {
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
        var answer = ib_uverbs_create_qp_resp()
        try call(.createQueuePair, command, &answer, driver: driver)
        let limits = ibv_qp_cap(
            max_send_wr: answer.max_send_wr, max_recv_wr: answer.max_recv_wr, max_send_sge: answer.max_send_sge,
            max_recv_sge: answer.max_recv_sge, max_inline_data: answer.max_inline_data)
        return KernelQueuePair(handle: answer.qp_handle, number: answer.qpn, limits: limits)
    }

    /// Changes what `mask` (`enum ibv_qp_attr_mask`) names. The kernel checks the transition.
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
        var answer = ib_uverbs_ex_modify_qp_resp()
        try call(.modifyQueuePairExtended, extended, &answer, driver: driver)
    }

    /// What the queue pair has; and whether every send makes a completion.
    /// - Parameter mask: `enum ibv_qp_attr_mask`, what is asked for; there may be more in the answer.
    public func queryQueuePair(
        _ handle: UInt32, mask: UInt32
    ) throws(KernelError) -> (attributes: ibv_qp_attr, signalsAll: Bool) {
        var request = ib_uverbs_query_qp()
        request.qp_handle = handle
        request.attr_mask = mask
        var answer = ib_uverbs_query_qp_resp()
        try call(.queryQueuePair, request, &answer)
        return (answer.verbs, answer.sq_sig_all != 0)
    }

    /// Destroys a queue pair: from now on no event of it can be read. How many were; nil when its device is gone.
    /// EBUSY while a multicast group has it.
    public func destroyQueuePair(_ handle: UInt32) throws(KernelError) -> UInt32? {
        var method = Method(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_DESTROY)
        method.handle(UVERBS_ATTR_DESTROY_QP_HANDLE, handle)
        let output = method.output(UVERBS_ATTR_DESTROY_QP_RESP, ib_uverbs_destroy_qp_resp.self)
        var answer = ib_uverbs_destroy_qp_resp()
        do {
            if try call(&method, orElse: .destroyQueuePair) { return method[output].events_reported }
            try call(.destroyQueuePair, ib_uverbs_destroy_qp(response: 0, qp_handle: handle, reserved: 0), &answer)
            return answer.events_reported
        } catch {
            if error == .deviceGone { return nil }
            throw error
        }
    }
}

extension ib_uverbs_modify_qp {
    /// The attributes in the kernel's layout.
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
    /// As verbs.h has it.
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
