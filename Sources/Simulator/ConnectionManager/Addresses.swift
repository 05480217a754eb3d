import CSimulator

/// The address families of rdma_cm.
enum Family {
    static let ip4 = UInt16(SIM_AF_INET)
    static let ip6 = UInt16(SIM_AF_INET6)
    static let ib = UInt16(SIM_AF_IB)
}

extension sim_cm_address {
    /// The address as a GID, in network byte order (`rdma_ip2gid` of the kernel).
    var gid: (UInt64, UInt64) { address }

    /// The address without a host: 0.0.0.0/8, ::.
    var isAny: Bool {
        let low = UInt64(bigEndian: address.1)
        return family == Family.ip4 ? UInt32(truncatingIfNeeded: low) >> 24 == 0 : address == (0, 0)
    }

    /// 127.0.0.0/8, ::1.
    var isLoopback: Bool {
        let low = UInt64(bigEndian: address.1)
        return family == Family.ip4
            ? UInt32(truncatingIfNeeded: low) >> 24 == 127 : address.0 == 0 && low == 1
    }

    /// The kernel's `cma_any_addr`: an address that belongs to no device in particular.
    var isWildcard: Bool { isAny || isLoopback }

    /// fe80::/10.
    var isLinkLocal: Bool { family == Family.ip6 && UInt64(bigEndian: address.0) >> 54 == 0xFE80 >> 6 }

    /// 224.0.0.0/4, ff00::/8.
    var isMulticast: Bool {
        family == Family.ip4
            ? UInt32(truncatingIfNeeded: UInt64(bigEndian: address.1)) >> 28 == 14
            : UInt64(bigEndian: address.0) >> 56 == 0xFF
    }

    /// The kernel's `cma_addr_cmp`: the same host, whatever the port.
    func isSameHost(as other: sim_cm_address) -> Bool {
        family == other.family && address == other.address && (!isLinkLocal || scope == other.scope)
    }

    /// 0.0.0.0 or :: and port 0.
    static func any(_ family: UInt16) -> sim_cm_address {
        var address = sim_cm_address()
        address.family = family
        if family == Family.ip4 { address.address.1 = UInt64(0xFFFF_0000_0000).bigEndian }
        return address
    }

    /// 127.0.0.1 or ::1, and this address's port.
    var loopback: sim_cm_address {
        var address = self
        address.address =
            family == Family.ip4
            ? (0, UInt64(0xFFFF_7F00_0001).bigEndian) : (0, UInt64(1).bigEndian)
        return address
    }

    /// Sets the port; of AF_IB in the service ID.
    mutating func set(port: UInt16) {
        self.port = port
        if family == Family.ib {
            service = service & service_mask & ~0xFFFF | UInt64(port)
            service_mask = .max
        }
    }

    /// Reads a socket address of a command. Nil when its family is not supported.
    init?(_ bytes: UnsafeRawBufferPointer) {
        self.init()
        guard sim_cm_read_address(bytes.baseAddress, bytes.count, &self) else { return nil }
    }

    /// Whether these are the bytes of a valid address of a message.
    var isValid: Bool {
        family == 0 || sim_cm_address_size(family) > 0
    }
}

/// The port spaces (`enum rdma_ucm_port_space`).
enum PortSpace {
    static let ipoib = UInt16(RDMA_PS_IPOIB.rawValue)
    static let ib = UInt16(RDMA_PS_IB.rawValue)
    static let tcp = UInt16(RDMA_PS_TCP.rawValue)
    static let udp = UInt16(RDMA_PS_UDP.rawValue)
}

extension Device {
    /// The port's IPv4 address, as a GID: 198.18.0.0 plus the LID.
    var addressGID: (UInt64, UInt64) { (0, (Device.firstAddress + UInt64(lid)).bigEndian) }

    /// Whether an address that is no wildcard is the port's.
    func has(_ address: sim_cm_address) -> Bool {
        switch address.family {
        case Family.ip4: address.gid == addressGID
        case Family.ib: !options.isEthernet && address.gid == gid(0)
        default: !isIWARP && address.isLinkLocal && address.gid == linkLocalGID
        }
    }

    /// The LID of the port that has this address; 0: none that can exist.
    func lid(of address: sim_cm_address) -> UInt16 {
        let low = UInt64(bigEndian: address.address.1)
        switch address.family {
        case Family.ip4: return UInt16(exactly: low &- Device.firstAddress) ?? 0
        case Family.ib where options.isEthernet: return 0
        default:
            guard !isIWARP, UInt64(bigEndian: address.address.0) == Device.linkLocal else { return 0 }
            return UInt16(exactly: low &- Device.firstGUID &+ 1) ?? 0
        }
    }

    /// Whether a port with this LID exists.
    func canReach(_ lid: UInt16) -> Bool { wire?.exists(lid) ?? (lid == self.lid) }

    /// The link-local GID of a port, and the GID of its IPv4 address.
    func linkLocalGID(of lid: UInt16) -> (UInt64, UInt64) {
        (Device.linkLocal.bigEndian, (Device.firstGUID + UInt64(lid) - 1).bigEndian)
    }
    var linkLocalGID: (UInt64, UInt64) { linkLocalGID(of: lid) }
    func addressGID(of lid: UInt16) -> (UInt64, UInt64) { (0, (Device.firstAddress + UInt64(lid)).bigEndian) }

    /// The kernel's connection manager connects the device's queue pairs as iWARP does.
    var isIWARP: Bool { options.isIWARP }
}
