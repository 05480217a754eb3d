import CRDMACM
import Verbs

/// What a port number of rdma_cm belongs to, and with it the service of the queue pairs (enum rdma_port_space).
public struct PortSpace: OpenEnumeration {
    /// The number in rdma_cma.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Connections of RC queue pairs. Its ports are not those of TCP.
    public static var tcp: Self { Self(rawValue: 0x0106) }
    /// Datagrams of UD queue pairs, and multicast groups.
    public static var udp: Self { Self(rawValue: 0x0111) }
    /// Multicast groups that IP over InfiniBand is in as well.
    public static var ipoib: Self { Self(rawValue: 0x0002) }
    /// InfiniBand service identifiers; needs addresses of InfiniBand.
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
