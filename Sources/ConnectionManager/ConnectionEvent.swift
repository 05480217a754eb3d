import CRDMACM
import SystemPackage
import Verbs

/// Something that happened to an identifier (rdma_get_cm_event(3)).
public struct ConnectionEvent: Sendable {
    /// What happened (enum rdma_cm_event_type).
    public struct Kind: OpenEnumeration {
        /// The number in rdma_cma.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// The address is resolved, and the identifier bound to a device.
        public static var addressResolved: Self { Self(rawValue: 0) }
        /// The address could not be resolved.
        public static var addressError: Self { Self(rawValue: 1) }
        /// The route is resolved.
        public static var routeResolved: Self { Self(rawValue: 2) }
        /// The route could not be resolved.
        public static var routeError: Self { Self(rawValue: 3) }
        /// Listening side: a peer wants a connection, or looks for a datagram service.
        public static var connectRequest: Self { Self(rawValue: 4) }
        /// Active side: the peer has accepted; `establish` completes the connection.
        public static var connectResponse: Self { Self(rawValue: 5) }
        /// The connection could not be made.
        public static var connectError: Self { Self(rawValue: 6) }
        /// The peer did not answer, or has no such datagram service.
        public static var unreachable: Self { Self(rawValue: 7) }
        /// The peer does not want the connection.
        public static var rejected: Self { Self(rawValue: 8) }
        /// The connection stands, or the datagram service was found.
        public static var established: Self { Self(rawValue: 9) }
        /// The peer has ended the connection, or both sides have.
        public static var disconnected: Self { Self(rawValue: 10) }
        /// The device is going away, and waits until its identifiers and queue pairs have gone.
        public static var deviceRemoval: Self { Self(rawValue: 11) }
        /// The group is joined.
        public static var multicastJoin: Self { Self(rawValue: 12) }
        /// The group could not be joined, or was lost.
        public static var multicastError: Self { Self(rawValue: 13) }
        /// The interface has another hardware address now: the connection may not work any more.
        public static var addressChange: Self { Self(rawValue: 14) }
        /// No late packet can come any more: the queue pair may be used for another connection.
        public static var timeWaitExit: Self { Self(rawValue: 15) }

        private static let names = [
            "ADDR_RESOLVED", "ADDR_ERROR", "ROUTE_RESOLVED", "ROUTE_ERROR", "CONNECT_REQUEST", "CONNECT_RESPONSE",
            "CONNECT_ERROR", "UNREACHABLE", "REJECTED", "ESTABLISHED", "DISCONNECTED", "DEVICE_REMOVAL",
            "MULTICAST_JOIN", "MULTICAST_ERROR", "ADDR_CHANGE", "TIMEWAIT_EXIT",
        ]

        /// The name in rdma_cma.h; nil for a number that this package does not know.
        public var name: String? { Self.names.indices.contains(Int(rawValue)) ? Self.names[Int(rawValue)] : nil }
    }

    /// To what it happened. Of a connect request, the new identifier, made for it.
    public let identifier: ConnectionIdentifier
    /// Of a connect request: who listened.
    public let listener: ConnectionIdentifier?
    /// What happened.
    public let kind: Kind
    /// 0; of errors a negative errno value; of `rejected` the peer's reason; of `unreachable` datagram services the
    /// status of the reply.
    public let status: Int32
    /// What the peer sent along, filled up with zeroes to the transport's size.
    public let privateData: [UInt8]
    /// What the peer asks for or answers, seen from this side; nil for datagrams.
    public let connection: ConnectionParameters?
    /// The peer's queue pair, or the group's, and the way there, of `established` and of events of groups; all zero in
    /// other events of datagrams; nil for connections.
    public let datagram: DatagramParameters?

    /// The status as an errno value.
    var errno: Errno { Errno(rawValue: abs(status)) }
}

extension ConnectionEvent: CustomStringConvertible {
    /// Such as `REJECTED (status 8) on identifier for 192.0.2.1:7471`.
    public var description: String {
        "\(kind)" + (status == 0 ? "" : " (status \(status))") + " on \(identifier)"
    }
}

/// A datagram service or a multicast group: where to send.
public struct DatagramParameters: Hashable, Sendable {
    /// The way there.
    public let path: AddressVector
    /// Number of the queue pair there: 24 bits; of a group 0xffffff.
    public let queuePairNumber: UInt32
    /// The key that datagrams must carry.
    public let queueKey: UInt32

    init(_ raw: rdma_ud_param) {
        path = AddressVector(raw.ah_attr)
        queuePairNumber = raw.qp_num
        queueKey = raw.qkey
    }

    /// The group that datagrams go to, to be attached to.
    public var group: MulticastGroup { MulticastGroup(gid: path.route?.gid ?? .zero, lid: path.lid) }
}

extension ProtectionDomain {
    /// Makes ready to send datagrams to a service or a group.
    ///
    /// - Throws: as `makeAddressHandle`.
    public func makeDestination(_ peer: DatagramParameters) throws(VerbsError) -> DatagramDestination {
        DatagramDestination(
            handle: try makeAddressHandle(peer.path), queuePairNumber: peer.queuePairNumber, queueKey: peer.queueKey)
    }
}
