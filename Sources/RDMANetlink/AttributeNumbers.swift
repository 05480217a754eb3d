import CNetlink

/// The attributes that this module uses: `enum rdma_nldev_attr` of <rdma/rdma_netlink.h>, and IFLA_IFNAME.
struct RDMAAttribute {
    let rawValue: Int

    private init(_ attribute: rdma_nldev_attr) { rawValue = Int(attribute.rawValue) }
    /// An attribute of <linux/if_link.h>.
    private init(link rawValue: Int) { self.rawValue = rawValue }
    /// An attribute that the oldest supported header does not define.
    private init(younger rawValue: Int) { self.rawValue = rawValue }

    static let deviceIndex = Self(RDMA_NLDEV_ATTR_DEV_INDEX)
    static let deviceName = Self(RDMA_NLDEV_ATTR_DEV_NAME)
    /// In a response about a device: the number of its ports.
    static let portIndex = Self(RDMA_NLDEV_ATTR_PORT_INDEX)
    static let capabilities = Self(RDMA_NLDEV_ATTR_CAP_FLAGS)
    static let firmware = Self(RDMA_NLDEV_ATTR_FW_VERSION)
    static let nodeGUID = Self(RDMA_NLDEV_ATTR_NODE_GUID)
    static let systemImageGUID = Self(RDMA_NLDEV_ATTR_SYS_IMAGE_GUID)
    static let subnetPrefix = Self(RDMA_NLDEV_ATTR_SUBNET_PREFIX)
    static let lid = Self(RDMA_NLDEV_ATTR_LID)
    static let subnetManagerLID = Self(RDMA_NLDEV_ATTR_SM_LID)
    static let lidMaskControl = Self(RDMA_NLDEV_ATTR_LMC)
    static let portState = Self(RDMA_NLDEV_ATTR_PORT_STATE)
    static let physicalState = Self(RDMA_NLDEV_ATTR_PORT_PHYS_STATE)
    static let nodeType = Self(RDMA_NLDEV_ATTR_DEV_NODE_TYPE)
    static let interfaceIndex = Self(RDMA_NLDEV_ATTR_NDEV_INDEX)
    static let interfaceName = Self(RDMA_NLDEV_ATTR_NDEV_NAME)
    static let protocolName = Self(RDMA_NLDEV_ATTR_DEV_PROTOCOL)
    static let adaptiveModeration = Self(RDMA_NLDEV_ATTR_DEV_DIM)

    static let namespaceMode = Self(RDMA_NLDEV_SYS_ATTR_NETNS_MODE)
    static let copyOnFork = Self(RDMA_NLDEV_SYS_ATTR_COPY_ON_FORK)
    /// RDMA_NLDEV_SYS_ATTR_MONITOR_MODE, Linux 6.12.
    static let monitorMode = Self(younger: 103)
    /// RDMA_NLDEV_ATTR_EVENT_TYPE, Linux 6.12.
    static let eventType = Self(younger: 102)

    static let nodeKind = Self(RDMA_NLDEV_ATTR_CHARDEV_TYPE)
    static let nodeName = Self(RDMA_NLDEV_ATTR_CHARDEV_NAME)
    static let nodeABI = Self(RDMA_NLDEV_ATTR_CHARDEV_ABI)
    static let nodeNumber = Self(RDMA_NLDEV_ATTR_CHARDEV)
    /// The header documents 64 bits; the kernel sends 32.
    static let driverID = Self(RDMA_NLDEV_ATTR_UVERBS_DRIVER_ID)

    static let summary = Self(RDMA_NLDEV_ATTR_RES_SUMMARY)
    static let summaryEntry = Self(RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY)
    static let summaryName = Self(RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME)
    static let summaryCount = Self(RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR)

    static let process = Self(RDMA_NLDEV_ATTR_RES_PID)
    static let kernelOwner = Self(RDMA_NLDEV_ATTR_RES_KERN_NAME)
    static let queuePairs = Self(RDMA_NLDEV_ATTR_RES_QP)
    static let queuePair = Self(RDMA_NLDEV_ATTR_RES_QP_ENTRY)
    static let localNumber = Self(RDMA_NLDEV_ATTR_RES_LQPN)
    static let remoteNumber = Self(RDMA_NLDEV_ATTR_RES_RQPN)
    static let rqPSN = Self(RDMA_NLDEV_ATTR_RES_RQ_PSN)
    static let sqPSN = Self(RDMA_NLDEV_ATTR_RES_SQ_PSN)
    static let resourceType = Self(RDMA_NLDEV_ATTR_RES_TYPE)
    static let resourceState = Self(RDMA_NLDEV_ATTR_RES_STATE)
    static let connections = Self(RDMA_NLDEV_ATTR_RES_CM_ID)
    static let connection = Self(RDMA_NLDEV_ATTR_RES_CM_ID_ENTRY)
    static let connectionNumber = Self(RDMA_NLDEV_ATTR_RES_CM_IDN)
    static let portSpace = Self(RDMA_NLDEV_ATTR_RES_PS)
    static let sourceAddress = Self(RDMA_NLDEV_ATTR_RES_SRC_ADDR)
    static let destinationAddress = Self(RDMA_NLDEV_ATTR_RES_DST_ADDR)
    static let completionQueues = Self(RDMA_NLDEV_ATTR_RES_CQ)
    static let completionQueue = Self(RDMA_NLDEV_ATTR_RES_CQ_ENTRY)
    static let completionQueueNumber = Self(RDMA_NLDEV_ATTR_RES_CQN)
    static let completions = Self(RDMA_NLDEV_ATTR_RES_CQE)
    static let users = Self(RDMA_NLDEV_ATTR_RES_USECNT)
    static let memoryRegions = Self(RDMA_NLDEV_ATTR_RES_MR)
    static let memoryRegion = Self(RDMA_NLDEV_ATTR_RES_MR_ENTRY)
    static let memoryRegionNumber = Self(RDMA_NLDEV_ATTR_RES_MRN)
    static let rkey = Self(RDMA_NLDEV_ATTR_RES_RKEY)
    static let lkey = Self(RDMA_NLDEV_ATTR_RES_LKEY)
    static let memoryRegionLength = Self(RDMA_NLDEV_ATTR_RES_MRLEN)
    static let protectionDomains = Self(RDMA_NLDEV_ATTR_RES_PD)
    static let protectionDomain = Self(RDMA_NLDEV_ATTR_RES_PD_ENTRY)
    static let protectionDomainNumber = Self(RDMA_NLDEV_ATTR_RES_PDN)
    static let contexts = Self(RDMA_NLDEV_ATTR_RES_CTX)
    static let context = Self(RDMA_NLDEV_ATTR_RES_CTX_ENTRY)
    static let contextNumber = Self(RDMA_NLDEV_ATTR_RES_CTXN)
    static let sharedReceiveQueues = Self(RDMA_NLDEV_ATTR_RES_SRQ)
    static let sharedReceiveQueue = Self(RDMA_NLDEV_ATTR_RES_SRQ_ENTRY)
    static let sharedReceiveQueueNumber = Self(RDMA_NLDEV_ATTR_RES_SRQN)

    static let counters = Self(RDMA_NLDEV_ATTR_STAT_HWCOUNTERS)
    static let counter = Self(RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY)
    static let counterName = Self(RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_NAME)
    static let counterValue = Self(RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_VALUE)

    /// IFLA_IFNAME: the name of an interface in an rtnetlink message.
    static let interfaceNameOfLink = Self(link: Int(IFLA_IFNAME))
}
