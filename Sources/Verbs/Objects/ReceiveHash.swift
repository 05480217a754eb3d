import CIBVerbs

/// The hash that distributes received packets over the work queues of an indirection table (struct ibv_rx_hash_conf).
public struct ReceiveHash: Hashable, Sendable {
    /// Header fields that are hashed (`rx_hash_fields_mask`).
    public var fields: Fields
    /// The key of the Toeplitz function (`rx_hash_key`).
    public var key: [UInt8]

    /// The Toeplitz hash of those fields under that key.
    public init(fields: Fields, key: [UInt8]) {
        self.fields = fields
        self.key = key
    }
}

extension ReceiveHash {
    /// Header fields that a receive hash uses (enum ibv_rx_hash_fields).
    @frozen public struct Fields: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// Source address of IPv4 (`IBV_RX_HASH_SRC_IPV4`).
        @inlinable public static var sourceIPv4: Self { Self(rawValue: UInt64(IBV_RX_HASH_SRC_IPV4.rawValue)) }
        /// Destination address of IPv4 (`IBV_RX_HASH_DST_IPV4`).
        @inlinable public static var destinationIPv4: Self { Self(rawValue: UInt64(IBV_RX_HASH_DST_IPV4.rawValue)) }
        /// Source address of IPv6 (`IBV_RX_HASH_SRC_IPV6`).
        @inlinable public static var sourceIPv6: Self { Self(rawValue: UInt64(IBV_RX_HASH_SRC_IPV6.rawValue)) }
        /// Destination address of IPv6 (`IBV_RX_HASH_DST_IPV6`).
        @inlinable public static var destinationIPv6: Self { Self(rawValue: UInt64(IBV_RX_HASH_DST_IPV6.rawValue)) }
        /// Source port of TCP (`IBV_RX_HASH_SRC_PORT_TCP`).
        @inlinable public static var sourceTCPPort: Self { Self(rawValue: UInt64(IBV_RX_HASH_SRC_PORT_TCP.rawValue)) }
        /// Destination port of TCP (`IBV_RX_HASH_DST_PORT_TCP`).
        @inlinable public static var destinationTCPPort: Self {
            Self(rawValue: UInt64(IBV_RX_HASH_DST_PORT_TCP.rawValue))
        }
        /// Source port of UDP (`IBV_RX_HASH_SRC_PORT_UDP`).
        @inlinable public static var sourceUDPPort: Self { Self(rawValue: UInt64(IBV_RX_HASH_SRC_PORT_UDP.rawValue)) }
        /// Destination port of UDP (`IBV_RX_HASH_DST_PORT_UDP`).
        @inlinable public static var destinationUDPPort: Self {
            Self(rawValue: UInt64(IBV_RX_HASH_DST_PORT_UDP.rawValue))
        }
        /// Security parameter index of IPsec (`IBV_RX_HASH_IPSEC_SPI`).
        @inlinable public static var ipsecSPI: Self { Self(rawValue: UInt64(IBV_RX_HASH_IPSEC_SPI.rawValue)) }
        /// The fields of the inner headers of a tunnel (`IBV_RX_HASH_INNER`).
        @inlinable public static var inner: Self { Self(rawValue: UInt64(IBV_RX_HASH_INNER.rawValue)) }

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
