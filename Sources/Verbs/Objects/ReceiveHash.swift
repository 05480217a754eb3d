/// How received packets are spread over the work queues of an indirection table (struct ibv_rx_hash_conf).
public struct ReceiveHash: Hashable, Sendable {
    /// Header fields that are hashed.
    public var fields: Fields
    /// The key of the Toeplitz function.
    public var key: [UInt8]

    /// The Toeplitz hash of those fields under that key.
    public init(fields: Fields, key: [UInt8]) {
        self.fields = fields
        self.key = key
    }
}

extension ReceiveHash {
    /// Header fields that a receive hash takes (enum ibv_rx_hash_fields).
    @frozen public struct Fields: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// Source address of IPv4.
        @inlinable public static var sourceIPv4: Self { Self(rawValue: 1 << 0) }
        /// Destination address of IPv4.
        @inlinable public static var destinationIPv4: Self { Self(rawValue: 1 << 1) }
        /// Source address of IPv6.
        @inlinable public static var sourceIPv6: Self { Self(rawValue: 1 << 2) }
        /// Destination address of IPv6.
        @inlinable public static var destinationIPv6: Self { Self(rawValue: 1 << 3) }
        /// Source port of TCP.
        @inlinable public static var sourceTCPPort: Self { Self(rawValue: 1 << 4) }
        /// Destination port of TCP.
        @inlinable public static var destinationTCPPort: Self { Self(rawValue: 1 << 5) }
        /// Source port of UDP.
        @inlinable public static var sourceUDPPort: Self { Self(rawValue: 1 << 6) }
        /// Destination port of UDP.
        @inlinable public static var destinationUDPPort: Self { Self(rawValue: 1 << 7) }
        /// Security parameter index of IPsec.
        @inlinable public static var ipsecSPI: Self { Self(rawValue: 1 << 8) }
        /// The fields of the inner headers of a tunnel.
        @inlinable public static var inner: Self { Self(rawValue: 1 << 31) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "SRC_IPV4"),
                    (1, "DST_IPV4"),
                    (2, "SRC_IPV6"),
                    (3, "DST_IPV6"),
                    (4, "SRC_PORT_TCP"),
                    (5, "DST_PORT_TCP"),
                    (6, "SRC_PORT_UDP"),
                    (7, "DST_PORT_UDP"),
                    (8, "IPSEC_SPI"),
                    (31, "INNER"),
                ])
        }
    }
}
