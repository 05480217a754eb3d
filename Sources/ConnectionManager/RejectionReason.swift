import Verbs

/// The reason of a rejection (`rdma_cm_event.status` of `RDMA_CM_EVENT_REJECTED`; IBTA volume 1, 12.6.7.2).
///
/// On iWARP (MPA, RFC 5044) there are no reason codes: the value is `refused` or `reset`, and drivers differ in which of
/// them a rejection by the listening program is.
public struct RejectionReason: OpenEnumeration {
    /// The number in the reject message; on iWARP a negative errno value.
    public let rawValue: Int32
    /// The value that stands for that number; every number is accepted.
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// The peer has no queue pair left.
    public static var noQueuePair: Self { Self(rawValue: 1) }
    /// The peer has no room for another connection.
    public static var noResources: Self { Self(rawValue: 3) }
    /// The peer waited too long for a reply.
    public static var timeout: Self { Self(rawValue: 4) }
    /// No program listens at that port (invalid service ID).
    public static var invalidServiceID: Self { Self(rawValue: 8) }
    /// The transport service is not one that the peer has there.
    public static var invalidTransport: Self { Self(rawValue: 9) }
    /// An earlier connection of the queue pair is not over (stale connection).
    public static var staleConnection: Self { Self(rawValue: 10) }
    /// The listening program rejected the connection; its private data may state the reason.
    public static var consumer: Self { Self(rawValue: 28) }
    /// The enhanced connection options of the two sides do not fit.
    public static var vendorOptionNotSupported: Self { Self(rawValue: 35) }
    /// iWARP: no program listens at that TCP port, or the listening program rejected the connection (`ECONNREFUSED`).
    public static var refused: Self { Self(rawValue: -111) }
    /// iWARP: the listening program rejected the connection, or the TCP connection was reset (`ECONNRESET`).
    public static var reset: Self { Self(rawValue: -104) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        if self == .refused { return "connection refused" }
        if self == .reset { return "rejected by the consumer, or connection reset" }
        return RejectionReason.names.indices.contains(Int(rawValue)) ? RejectionReason.names[Int(rawValue)] : nil
    }

    /// By number.
    private static let names: [String?] = [
        nil, "no queue pair available", "no end-to-end context available", "no resources available", "timeout",
        "unsupported request", "invalid communication identifier", "invalid communication instance",
        "invalid service identifier", "invalid transport service type", "stale connection",
        "reliable datagram context does not exist", "primary remote port GID rejected",
        "primary remote port LID rejected", "invalid primary service level", "invalid primary traffic class",
        "invalid primary hop limit", "invalid primary packet rate", "alternate remote port GID rejected",
        "alternate remote port LID rejected", "invalid alternate service level", "invalid alternate traffic class",
        "invalid alternate hop limit", "invalid alternate packet rate", "port or connection manager redirected",
        "port redirected", "invalid path MTU", "insufficient responder resources", "rejected by the consumer",
        "RNR retry count rejected", "duplicate local communication identifier", "invalid class version",
        "invalid flow label", "invalid alternate flow label", nil,
        "vendor option not supported",
    ]
}

/// The status of a datagram service look-up that failed (`rdma_cm_event.status` of `RDMA_CM_EVENT_UNREACHABLE`;
/// SIDR_REP, IBTA volume 1, 12.11.2).
public struct DatagramServiceStatus: OpenEnumeration {
    /// The number in the reply.
    public let rawValue: Int32
    /// The value that stands for that number; every number is accepted.
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// No program listens at that port (service ID not supported).
    public static var unsupportedServiceID: Self { Self(rawValue: 1) }
    /// The listening program rejected the look-up; its private data may state the reason.
    public static var rejected: Self { Self(rawValue: 2) }
    /// The peer has no queue pair left.
    public static var noQueuePair: Self { Self(rawValue: 3) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0: "valid"
        case 1: "service identifier not supported"
        case 2: "rejected by the service provider"
        case 3: "no queue pair available"
        case 4: "redirected"
        case 5: "version not supported"
        default: nil
        }
    }
}
