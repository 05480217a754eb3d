import CSimulator

/// The sizes of a command's struct and response, and whether driver data may follow them (<rdma/ib_user_verbs.h>).
struct CommandShape {
    let name: StaticString
    let request: Int
    let response: Int
    /// False: all bytes after the struct belong to the command.
    var hasDriverData = true

    /// Nil: the kernel has no such command.
    init?(number: UInt32, isExtended: Bool) {
        if isExtended { self.init(extended: number) } else { self.init(plain: number) }
    }

    private init(_ name: StaticString, _ request: Int, _ response: Int, hasDriverData: Bool = true) {
        self.name = name
        self.request = request
        self.response = response
        self.hasDriverData = hasDriverData
    }

    private init?(plain number: UInt32) {
        func size<Value>(_ type: Value.Type) -> Int { MemoryLayout<Value>.size }
        switch number {
        case Command.getContext: self.init("GET_CONTEXT", 8, 8)
        case Command.queryDevice:
            self.init("QUERY_DEVICE", 8, size(ib_uverbs_query_device_resp.self), hasDriverData: false)
        case Command.queryPort: self.init("QUERY_PORT", 16, size(ib_uverbs_query_port_resp.self), hasDriverData: false)
        case Command.allocatePD: self.init("ALLOC_PD", 8, 4)
        case Command.deallocatePD: self.init("DEALLOC_PD", 4, 0, hasDriverData: false)
        case Command.createAH: self.init("CREATE_AH", size(ib_uverbs_create_ah.self), 4)
        case Command.destroyAH: self.init("DESTROY_AH", 4, 0, hasDriverData: false)
        case Command.registerMR: self.init("REG_MR", size(ib_uverbs_reg_mr.self), size(ib_uverbs_reg_mr_resp.self))
        case Command.reregisterMR: self.init("REREG_MR", size(ib_uverbs_rereg_mr.self), 8)
        case Command.deregisterMR: self.init("DEREG_MR", 4, 0, hasDriverData: false)
        case Command.allocateMW: self.init("ALLOC_MW", size(ib_uverbs_alloc_mw.self), 8)
        case Command.deallocateMW: self.init("DEALLOC_MW", 4, 0, hasDriverData: false)
        case Command.createChannel: self.init("CREATE_COMP_CHANNEL", 8, 4, hasDriverData: false)
        case Command.createCQ: self.init("CREATE_CQ", size(ib_uverbs_create_cq.self), 8)
        case Command.resizeCQ: self.init("RESIZE_CQ", size(ib_uverbs_resize_cq.self), 8)
        case Command.destroyCQ: self.init("DESTROY_CQ", 16, 8, hasDriverData: false)
        case Command.notifyCQ: self.init("REQ_NOTIFY_CQ", 8, 0, hasDriverData: false)
        case Command.createQP: self.init("CREATE_QP", size(ib_uverbs_create_qp.self), 32)
        case Command.queryQP: self.init("QUERY_QP", 16, size(ib_uverbs_query_qp_resp.self), hasDriverData: false)
        case Command.modifyQP: self.init("MODIFY_QP", size(ib_uverbs_modify_qp.self), 0)
        case Command.destroyQP: self.init("DESTROY_QP", 16, 4, hasDriverData: false)
        case Command.postSend: self.init("POST_SEND", 24, 4, hasDriverData: false)
        case Command.attach: self.init("ATTACH_MCAST", 24, 0)
        case Command.detach: self.init("DETACH_MCAST", 24, 0)
        case Command.createSRQ: self.init("CREATE_SRQ", size(ib_uverbs_create_srq.self), 16)
        case Command.modifySRQ: self.init("MODIFY_SRQ", 16, 0)
        case Command.querySRQ: self.init("QUERY_SRQ", 16, 16, hasDriverData: false)
        case Command.destroySRQ: self.init("DESTROY_SRQ", 16, 4, hasDriverData: false)
        default: return nil
        }
    }

    /// Minimum sizes: later kernels append fields to these structs.
    private init?(extended number: UInt32) {
        switch number {
        case Command.queryDevice:
            self.init("EX_QUERY_DEVICE", 8, MemoryLayout<ib_uverbs_query_device_resp>.size + 8)
        case Command.createCQ:
            self.init("EX_CREATE_CQ", MemoryLayout<ib_uverbs_ex_create_cq>.size, 16)
        default: return nil
        }
    }
}

/// Numbers of `enum ib_uverbs_write_cmds`.
enum Command {
    static let getContext = IB_USER_VERBS_CMD_GET_CONTEXT.rawValue
    static let queryDevice = IB_USER_VERBS_CMD_QUERY_DEVICE.rawValue
    static let queryPort = IB_USER_VERBS_CMD_QUERY_PORT.rawValue
    static let allocatePD = IB_USER_VERBS_CMD_ALLOC_PD.rawValue
    static let deallocatePD = IB_USER_VERBS_CMD_DEALLOC_PD.rawValue
    static let createAH = IB_USER_VERBS_CMD_CREATE_AH.rawValue
    static let destroyAH = IB_USER_VERBS_CMD_DESTROY_AH.rawValue
    static let registerMR = IB_USER_VERBS_CMD_REG_MR.rawValue
    static let reregisterMR = IB_USER_VERBS_CMD_REREG_MR.rawValue
    static let deregisterMR = IB_USER_VERBS_CMD_DEREG_MR.rawValue
    static let allocateMW = IB_USER_VERBS_CMD_ALLOC_MW.rawValue
    static let deallocateMW = IB_USER_VERBS_CMD_DEALLOC_MW.rawValue
    static let createChannel = IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL.rawValue
    static let createCQ = IB_USER_VERBS_CMD_CREATE_CQ.rawValue
    static let resizeCQ = IB_USER_VERBS_CMD_RESIZE_CQ.rawValue
    static let destroyCQ = IB_USER_VERBS_CMD_DESTROY_CQ.rawValue
    static let notifyCQ = IB_USER_VERBS_CMD_REQ_NOTIFY_CQ.rawValue
    static let createQP = IB_USER_VERBS_CMD_CREATE_QP.rawValue
    static let queryQP = IB_USER_VERBS_CMD_QUERY_QP.rawValue
    static let modifyQP = IB_USER_VERBS_CMD_MODIFY_QP.rawValue
    static let destroyQP = IB_USER_VERBS_CMD_DESTROY_QP.rawValue
    static let postSend = IB_USER_VERBS_CMD_POST_SEND.rawValue
    static let attach = IB_USER_VERBS_CMD_ATTACH_MCAST.rawValue
    static let detach = IB_USER_VERBS_CMD_DETACH_MCAST.rawValue
    static let createSRQ = IB_USER_VERBS_CMD_CREATE_SRQ.rawValue
    static let modifySRQ = IB_USER_VERBS_CMD_MODIFY_SRQ.rawValue
    static let querySRQ = IB_USER_VERBS_CMD_QUERY_SRQ.rawValue
    static let destroySRQ = IB_USER_VERBS_CMD_DESTROY_SRQ.rawValue
}
