/// A device of the kernel's RDMA subsystem (`RDMA_NLDEV_CMD_GET`).
public struct RDMADevice: Sendable, Hashable {
    /// The kernel's number for it, which stays when it is renamed.
    public let index: UInt32
    /// Its name, such as `mlx5_0`.
    public let name: String
    /// How many ports it has.
    public let portCount: UInt32
    /// `enum rdma_node_type` of the kernel: 1 channel adapter, 4 RNIC; open.
    public let nodeType: UInt8?
    /// Node GUID in host byte order.
    public let nodeGUID: UInt64?
    /// GUID of the system that the device is part of, in host byte order.
    public let systemImageGUID: UInt64?
    /// Version of the firmware; nil where the driver tells none.
    public let firmware: String?
    /// What its ports speak: `ib`, `roce`, `iw`, `opa` or `usnic`; nil where the kernel does not tell it.
    public let protocolName: String?
    /// Whether completion interrupts are moderated as the traffic asks for; nil where the kernel does not tell it.
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
    /// Number of the device.
    public let deviceIndex: UInt32
    /// Name of the device.
    public let deviceName: String
    /// The port, from 1.
    public let port: UInt32
    /// Whether traffic can flow.
    public let state: LinkState?
    /// The state of the wire.
    public let physicalState: PhysicalLinkState?
    /// Local identifier of InfiniBand; nil on Ethernet.
    public let lid: UInt32?
    /// LID of the subnet manager; nil on Ethernet.
    public let subnetManagerLID: UInt32?
    /// How many low bits of the LID are free; nil on Ethernet.
    public let lidMaskControl: UInt8?
    /// Prefix of the port's GIDs, in host byte order; nil on Ethernet.
    public let subnetPrefix: UInt64?
    /// Index of the network interface; nil where there is none in this network namespace.
    public let interfaceIndex: UInt32?
    /// Name of that interface.
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
    /// Which node.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        /// The kernel's word for it.
        public let rawValue: String
        /// The node that the kernel calls so.
        public init(rawValue: String) { self.rawValue = rawValue }
        /// Verbs: of a device.
        public static let verbs = Self(rawValue: "uverbs")
        /// The connection manager: one for all devices.
        public static let connectionManager = Self(rawValue: "rdma_cm")
    }

    /// Name of the node, without its directory: `uverbs0`.
    public let name: String
    /// Version of the ABI behind it: of a verbs node, that of the driver.
    public let abi: UInt64
    /// Number of the node, as `dev_t` holds it.
    public let number: UInt64
    /// `enum rdma_driver_id` of `<rdma/ib_user_ioctl_verbs.h>`, of a verbs node: 14 is rxe; open.
    public let driverID: UInt32?

    init(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        guard let name = attributes.text(.nodeName) else {
            throw MalformedMessage(offset: payload.startIndex, sentence: "a device node without a name")
        }
        self.name = name
        abi = try attributes.required(.nodeABI, payload.startIndex)
        number = try attributes.required(.nodeNumber, payload.startIndex)
        driverID = try attributes.number(.driverID)
    }
}

/// How the RDMA subsystem is set up (`RDMA_NLDEV_CMD_SYS_GET`).
public struct RDMASystem: Sendable, Hashable {
    /// Whether every network namespace sees every device. If not, each device is in one namespace; nil where the
    /// kernel does not tell it (before Linux 5.2).
    public let sharesDevices: Bool?
    /// Whether registered memory survives fork(2) of itself; nil where the kernel does not tell it.
    public let copiesOnFork: Bool?
    /// Whether it tells of events itself (Linux 6.12).
    public let tellsEvents: Bool

    init(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        sharesDevices = try attributes.number(.namespaceMode, as: UInt8.self).map { $0 != 0 }
        copiesOnFork = try attributes.number(.copyOnFork, as: UInt8.self).map { $0 != 0 }
        tellsEvents = try attributes.number(.monitorMode, as: UInt8.self) ?? 0 != 0
    }
}

/// A counter of a port (`RDMA_NLDEV_CMD_STAT_GET`), which only grows, and wraps.
public struct HardwareCounter: Sendable, Hashable {
    /// Its name, as the driver gives it.
    public let name: String
    /// Its value; what it counts, the name says.
    public let value: UInt64

    /// The counters in an answer.
    static func all(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) -> [HardwareCounter] {
        var counters: [HardwareCounter] = []
        for entry in try Attributes(payload).entries(.counters, .counter) {
            guard let name = entry.text(.counterName) else { continue }
            counters.append(HardwareCounter(name: name, value: try entry.required(.counterValue, payload.startIndex)))
        }
        return counters
    }
}
