import CIBVerbs
import CProviderABI
import SystemPackage

extension Context {
    /// The attributes of the device: ibv_query_device_ex(3), which also returns those of ibv_query_device(3).
    public func attributes() throws(VerbsError) -> DeviceAttributes {
        let query = try entry(table.query_device_ex, .queryDevice, object("device"))
        var raw = ibv_device_attr_ex()
        try check(.queryDevice, object("device"), query(unsafeRaw, nil, &raw, MemoryLayout.size(ofValue: raw)))
        return DeviceAttributes(raw)
    }

    /// State and properties of a port: ibv_query_port(3). Ports count from 1.
    ///
    /// - Throws: `EINVAL` when there is no such port.
    public func port(_ number: UInt8) throws(VerbsError) -> PortAttributes {
        let query = try entry(table.query_port, .queryPort, object("port", number))
        var raw = ibv_port_attr()
        let size = MemoryLayout<ibv_port_attr>.size
        try check(.queryPort, object("port", number), query(unsafeRaw, number, &raw, size)) { errno in
            errno == .invalidArgument ? .text("ports count from 1 to DeviceAttributes.portCount") : .general(errno)
        }
        return PortAttributes(number: number, raw)
    }

    /// All ports of the device.
    public func ports() throws(VerbsError) -> [PortAttributes] {
        var ports: [PortAttributes] = []
        let count = try attributes().portCount
        for number in 0..<count { ports.append(try port(UInt8(clamping: number + 1))) }
        return ports
    }

    /// The first port in state ACTIVE or ACTIVE_DEFER, or nil.
    public func firstActivePort() throws(VerbsError) -> PortAttributes? {
        try ports().first { $0.state == .active || $0.state == .activeDefer }
    }

    /// One entry of a port's GID table: ibv_query_gid_ex(3), `ibv_query_gid`.
    ///
    /// - Throws: `ENODATA` when the entry is empty, `EINVAL` when there is no such entry or port.
    public func gid(port: UInt8, index: Int) throws(VerbsError) -> GIDEntry {
        let query = try entry(table.query_gid_ex, .queryGID, object("GID index", index))
        var raw = ibv_gid_entry()
        let size = MemoryLayout<ibv_gid_entry>.size
        try check(
            .queryGID, object("GID index", index),
            query(unsafeRaw, UInt32(port), UInt32(truncatingIfNeeded: index), &raw, 0, size)
        ) { errno in
            errno == .noData ? .text("that entry of the GID table is empty") : .general(errno)
        }
        return GIDEntry(raw)
    }

    /// All valid entries of the GID tables of all ports: ibv_query_gid_table(3).
    public func gidTable() throws(VerbsError) -> [GIDEntry] {
        let query = try entry(table.query_gid_table, .queryGIDTable, object("device"))
        let capacity = try ports().reduce(0) { $0 + $1.gidTableLength }
        var entries = [ibv_gid_entry](repeating: ibv_gid_entry(), count: capacity)
        var count = 0
        func ask() -> Int32 {
            count = query(unsafeRaw, &entries, capacity, 0, MemoryLayout<ibv_gid_entry>.size)
            return Int32(clamping: min(count, 0))
        }
        try check(.queryGIDTable, object("device"), ask())
        return entries.prefix(count).map(GIDEntry.init)
    }

    /// One entry of a port's P_Key table, in host byte order: ibv_query_pkey(3). Bit 15 is set for a full member.
    public func pkey(port: UInt8, index: Int) throws(VerbsError) -> UInt16 {
        let query = try entry(table.query_pkey, .queryPKey, object("P_Key index", index))
        var pkey: UInt16 = 0
        try check(
            .queryPKey, object("P_Key index", index), query(unsafeRaw, port, Int32(truncatingIfNeeded: index), &pkey))
        return UInt16(bigEndian: pkey)
    }

    /// The device's clock now, in the ticks of completion timestamps: ibv_query_rt_values_ex(3),
    /// `ibv_values_ex.raw_clock`.
    public func rawClock() throws(VerbsError) -> UInt64 {
        let query = try entry(table.query_rt_values, .queryRealTimeValues, object("device"))
        var values = ibv_values_ex()
        values.comp_mask = IBV_VALUES_MASK_RAW_CLOCK.rawValue
        try check(.queryRealTimeValues, object("device"), query(unsafeRaw, &values))
        guard values.comp_mask & IBV_VALUES_MASK_RAW_CLOCK.rawValue != 0 else {
            throw VerbsError(.queryRealTimeValues, errno: .notSupported, object: object("device"))
        }
        // The kernel's interface splits the tick count over a timespec as if it were a time.
        return UInt64(bitPattern: Int64(values.raw_clock.tv_sec)) &* 1_000_000_000
            &+ UInt64(bitPattern: Int64(values.raw_clock.tv_nsec))
    }
}

/// A valid entry of a port's GID table (`struct ibv_gid_entry`).
public struct GIDEntry: Hashable, Sendable, CustomStringConvertible {
    /// The GID.
    public let gid: GID
    /// The GID index (`ibv_gid_entry.gid_index`).
    public let index: Int
    /// The port, from 1.
    public let port: UInt8
    /// The RoCE version of packets that are sent from the GID (`ibv_gid_entry.gid_type`).
    public let type: GIDType
    /// Index of the network interface of the GID; 0 when it has none (`ibv_gid_entry.ndev_ifindex`).
    public let interfaceIndex: UInt32

    init(_ raw: ibv_gid_entry) {
        gid = GID(raw.gid)
        index = Int(raw.gid_index)
        port = UInt8(truncatingIfNeeded: raw.port_num)
        type = GIDType(rawValue: raw.gid_type)
        interfaceIndex = raw.ndev_ifindex
    }

    /// An entry with those values.
    public init(gid: GID, index: Int, port: UInt8, type: GIDType, interfaceIndex: UInt32 = 0) {
        self.gid = gid
        self.index = index
        self.port = port
        self.type = type
        self.interfaceIndex = interfaceIndex
    }

    /// Text such as `fe80::1 (RoCE v2, index 1)`.
    public var description: String { "\(gid) (\(type), index \(index))" }
}
