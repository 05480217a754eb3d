import CIBVerbs
import CLinux
import CProviderABI
import RoCETransport

/// The GID table of the one port: the addresses of the device's interface. An address keeps its index as long as the
/// interface has it; one that is gone leaves an empty entry, which the next new one takes.
struct GIDTable: ~Copyable {
    private let ifindex: UInt32
    private let entries = UnsafeMutablePointer<GID>.allocate(capacity: DeviceLimits.gids)
    /// All addresses of this host, whatever interface they are on: what goes there never leaves it.
    private var local = UnsafeMutablePointer<GID>.allocate(capacity: 1)
    private var localCount = 0

    /// An empty entry: the zero GID, which is no address.
    private static var empty: GID { GID() }

    init(ifindex: UInt32) {
        self.ifindex = ifindex
        entries.initialize(repeating: Self.empty, count: DeviceLimits.gids)
        refresh()
    }

    deinit {
        entries.deallocate()
        local.deallocate()
    }

    /// Reads the addresses of this host again. When that fails, what was known stays.
    mutating func refresh() {
        let known = Int(linux_interface_addresses(nil, 0))
        guard known >= 0 else { return }
        let capacity = known + 16
        let addresses = UnsafeMutablePointer<linux_interface_address>.allocate(capacity: capacity)
        defer { addresses.deallocate() }
        let found = Int(linux_interface_addresses(addresses, Int32(capacity)))
        guard found >= 0 else { return }
        let count = min(found, capacity)
        rememberLocal(addresses, count)
        dropGone(addresses, count)
        for index in 0..<count where addresses[index].index == ifindex { insert(addresses[index].address) }
    }

    /// The GID at this index, or nil where the table is empty or ends.
    func gid(at index: Int) -> GID? {
        guard index >= 0, index < DeviceLimits.gids, entries[index] != Self.empty else { return nil }
        return entries[index]
    }

    /// Whether the address is one of this device.
    func contains(_ gid: GID) -> Bool { self.index(of: gid) != nil }

    func index(of gid: GID) -> Int? {
        for index in 0..<DeviceLimits.gids where entries[index] == gid { return index }
        return nil
    }

    /// Whether the address is one of this host.
    func isLocal(_ gid: GID) -> Bool {
        // All of 127.0.0.0/8 is this host, though lo lists but one address.
        if gid.high == 0 && gid.low >> 24 == 0xFFFF_7F { return true }
        for index in 0..<localCount where local[index] == gid { return true }
        return false
    }

    private mutating func rememberLocal(_ addresses: UnsafeMutablePointer<linux_interface_address>, _ count: Int) {
        local.deallocate()
        local = .allocate(capacity: max(count, 1))
        for index in 0..<count { local[index] = addresses[index].address }
        localCount = count
    }

    private func dropGone(_ addresses: UnsafeMutablePointer<linux_interface_address>, _ count: Int) {
        for entry in 0..<DeviceLimits.gids {
            var found = false
            for index in 0..<count where addresses[index].index == ifindex {
                if addresses[index].address == entries[entry] { found = true }
            }
            if !found { entries[entry] = Self.empty }
        }
    }

    private func insert(_ gid: GID) {
        guard !contains(gid) else { return }
        for entry in 0..<DeviceLimits.gids where entries[entry] == Self.empty {
            entries[entry] = gid
            return
        }
    }
}

extension linux_interface_address {
    fileprivate var address: GID { withUnsafeBytes(of: gid) { GID(at: $0.baseAddress!) } }
}

extension GID {
    /// As verbs.h has it.
    var verbs: ibv_gid {
        var gid = ibv_gid()
        gid.global.subnet_prefix = high.bigEndian
        gid.global.interface_id = low.bigEndian
        return gid
    }

    init(_ gid: ibv_gid) {
        self.init(
            high: UInt64(bigEndian: gid.global.subnet_prefix), low: UInt64(bigEndian: gid.global.interface_id))
    }

    /// Its 16 bytes in network order.
    @inline(__always)
    func withNetworkBytes<Result>(_ body: (UnsafePointer<UInt8>) -> Result) -> Result {
        withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) {
            body($0.baseAddress!.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// Whether it stands for an IPv4 address: ::ffff:a.b.c.d.
    var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// The IPv4 address, first octet in the top bits.
    var ipv4: UInt32 { UInt32(truncatingIfNeeded: low) }
}
