import CKernelABI

/// The number of a uverbs write command: `enum ib_uverbs_write_cmds`, with IB_USER_VERBS_CMD_FLAG_EXTENDED for an
/// extended command. Kernels since 5.0 accept the write commands by ioctl as well (UVERBS_METHOD_INVOKE_WRITE).
public struct WriteCommand: RawRepresentable, Equatable, Sendable {
    /// The command number, including the flag.
    public var rawValue: UInt32

    /// The command with this number.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    private init(_ number: ib_uverbs_write_cmds) { rawValue = number.rawValue }
    private init(extended number: ib_uverbs_write_cmds) {
        rawValue = number.rawValue | UInt32(IB_USER_VERBS_CMD_FLAG_EXTENDED)
    }

    /// Whether this is an extended command (IB_USER_VERBS_CMD_FLAG_EXTENDED): sizes in units of 8 bytes, and no
    /// `response` field in the request.
    public var isExtended: Bool { rawValue & UInt32(IB_USER_VERBS_CMD_FLAG_EXTENDED) != 0 }

    /// The command's bit in a set of plain or of extended commands. There are fewer than 64 of each.
    var bit: UInt64 { 1 << UInt64(rawValue & 63) }

    /// GET_CONTEXT: `struct ib_uverbs_get_context`.
    public static var getContext: Self { Self(IB_USER_VERBS_CMD_GET_CONTEXT) }
    /// QUERY_DEVICE: `struct ib_uverbs_query_device`.
    public static var queryDevice: Self { Self(IB_USER_VERBS_CMD_QUERY_DEVICE) }
    /// QUERY_DEVICE, extended: `struct ib_uverbs_ex_query_device`.
    public static var queryDeviceExtended: Self { Self(extended: IB_USER_VERBS_CMD_QUERY_DEVICE) }
    /// QUERY_PORT: `struct ib_uverbs_query_port`.
    public static var queryPort: Self { Self(IB_USER_VERBS_CMD_QUERY_PORT) }
    /// ALLOC_PD: `struct ib_uverbs_alloc_pd`.
    public static var allocateDomain: Self { Self(IB_USER_VERBS_CMD_ALLOC_PD) }
    /// DEALLOC_PD: `struct ib_uverbs_dealloc_pd`.
    public static var deallocateDomain: Self { Self(IB_USER_VERBS_CMD_DEALLOC_PD) }
    /// CREATE_AH: `struct ib_uverbs_create_ah`.
    public static var createAddressHandle: Self { Self(IB_USER_VERBS_CMD_CREATE_AH) }
    /// DESTROY_AH: `struct ib_uverbs_destroy_ah`.
    public static var destroyAddressHandle: Self { Self(IB_USER_VERBS_CMD_DESTROY_AH) }
    /// REG_MR: `struct ib_uverbs_reg_mr`.
    public static var registerMemory: Self { Self(IB_USER_VERBS_CMD_REG_MR) }
    /// REREG_MR: `struct ib_uverbs_rereg_mr`.
    public static var reregisterMemory: Self { Self(IB_USER_VERBS_CMD_REREG_MR) }
    /// DEREG_MR: `struct ib_uverbs_dereg_mr`.
    public static var deregisterMemory: Self { Self(IB_USER_VERBS_CMD_DEREG_MR) }
    /// ALLOC_MW: `struct ib_uverbs_alloc_mw`.
    public static var allocateWindow: Self { Self(IB_USER_VERBS_CMD_ALLOC_MW) }
    /// DEALLOC_MW: `struct ib_uverbs_dealloc_mw`.
    public static var deallocateWindow: Self { Self(IB_USER_VERBS_CMD_DEALLOC_MW) }
    /// CREATE_COMP_CHANNEL: `struct ib_uverbs_create_comp_channel`.
    public static var createChannel: Self { Self(IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL) }
    /// CREATE_CQ: `struct ib_uverbs_create_cq`.
    public static var createCompletionQueue: Self { Self(IB_USER_VERBS_CMD_CREATE_CQ) }
    /// CREATE_CQ, extended: `struct ib_uverbs_ex_create_cq`.
    public static var createCompletionQueueExtended: Self { Self(extended: IB_USER_VERBS_CMD_CREATE_CQ) }
    /// RESIZE_CQ: `struct ib_uverbs_resize_cq`.
    public static var resizeCompletionQueue: Self { Self(IB_USER_VERBS_CMD_RESIZE_CQ) }
    /// REQ_NOTIFY_CQ: `struct ib_uverbs_req_notify_cq`.
    public static var requestNotification: Self { Self(IB_USER_VERBS_CMD_REQ_NOTIFY_CQ) }
    /// DESTROY_CQ: `struct ib_uverbs_destroy_cq`.
    public static var destroyCompletionQueue: Self { Self(IB_USER_VERBS_CMD_DESTROY_CQ) }
    /// CREATE_QP: `struct ib_uverbs_create_qp`.
    public static var createQueuePair: Self { Self(IB_USER_VERBS_CMD_CREATE_QP) }
    /// QUERY_QP: `struct ib_uverbs_query_qp`.
    public static var queryQueuePair: Self { Self(IB_USER_VERBS_CMD_QUERY_QP) }
    /// MODIFY_QP: `struct ib_uverbs_modify_qp`.
    public static var modifyQueuePair: Self { Self(IB_USER_VERBS_CMD_MODIFY_QP) }
    /// MODIFY_QP, extended: `struct ib_uverbs_ex_modify_qp`.
    public static var modifyQueuePairExtended: Self { Self(extended: IB_USER_VERBS_CMD_MODIFY_QP) }
    /// DESTROY_QP: `struct ib_uverbs_destroy_qp`.
    public static var destroyQueuePair: Self { Self(IB_USER_VERBS_CMD_DESTROY_QP) }
    /// POST_SEND: `struct ib_uverbs_post_send`.
    public static var postSend: Self { Self(IB_USER_VERBS_CMD_POST_SEND) }
    /// ATTACH_MCAST: `struct ib_uverbs_attach_mcast`.
    public static var attachMulticast: Self { Self(IB_USER_VERBS_CMD_ATTACH_MCAST) }
    /// DETACH_MCAST: `struct ib_uverbs_detach_mcast`.
    public static var detachMulticast: Self { Self(IB_USER_VERBS_CMD_DETACH_MCAST) }
    /// CREATE_SRQ: `struct ib_uverbs_create_srq`.
    public static var createSharedReceiveQueue: Self { Self(IB_USER_VERBS_CMD_CREATE_SRQ) }
    /// MODIFY_SRQ: `struct ib_uverbs_modify_srq`.
    public static var modifySharedReceiveQueue: Self { Self(IB_USER_VERBS_CMD_MODIFY_SRQ) }
    /// QUERY_SRQ: `struct ib_uverbs_query_srq`.
    public static var querySharedReceiveQueue: Self { Self(IB_USER_VERBS_CMD_QUERY_SRQ) }
    /// DESTROY_SRQ: `struct ib_uverbs_destroy_srq`.
    public static var destroySharedReceiveQueue: Self { Self(IB_USER_VERBS_CMD_DESTROY_SRQ) }
}
