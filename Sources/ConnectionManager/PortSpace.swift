import CRDMACM
import Verbs

/// The space that a port number of rdma_cm belongs to, and with it the type of the queue pairs (`enum
/// rdma_port_space`).
public struct PortSpace: OpenEnumeration {
    /// The number in rdma_cma.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Connections of RC queue pairs (`RDMA_PS_TCP`). Its ports are not those of TCP.
    public static var tcp: Self { Self(rawValue: 0x0106) }
    /// Datagrams of UD queue pairs, and multicast groups (`RDMA_PS_UDP`).
    public static var udp: Self { Self(rawValue: 0x0111) }
    /// Multicast groups that are shared with IP over InfiniBand (`RDMA_PS_IPOIB`).
    public static var ipoib: Self { Self(rawValue: 0x0002) }
    /// InfiniBand service identifiers (`RDMA_PS_IB`); needs InfiniBand addresses.
    public static var infiniBand: Self { Self(rawValue: 0x013f) }

    /// The name in rdma_cma.h; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0x0106: "TCP"
        case 0x0111: "UDP"
        case 0x0002: "IPOIB"
        case 0x013f: "IB"
        default: nil
        }
    }

    /// Whether its queue pairs are UD.
    public var isDatagram: Bool { self == .udp || self == .ipoib }

    var raw: rdma_port_space { rdma_port_space(rawValue: rawValue) }
}
