/// A device of the kernel's RDMA subsystem (`RDMA_NLDEV_CMD_GET`).
public struct RDMADevice: Sendable, Hashable {
    /// The device's index (`RDMA_NLDEV_ATTR_DEV_INDEX`), which stays the same when the device is renamed.
    public let index: UInt32
    /// Its name (`RDMA_NLDEV_ATTR_DEV_NAME`), such as `mlx5_0`.
    public let name: String
    /// Number of its ports (`RDMA_NLDEV_ATTR_PORT_INDEX`).
    public let portCount: UInt32
    /// Its node type (`RDMA_NLDEV_ATTR_DEV_NODE_TYPE`; the kernel's `enum rdma_node_type`): 1 channel adapter, 4 RNIC;
    /// open.
    public let nodeType: UInt8?
    /// Node GUID in host byte order (`RDMA_NLDEV_ATTR_NODE_GUID`).
    public let nodeGUID: UInt64?
    /// System image GUID in host byte order (`RDMA_NLDEV_ATTR_SYS_IMAGE_GUID`).
    public let systemImageGUID: UInt64?
    /// Version of the firmware (`RDMA_NLDEV_ATTR_FW_VERSION`); nil where the driver reports none.
    public let firmware: String?
    /// Protocol of its ports (`RDMA_NLDEV_ATTR_DEV_PROTOCOL`): `ib`, `roce`, `iw`, `opa` or `usnic`; nil where the
    /// kernel does not report it.
    public let protocolName: String?
    /// Whether completion interrupts are moderated adaptively (`RDMA_NLDEV_ATTR_DEV_DIM`); nil where the kernel does
    /// not report it.
    public let hasAdaptiveModeration: Bool?

    init(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        index = try attributes.required(.deviceIndex, payload.startIndex)
        name = attributes.text(.deviceName) ?? "device \(index)"
        portCount = try attributes.number(.portIndex) ?? 0
        nodeType = try attributes.number(.nodeType)
        nodeGUID = try attributes.number(.nodeGUID)
        systemImageGUID = try attributes.number(.systemImageGUID)
        firmware = attributes.text(.firmware)
        protocolName = attributes.text(.protocolName)
        hasAdaptiveModeration = try attributes.number(.adaptiveModeration, as: UInt8.self).map { $0 != 0 }
    }
}

/// A port of a device (`RDMA_NLDEV_CMD_PORT_GET`); rdma(8) calls it a link.
public struct RDMALink: Sendable, Hashable {
    /// Index of the device (`RDMA_NLDEV_ATTR_DEV_INDEX`).
    public let deviceIndex: UInt32
    /// Name of the device (`RDMA_NLDEV_ATTR_DEV_NAME`).
    public let deviceName: String
    /// The port, from 1 (`RDMA_NLDEV_ATTR_PORT_INDEX`).
    public let port: UInt32
    /// The logical state of the port (`RDMA_NLDEV_ATTR_PORT_STATE`).
    public let state: LinkState?
    /// The physical state of the port (`RDMA_NLDEV_ATTR_PORT_PHYS_STATE`).
    public let physicalState: PhysicalLinkState?
    /// The LID (`RDMA_NLDEV_ATTR_LID`); nil on Ethernet.
    public let lid: UInt32?
    /// LID of the subnet manager (`RDMA_NLDEV_ATTR_SM_LID`); nil on Ethernet.
    public let subnetManagerLID: UInt32?
    /// The LID mask control (`RDMA_NLDEV_ATTR_LMC`): how many low bits of the LID are path bits; nil on Ethernet.
    public let lidMaskControl: UInt8?
    /// Prefix of the port's GIDs, in host byte order (`RDMA_NLDEV_ATTR_SUBNET_PREFIX`); nil on Ethernet.
    public let subnetPrefix: UInt64?
    /// Index of the network interface (`RDMA_NLDEV_ATTR_NDEV_INDEX`); nil where there is none in this network
    /// namespace.
    public let interfaceIndex: UInt32?
    /// Name of that interface (`RDMA_NLDEV_ATTR_NDEV_NAME`).
    public let interfaceName: String?

