/// One spec of a flow rule: a header to match, or an action (`struct ibv_flow_spec`). A header has a value and a mask
/// (`val`, `mask`); the bits that the mask sets are compared. All numbers are in host byte order.
public struct FlowMatch: Sendable {
    /// The type (enum ibv_flow_spec_type).
    let type: UInt32
    /// The bytes after type and size in the layout of verbs.h: values, then masks.
    let body: [UInt8]
    /// The object that must stay alive as long as the flow.
    var keeps: Counters?

    private init(_ type: UInt32, _ body: [UInt8], inner: Bool = false, keeps: Counters? = nil) {
        self.type = inner ? type | 0x100 : type
        self.body = body
        self.keeps = keeps
    }

    /// An Ethernet header (`struct ibv_flow_eth_filter`). Addresses are six bytes in the order of the header.
    public struct Ethernet: Hashable, Sendable {
        /// Destination address (`dst_mac`).
        public var destination: [UInt8] = .init(repeating: 0, count: 6)
        /// Source address (`src_mac`).
        public var source: [UInt8] = .init(repeating: 0, count: 6)
        /// EtherType (`ether_type`).
        public var etherType: UInt16 = 0
        /// VLAN tag (`vlan_tag`): priority 3 bits, CFI 1, VLAN 12.
        public var vlan: UInt16 = 0

        /// All zero: as a mask, nothing counts.
        public init() {}

        var bytes: [UInt8] {
            Array((destination + [UInt8](repeating: 0, count: 6)).prefix(6))
                + Array((source + [UInt8](repeating: 0, count: 6)).prefix(6)) + big(etherType) + big(vlan)
        }
    }

    /// An IPv4 header (`struct ibv_flow_ipv4_ext_filter`; its first two fields are those of `ibv_flow_ipv4_filter`).
    public struct IPv4: Hashable, Sendable {
        /// Source address (`src_ip`).
        public var source: UInt32 = 0
        /// Destination address (`dst_ip`).
        public var destination: UInt32 = 0
        /// Protocol of the payload (`proto`).
        public var nextProtocol: UInt8 = 0
        /// Type of service (`tos`).
        public var typeOfService: UInt8 = 0
        /// Time to live (`ttl`).
        public var timeToLive: UInt8 = 0
        /// Flags, the upper 3 bits of the fragment field.
        public var flags: UInt8 = 0

        /// All zero: as a mask, nothing counts.
        public init() {}

        var bytes: [UInt8] { big(source) + big(destination) + [nextProtocol, typeOfService, timeToLive, flags] }
    }

    /// An IPv6 header (`struct ibv_flow_ipv6_filter`).
    public struct IPv6: Hashable, Sendable {
        /// Source address.
        public var source = GID.zero
        /// Destination address.
        public var destination = GID.zero
        /// Flow label, 20 bits.
        public var flowLabel: UInt32 = 0
        /// Next header (`next_hdr`).
        public var nextHeader: UInt8 = 0
        /// Traffic class.
        public var trafficClass: UInt8 = 0
        /// Hop limit.
        public var hopLimit: UInt8 = 0

        /// All zero: as a mask, nothing counts.
        public init() {}

        var bytes: [UInt8] {
            source.bytes + destination.bytes + big(flowLabel) + [nextHeader, trafficClass, hopLimit, 0]
        }
    }

    /// Ports of TCP or UDP (`struct ibv_flow_tcp_udp_filter`).
    public struct Ports: Hashable, Sendable {
        /// Destination port (`dst_port`).
        public var destination: UInt16 = 0
        /// Source port (`src_port`).
        public var source: UInt16 = 0

        /// All zero: as a mask, nothing counts.
        public init() {}

        var bytes: [UInt8] { big(destination) + big(source) }
    }

    /// A GRE header (`struct ibv_flow_gre_filter`).
    public struct GRE: Hashable, Sendable {
        /// Bits 0 to 15: checksum, key and sequence number present, version (`c_ks_res0_ver`).
        public var flagsAndVersion: UInt16 = 0
        /// Protocol of the payload (`protocol`).
        public var nextProtocol: UInt16 = 0
        /// Key.
        public var key: UInt32 = 0

        /// All zero: as a mask, nothing counts.
        public init() {}

        var bytes: [UInt8] { big(flagsAndVersion) + big(nextProtocol) + big(key) }
    }

    /// Packets with that Ethernet header (`IBV_FLOW_SPEC_ETH`); with `inner`, within a tunnel (`IBV_FLOW_SPEC_INNER`).
    public static func ethernet(_ value: Ethernet, mask: Ethernet, inner: Bool = false) -> FlowMatch {
        FlowMatch(0x20, value.bytes + mask.bytes, inner: inner)
    }

