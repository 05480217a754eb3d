import SystemPackage

/// An address of this device: a port and an entry of its GID table.
public struct PortAddress: Hashable, Sendable, CustomStringConvertible {
    /// The port, from 1.
    public let port: UInt8
    /// The GID index: index of the entry in the port's GID table.
    public let gidIndex: UInt8
    /// The GID of that entry.
    public let gid: GID
    /// The RoCE version of packets that are sent from the GID (`ibv_gid_entry.gid_type`).
    public let type: GIDType
    /// LID of the port; 0 on Ethernet.
    public let lid: UInt16
    /// MTU of the port.
    public let mtu: MTU
    /// The link layer of the port (`ibv_port_attr.link_layer`).
    public let linkLayer: LinkLayer
    /// Whether every packet needs a global route header (`IBV_QPF_GRH_REQUIRED`, and on Ethernet always).
    public let requiresGlobalRoute: Bool

    init(_ entry: GIDEntry, _ port: PortAttributes) {
        self.port = port.number
        gidIndex = UInt8(clamping: entry.index)
        gid = entry.gid
        type = entry.type
        lid = port.lid
        mtu = port.activeMTU
        linkLayer = port.linkLayer
        requiresGlobalRoute = port.requiresGlobalRoute || port.linkLayer == .ethernet
    }

    /// Text such as `port 1, GID ::ffff:192.0.2.1 (RoCE v2, index 3)`.
    public var description: String {
        linkLayer == .ethernet ? "port \(port), GID \(gid) (\(type), index \(gidIndex))" : "port \(port), LID \(lid)"
    }

    /// Whether `left` comes before `right`: RoCE v2 is routable and v1 is not; an IPv4 or global address is valid
    /// beyond its link. On InfiniBand the first entry is the port's own GID.
    static func isBetter(_ left: PortAddress, _ right: PortAddress) -> Bool {
        (left.port, left.rank, left.gidIndex) < (right.port, right.rank, right.gidIndex)
    }

    private var rank: Int {
        guard linkLayer == .ethernet else { return 0 }
        let version = type == .roceV2 ? 0 : 10
        if gid.isIPv4Mapped { return version }
        return gid.isLinkLocal ? version + 2 : version + 1
    }
}

extension Context {
    /// The addresses of all active ports, the best first: lower ports before higher ones; on Ethernet RoCE v2
    /// before v1, and an IPv4 address before a global IPv6 one before a link-local one. After
    /// ``Device/openFirst(reaching:from:)``, the address by which that peer is reached goes before all others.
    public func addresses() throws(VerbsError) -> [PortAddress] {
        var addresses: [PortAddress] = []
        for port in try ports() where port.state == .active || port.state == .activeDefer {
            for index in 0..<port.gidTableLength {
                do throws(VerbsError) {
                    let entry = try gid(port: port.number, index: index)
                    if !entry.gid.isZero { addresses.append(PortAddress(entry, port)) }
                } catch  where error.errno == .noData {
                    continue  // An empty entry.
                }
            }
        }
        return addresses.sorted { left, right in
            let preferred = (left.gid == preferredGID, right.gid == preferredGID)
            return preferred.0 == preferred.1 ? PortAddress.isBetter(left, right) : preferred.0
        }
    }

    /// The first of `addresses()`, of any port or of the port `port`.
    ///
    /// - Throws: `ENETDOWN` when no port is active or has a GID.
    public func address(port: UInt8? = nil) throws(VerbsError) -> PortAddress {
        let candidates = try addresses()
        guard let address = candidates.first(where: { port == nil || $0.port == port }) else {
            throw VerbsError(
                .queryGID, errno: .networkDown, object: port.map { object("port", $0) } ?? object("device"),
                hint: "no port is active and has a GID: see `verbs info`; on Ethernet the interface must be up and"
                    + " have an address")
        }
        return address
    }
}
