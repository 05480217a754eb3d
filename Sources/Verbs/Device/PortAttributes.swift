import CIBVerbs

/// The attributes of a port (`struct ibv_port_attr`, ibv_query_port(3)).
public struct PortAttributes: @unchecked Sendable {
    // Unchecked: the struct of verbs.h holds numbers only.

    /// The port, from 1.
    public let number: UInt8
    /// The struct of verbs.h.
    public let raw: ibv_port_attr

    init(number: UInt8, _ raw: ibv_port_attr) {
        self.number = number
        self.raw = raw
    }
}

extension PortAttributes {
    /// Logical state (`ibv_port_attr.state`).
    public var state: PortState { PortState(rawValue: raw.state.rawValue) }
    /// Largest MTU that the port can be set to (`ibv_port_attr.max_mtu`).
    public var maxMTU: MTU { MTU(rawValue: raw.max_mtu.rawValue) }
    /// MTU in force (`ibv_port_attr.active_mtu`).
    public var activeMTU: MTU { MTU(rawValue: raw.active_mtu.rawValue) }
    /// Length of the GID table; entries may be empty (`ibv_port_attr.gid_tbl_len`).
    public var gidTableLength: Int { Int(raw.gid_tbl_len) }
    /// Capabilities (`ibv_port_attr.port_cap_flags`, enum ibv_port_cap_flags), such as `IBV_PORT_SM`, `IBV_PORT_CM_SUP`
    /// and `IBV_PORT_IP_BASED_GIDS`.
    public var capabilities: UInt32 { raw.port_cap_flags }
    /// More capabilities (`ibv_port_attr.port_cap_flags2`, enum ibv_port_cap_flags2).
    public var capabilities2: UInt16 { raw.port_cap_flags2 }
    /// Largest message, in bytes (`ibv_port_attr.max_msg_sz`).
    public var maxMessageSize: UInt32 { raw.max_msg_sz }
    /// Number of P_Key violations (`ibv_port_attr.bad_pkey_cntr`).
    public var badPKeyCount: UInt32 { raw.bad_pkey_cntr }
    /// Number of Q_Key violations (`ibv_port_attr.qkey_viol_cntr`).
    public var badQKeyCount: UInt32 { raw.qkey_viol_cntr }
    /// Length of the P_Key table (`ibv_port_attr.pkey_tbl_len`).
    public var pkeyTableLength: Int { Int(raw.pkey_tbl_len) }
    /// Base LID; 0 on Ethernet (`ibv_port_attr.lid`).
    public var lid: UInt16 { raw.lid }
    /// LID of the subnet manager (`ibv_port_attr.sm_lid`).
    public var subnetManagerLID: UInt16 { raw.sm_lid }
    /// LID mask control: the number of low bits of the LID that are path bits (`ibv_port_attr.lmc`).
    public var lidMaskControl: UInt8 { raw.lmc }
    /// Code of the number of virtual lanes (IBTA volume 1, 14.2.5.6) (`ibv_port_attr.max_vl_num`).
    public var maxVirtualLanes: UInt8 { raw.max_vl_num }
    /// Service level to the subnet manager (`ibv_port_attr.sm_sl`).
    public var subnetManagerServiceLevel: UInt8 { raw.sm_sl }
    /// Longest propagation delay in the subnet: 4.096 µs times 2 to this power (`ibv_port_attr.subnet_timeout`).
    public var subnetTimeout: UInt8 { raw.subnet_timeout }
    /// The initialisation that the subnet manager performed (`ibv_port_attr.init_type_reply`).
    public var initTypeReply: UInt8 { raw.init_type_reply }
    /// Code of the link width in force (`ibv_port_attr.active_width`).
    public var activeWidth: UInt8 { raw.active_width }
    /// Code of the link speed in force (`ibv_port_attr.active_speed`).
    public var activeSpeed: UInt8 { raw.active_speed }
    /// Physical state (`ibv_port_attr.phys_state`).
    public var physicalState: PhysicalPortState { PhysicalPortState(rawValue: raw.phys_state) }
    /// The link layer (`ibv_port_attr.link_layer`).
    public var linkLayer: LinkLayer { LinkLayer(rawValue: raw.link_layer) }
    /// Flags (IBV_QPF_*) (`ibv_port_attr.flags`).
    public var flags: UInt8 { raw.flags }
    /// Whether every packet needs a global route header (IBV_QPF_GRH_REQUIRED) (`ibv_port_attr.flags`).
    public var requiresGlobalRoute: Bool { raw.flags & 1 != 0 }
    /// Number of lanes of the link width in force (IBTA volume 1, 14.2.5.6); nil for an unknown code.
    public var laneCount: Int? { [1: 1, 2: 4, 4: 8, 8: 12, 16: 2][activeWidth] }
    /// Gbit/s of one lane at the link speed in force; nil for an unknown code.
    public var laneRate: Double? { [1: 2.5, 2: 5, 4: 10, 8: 10, 16: 14, 32: 25, 64: 50, 128: 100][activeSpeed] }
}