    /// Packets with that IPv4 header (`IBV_FLOW_SPEC_IPV4_EXT`); with `inner`, within a tunnel.
    public static func ipv4(_ value: IPv4, mask: IPv4, inner: Bool = false) -> FlowMatch {
        // IBV_FLOW_SPEC_IPV4_EXT: IBV_FLOW_SPEC_IPV4 is the same without the last four fields.
        FlowMatch(0x32, value.bytes + mask.bytes, inner: inner)
    }

    /// Packets with that IPv6 header (`IBV_FLOW_SPEC_IPV6`); with `inner`, within a tunnel.
    public static func ipv6(_ value: IPv6, mask: IPv6, inner: Bool = false) -> FlowMatch {
        FlowMatch(0x31, value.bytes + mask.bytes, inner: inner)
    }

    /// Packets with those TCP ports (`IBV_FLOW_SPEC_TCP`); with `inner`, within a tunnel.
    public static func tcp(_ value: Ports, mask: Ports, inner: Bool = false) -> FlowMatch {
        FlowMatch(0x40, value.bytes + mask.bytes, inner: inner)
    }

    /// Packets with those UDP ports (`IBV_FLOW_SPEC_UDP`); with `inner`, within a tunnel.
    public static func udp(_ value: Ports, mask: Ports, inner: Bool = false) -> FlowMatch {
        FlowMatch(0x41, value.bytes + mask.bytes, inner: inner)
    }

    /// IPsec packets with that security parameter index and sequence number (`IBV_FLOW_SPEC_ESP`, `struct
    /// ibv_flow_esp_filter`).
    public static func esp(spi: UInt32, sequence: UInt32, spiMask: UInt32, sequenceMask: UInt32) -> FlowMatch {
        FlowMatch(0x34, big(spi) + big(sequence) + big(spiMask) + big(sequenceMask))
    }

    /// VXLAN packets with that network identifier, 24 bits (`IBV_FLOW_SPEC_VXLAN_TUNNEL`,
    /// `ibv_flow_tunnel_filter.tunnel_id`).
    public static func vxlan(identifier: UInt32, mask: UInt32 = 0xff_ffff) -> FlowMatch {
        FlowMatch(0x50, big(identifier) + big(mask))
    }

    /// GRE packets with that header (`IBV_FLOW_SPEC_GRE`).
    public static func gre(_ value: GRE, mask: GRE) -> FlowMatch { FlowMatch(0x51, value.bytes + mask.bytes) }

    /// MPLS packets with that label entry (`IBV_FLOW_SPEC_MPLS`): label 20 bits, traffic class 3, bottom of stack 1,
    /// time to live 8.
    public static func mpls(label: UInt32, mask: UInt32) -> FlowMatch { FlowMatch(0x60, big(label) + big(mask)) }

    /// Action: completions have this tag (`IBV_FLOW_SPEC_ACTION_TAG`, `ibv_flow_spec_action_tag.tag_id`;
    /// `ExtendedCompletion.flowTag`).
    public static func tag(_ tag: UInt32) -> FlowMatch { FlowMatch(0x1000, host(tag)) }

    /// Action: the packets are dropped (`IBV_FLOW_SPEC_ACTION_DROP`).
    public static var drop: FlowMatch { FlowMatch(0x1001, []) }

    /// Action: the packets are counted (`IBV_FLOW_SPEC_ACTION_COUNT`).
    public static func count(_ counters: Counters) -> FlowMatch {
        FlowMatch(0x1003, host(UInt(bitPattern: counters.raw)), keeps: counters)
    }

    /// The spec in the layout of verbs.h: type (4 bytes), size (2), then `body` at its alignment.
    var bytes: [UInt8] {
        // The body starts at offset 8 for a pointer or 4-byte numbers, at 6 for MAC addresses or 2-byte ports.
        let offset: Int
        switch type & ~0x100 {
        case 0x20: offset = 6
        case 0x40, 0x41: offset = 6
        default: offset = 8
        }
        var size = offset + body.count
        if body.isEmpty { size = 8 }
        size = (size + 3) / 4 * 4
        if keeps != nil { size = (size + 7) / 8 * 8 }
        var bytes = host(type) + host(UInt16(size))
        bytes += [UInt8](repeating: 0, count: offset - bytes.count) + body
        return bytes + [UInt8](repeating: 0, count: size - bytes.count)
    }
}

/// Bytes in network order.
private func big(_ value: some FixedWidthInteger) -> [UInt8] { host(value.bigEndian) }

/// Bytes in host order.
private func host(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }
