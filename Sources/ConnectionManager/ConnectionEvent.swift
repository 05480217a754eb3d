import CRDMACM
import SystemPackage
import Verbs

/// An event of an identifier (`struct rdma_cm_event`; rdma_get_cm_event(3)).
public struct ConnectionEvent: Sendable {
    /// The identifier of the event (`rdma_cm_event.id`); of a connect request the new identifier, made for it.
    public let identifier: ConnectionIdentifier
    /// Of a connect request: the listening identifier (`rdma_cm_event.listen_id`).
    public let listener: ConnectionIdentifier?
    /// The kind of event (`rdma_cm_event.event`).
    public let type: ConnectionEventType
    /// The status (`rdma_cm_event.status`): 0; of errors a negative errno value; of `rejected` the peer's reason; of
    /// `unreachable` datagram services the status of the reply.
    public let status: Int32
    /// The peer's private data (`rdma_conn_param.private_data`), padded with zeroes to the transport's size.
    public let privateData: [UInt8]
    /// The parameters of the peer's REQ or REP (`rdma_cm_event.param.conn`), from the point of view of this side; nil
    /// for datagrams.
    public let connection: ConnectionParameters?
    /// The destination of datagrams (`rdma_cm_event.param.ud`) in `established` and in events of multicast groups; all
    /// zero in other events of datagrams; nil for connections.
    public let datagram: DatagramParameters?

    /// The status as an errno value.
    var errno: Errno { Errno(rawValue: Int32(clamping: status.magnitude)) }
}

/// A kind of event (`enum rdma_cm_event_type`).
public struct ConnectionEventType: OpenEnumeration {
    /// The number in rdma_cma.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The address is resolved, and the identifier bound to a device. `RDMA_CM_EVENT_ADDR_RESOLVED`.
    public static var addressResolved: Self { Self(rawValue: 0) }
    /// The address could not be resolved; the status is a negative errno value. `RDMA_CM_EVENT_ADDR_ERROR`.
    public static var addressError: Self { Self(rawValue: 1) }
    /// The route is resolved. `RDMA_CM_EVENT_ROUTE_RESOLVED`.
    public static var routeResolved: Self { Self(rawValue: 2) }
    /// The route could not be resolved; the status is a negative errno value. `RDMA_CM_EVENT_ROUTE_ERROR`.
    public static var routeError: Self { Self(rawValue: 3) }
    /// Listening side: a peer requests a connection, or looks up a datagram service. `RDMA_CM_EVENT_CONNECT_REQUEST`.
    public static var connectRequest: Self { Self(rawValue: 4) }
    /// Connecting side: the peer has accepted; `establish` completes the connection. `RDMA_CM_EVENT_CONNECT_RESPONSE`.
    public static var connectResponse: Self { Self(rawValue: 5) }
    /// The connection could not be made; the status is a negative errno value. `RDMA_CM_EVENT_CONNECT_ERROR`.
    public static var connectError: Self { Self(rawValue: 6) }
    /// The peer did not respond, or has no such datagram service. `RDMA_CM_EVENT_UNREACHABLE`.
    public static var unreachable: Self { Self(rawValue: 7) }
    /// The peer rejected the connection; the status is its reason. `RDMA_CM_EVENT_REJECTED`.
    public static var rejected: Self { Self(rawValue: 8) }
    /// The connection is established, or the datagram service was found. `RDMA_CM_EVENT_ESTABLISHED`.
    public static var established: Self { Self(rawValue: 9) }
    /// One or both sides have ended the connection. `RDMA_CM_EVENT_DISCONNECTED`.
    public static var disconnected: Self { Self(rawValue: 10) }
    /// The device is being removed; the kernel waits until its identifiers and queue pairs are destroyed.
    /// `RDMA_CM_EVENT_DEVICE_REMOVAL`.
    public static var deviceRemoval: Self { Self(rawValue: 11) }
    /// The multicast group is joined. `RDMA_CM_EVENT_MULTICAST_JOIN`.
    public static var multicastJoin: Self { Self(rawValue: 12) }
    /// The multicast group could not be joined, or was lost. `RDMA_CM_EVENT_MULTICAST_ERROR`.
    public static var multicastError: Self { Self(rawValue: 13) }
    /// The interface has another hardware address: the connection may not work any more. `RDMA_CM_EVENT_ADDR_CHANGE`.
    public static var addressChange: Self { Self(rawValue: 14) }
    /// No late packet can arrive any more: the queue pair may be used for another connection.
    /// `RDMA_CM_EVENT_TIMEWAIT_EXIT`.
    public static var timeWaitExit: Self { Self(rawValue: 15) }

    private static let names = [
        "ADDR_RESOLVED", "ADDR_ERROR", "ROUTE_RESOLVED", "ROUTE_ERROR", "CONNECT_REQUEST", "CONNECT_RESPONSE",
        "CONNECT_ERROR", "UNREACHABLE", "REJECTED", "ESTABLISHED", "DISCONNECTED", "DEVICE_REMOVAL",
        "MULTICAST_JOIN", "MULTICAST_ERROR", "ADDR_CHANGE", "TIMEWAIT_EXIT",
    ]

    /// The name in rdma_cma.h; nil for a number that this package does not know. It is used where C uses
    /// `rdma_event_str`.
    public var name: String? { Self.names.indices.contains(Int(rawValue)) ? Self.names[Int(rawValue)] : nil }
}

extension ConnectionEvent: CustomStringConvertible {
    /// Text such as `REJECTED (status 8) on identifier for 192.0.2.1:7471`.
    public var description: String {
        "\(type)" + (status == 0 ? "" : " (status \(status))") + " on \(identifier)"
    }
}

/// The destination of datagrams: a datagram service or a multicast group (`struct rdma_ud_param`).
public struct DatagramParameters: Hashable, Sendable {
    /// The path to it (`rdma_ud_param.ah_attr`).
    public let path: AddressVector
    /// Number of its queue pair (`rdma_ud_param.qp_num`): 24 bits; of a group 0xffffff.
    public let queuePairNumber: UInt32
    /// The Q_Key that datagrams must carry (`rdma_ud_param.qkey`).
    public let qkey: UInt32

    init(path: AddressVector, queuePairNumber: UInt32, qkey: UInt32) {
        self.path = path
        self.queuePairNumber = queuePairNumber
        self.qkey = qkey
    }

    /// All zero.
    init() { self.init(rdma_ud_param()) }

    init(_ raw: rdma_ud_param) {
        path = AddressVector(raw.ah_attr)
        queuePairNumber = raw.qp_num
        qkey = raw.qkey
    }

    /// The multicast group, to attach queue pairs to: ibv_attach_mcast(3).
    public var group: MulticastGroup { MulticastGroup(gid: path.route?.gid ?? .zero, lid: path.lid) }
}

extension ProtectionDomain {
    /// Makes the address handle for sending datagrams to a service or a group: ibv_create_ah(3).
    ///
    /// - Throws: The errors of `makeAddressHandle`.
    public func makeDestination(_ peer: DatagramParameters) throws(VerbsError) -> DatagramDestination {
        DatagramDestination(
            handle: try makeAddressHandle(peer.path), queuePairNumber: peer.queuePairNumber, qkey: peer.qkey)
    }
}
