import CIBVerbs
import CProviderABI
import SystemPackage

extension Context {
    /// What the device can do and how much of it: ibv_query_device_ex(3).
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
        let code = query(unsafeRaw, number, &raw, MemoryLayout.size(ofValue: raw))
        try check(.queryPort, object("port", number), code) { errno in
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

    /// The first port that carries data, or nil.
    public func firstActivePort() throws(VerbsError) -> PortAttributes? {
        try ports().first { $0.state == .active || $0.state == .activeDefer }
    }

    /// One entry of a port's GID table: ibv_query_gid_ex(3).
    ///
    /// - Throws: `ENODATA` when the entry is empty, `EINVAL` when there is no such entry or port.
    public func gid(port: UInt8, index: Int) throws(VerbsError) -> GIDEntry {
        let query = try entry(table.query_gid_ex, .queryGID, object("GID index", index))
        var raw = ibv_gid_entry()
        let code = query(
            unsafeRaw, UInt32(port), UInt32(truncatingIfNeeded: index), &raw, 0, MemoryLayout.size(ofValue: raw))
        try check(.queryGID, object("GID index", index), code) { errno in
            errno == .noData ? .text("that entry of the GID table is empty") : .general(errno)
        }
        return GIDEntry(raw)
    }

    /// All valid entries of the GID tables of all ports: ibv_query_gid_table(3).
    public func gidTable() throws(VerbsError) -> [GIDEntry] {
        let query = try entry(table.query_gid_table, .queryGIDTable, object("device"))
        let capacity = try ports().reduce(0) { $0 + $1.gidTableLength }
        var count = 0
        let entries = [ibv_gid_entry](unsafeUninitializedCapacity: capacity) { buffer, initialized in
            buffer.initialize(repeating: ibv_gid_entry())
            count = query(unsafeRaw, buffer.baseAddress, capacity, 0, MemoryLayout<ibv_gid_entry>.size)
            initialized = min(max(count, 0), capacity)
        }
        try check(.queryGIDTable, object("device"), Int32(clamping: min(count, 0)))
        return entries.map(GIDEntry.init)
    }

    /// One entry of a port's P_Key table: ibv_query_pkey(3). Bit 15 says full member.
    public func pkey(port: UInt8, index: Int) throws(VerbsError) -> UInt16 {
        let query = try entry(table.query_pkey, .queryPKey, object("P_Key index", index))
        var pkey: UInt16 = 0
        try check(
            .queryPKey, object("P_Key index", index), query(unsafeRaw, port, Int32(truncatingIfNeeded: index), &pkey))
        return UInt16(bigEndian: pkey)
    }

    /// The device's clock now, in the ticks of completion timestamps: ibv_query_rt_values_ex(3).
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

/// A valid entry of a port's GID table.
public struct GIDEntry: Hashable, Sendable, CustomStringConvertible {
    /// The GID.
    public let gid: GID
    /// Its place in the port's table.
    public let index: Int
    /// The port, from 1.
    public let port: UInt8
    /// How packets look that go from it.
    public let type: GIDType
    /// Index of the network interface behind it; 0 where there is none.
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

    /// Such as `fe80::1 (RoCE v2, index 1)`.
    public var description: String { "\(gid) (\(type), index \(index))" }
}
