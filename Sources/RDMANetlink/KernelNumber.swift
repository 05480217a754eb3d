/// A number in a response of the kernel, with a name. The set is open: one that this package has no name for is carried
/// unchanged.
public protocol KernelNumber: RawRepresentable, Hashable, Sendable, CustomStringConvertible where RawValue == UInt8 {
    /// The names, by number.
    static var names: [UInt8: String] { get }
    /// The value with this number; every number is accepted.
    init(rawValue: UInt8)
}

extension KernelNumber {
    /// The name, as rdma(8) prints it; nil for a number without a name.
    public var name: String? { Self.names[rawValue] }
    /// The name, or `unknown (N)`.
    public var description: String { name ?? "unknown (\(rawValue))" }
}

/// The state of a port (`enum ib_port_state`; IBTA volume 1, 7.2.7).
public struct LinkState: KernelNumber {
    /// The number in the kernel.
    public let rawValue: UInt8
    /// The value with this number; every number is accepted.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// No traffic: the cable is unplugged, or the interface is down (`IB_PORT_DOWN`).
    public static let down = Self(rawValue: 1)
    /// Traffic can flow (`IB_PORT_ACTIVE`).
    public static let active = Self(rawValue: 4)
    /// The names, by number.
    public static let names: [UInt8: String] = [
        0: "NOP", 1: "DOWN", 2: "INIT", 3: "ARMED", 4: "ACTIVE", 5: "ACTIVE_DEFER",
    ]
}

/// The physical state of a port (`enum ib_port_phys_state`).
public struct PhysicalLinkState: KernelNumber {
    /// The number in the kernel.
    public let rawValue: UInt8
    /// The value with this number; every number is accepted.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The names, by number.
    public static let names: [UInt8: String] = [
        0: "NOP", 1: "SLEEP", 2: "POLLING", 3: "DISABLED", 4: "ARMED", 5: "LINK_UP", 6: "LINK_ERROR_RECOVER",
        7: "PHY_TEST",
    ]
}

/// The type of a queue pair (`enum ib_qp_type` of the kernel).
public struct QueuePairType: KernelNumber {
    /// The number in the kernel.
    public let rawValue: UInt8
    /// The value with this number; every number is accepted.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Reliable connection (`IB_QPT_RC`).
    public static let reliableConnection = Self(rawValue: 2)
    /// Unreliable connection (`IB_QPT_UC`).
    public static let unreliableConnection = Self(rawValue: 3)
    /// Unreliable datagram (`IB_QPT_UD`).
    public static let unreliableDatagram = Self(rawValue: 4)
    /// The names, by number.
    public static let names: [UInt8: String] = [
        0: "SMI", 1: "GSI", 2: "RC", 3: "UC", 4: "UD", 5: "RAW_IPV6", 6: "RAW_ETHERTYPE", 8: "RAW_PACKET",
        9: "XRC_INI", 10: "XRC_TGT", 0xff: "DRIVER",
    ]
}

/// The state of a queue pair (`enum ib_qp_state`; IBTA volume 1, 10.3.1).
public struct QueuePairStateNumber: KernelNumber {
    /// The number in the kernel.
    public let rawValue: UInt8
    /// The value with this number; every number is accepted.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The names, by number.
    public static let names: [UInt8: String] = [
        0: "RESET", 1: "INIT", 2: "RTR", 3: "RTS", 4: "SQD", 5: "SQE", 6: "ERR",
    ]
}

/// The state of an identifier of the connection manager (`enum rdma_cm_state` of the kernel).
public struct ConnectionState: KernelNumber {
    /// The number in the kernel.
    public let rawValue: UInt8
    /// The value with this number; every number is accepted.
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The identifier listens for connections (`RDMA_CM_LISTEN`).
    public static let listening = Self(rawValue: 8)
    /// The names, by number.
    public static let names: [UInt8: String] = [
        0: "IDLE", 1: "ADDR_QUERY", 2: "ADDR_RESOLVED", 3: "ROUTE_QUERY", 4: "ROUTE_RESOLVED", 5: "CONNECT",
        6: "DISCONNECT", 7: "ADDR_BOUND", 8: "LISTEN", 9: "DEVICE_REMOVAL", 10: "DESTROYING",
    ]
}