    init(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        deviceIndex = try attributes.required(.deviceIndex, payload.startIndex)
        deviceName = attributes.text(.deviceName) ?? "device \(deviceIndex)"
        port = try attributes.required(.portIndex, payload.startIndex)
        state = try attributes.number(.portState).map(LinkState.init(rawValue:))
        physicalState = try attributes.number(.physicalState).map(PhysicalLinkState.init(rawValue:))
        lid = try attributes.number(.lid)
        subnetManagerLID = try attributes.number(.subnetManagerLID)
        lidMaskControl = try attributes.number(.lidMaskControl)
        subnetPrefix = try attributes.number(.subnetPrefix)
        interfaceIndex = try attributes.number(.interfaceIndex)
        interfaceName = attributes.text(.interfaceName)
    }
}

/// A device node under /dev/infiniband (`RDMA_NLDEV_CMD_GET_CHARDEV`).
public struct CharacterDevice: Sendable, Hashable {
    /// A kind of device node (`RDMA_NLDEV_ATTR_CHARDEV_TYPE`).
    public struct Kind: RawRepresentable, Hashable, Sendable {
        /// The kernel's name of the kind.
        public let rawValue: String
        /// The kind with this name; every name is accepted.
        public init(rawValue: String) { self.rawValue = rawValue }
        /// The verbs node of a device.
        public static let verbs = Self(rawValue: "uverbs")
        /// The node of the connection manager: one for all devices.
        public static let connectionManager = Self(rawValue: "rdma_cm")
    }

    /// Name of the node (`RDMA_NLDEV_ATTR_CHARDEV_NAME`), without its directory: `uverbs0`.
    public let name: String
    /// Version of its ABI (`RDMA_NLDEV_ATTR_CHARDEV_ABI`): for a verbs node the ABI of the driver.
    public let abi: UInt64
    /// Device number of the node, as `dev_t` (`RDMA_NLDEV_ATTR_CHARDEV`).
    public let number: UInt64
    /// The driver of a verbs node (`RDMA_NLDEV_ATTR_UVERBS_DRIVER_ID`; `enum rdma_driver_id` of
    /// `<rdma/ib_user_ioctl_verbs.h>`): 14 is rxe; open.
    public let driverID: UInt32?

    init(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        guard let name = attributes.text(.nodeName) else {
            throw MalformedMessage(offset: payload.startIndex, message: "a device node without a name")
        }
        self.name = name
        abi = try attributes.required(.nodeABI, payload.startIndex)
        number = try attributes.required(.nodeNumber, payload.startIndex)
        driverID = try attributes.number(.driverID)
    }
}

/// The settings of the RDMA subsystem (`RDMA_NLDEV_CMD_SYS_GET`).
public struct RDMASystem: Sendable, Hashable {
    /// Whether every network namespace sees every device (`RDMA_NLDEV_SYS_ATTR_NETNS_MODE`). If false, each device is
    /// in one namespace; nil where the kernel does not report it (before Linux 5.2).
    public let sharesDevices: Bool?
    /// Whether the kernel copies registered memory at fork(2), so that ibv_fork_init(3) is not needed
    /// (`RDMA_NLDEV_SYS_ATTR_COPY_ON_FORK`); nil where the kernel does not report it.
    public let copiesOnFork: Bool?
    /// Whether its own netlink group reports events (`RDMA_NLDEV_SYS_ATTR_MONITOR_MODE`, Linux 6.12).
    public let tellsEvents: Bool

    init(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        sharesDevices = try attributes.number(.namespaceMode, as: UInt8.self).map { $0 != 0 }
        copiesOnFork = try attributes.number(.copyOnFork, as: UInt8.self).map { $0 != 0 }
        tellsEvents = try attributes.number(.monitorMode, as: UInt8.self) ?? 0 != 0
    }
}

/// A hardware counter of a port (`RDMA_NLDEV_CMD_STAT_GET`). It only grows, and wraps.
public struct HardwareCounter: Sendable, Hashable {
    /// Its name, from the driver (`RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_NAME`).
    public let name: String
    /// Its value (`RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_VALUE`).
    public let value: UInt64

    /// The counters in a response.
    static func all(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) -> [HardwareCounter] {
        var counters: [HardwareCounter] = []
        for entry in try Attributes(payload).entries(.counters, .counter) {
            guard let name = entry.text(.counterName) else { continue }
            counters.append(HardwareCounter(name: name, value: try entry.required(.counterValue, payload.startIndex)))
        }
        return counters
    }
}
