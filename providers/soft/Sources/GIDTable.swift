import CIBVerbs
import CLinux
import CProviderABI
import RoCETransport

/// The GID table of the one port: the addresses of the device's interface to which sockets can be bound. An address
/// keeps its index as long as the interface has it; a removed address leaves an empty entry, which the next new address
/// gets. An IPv6 address is not listed while duplicate address detection is under way, or when it has failed.
struct GIDTable: ~Copyable {
    private let table = UnsafeMutablePointer<GID>.allocate(capacity: DeviceLimits.gids)
    /// The addresses of all interfaces of this host. Packets to them do not leave the host.
    private var local = UnsafeMutablePointer<GID>.allocate(capacity: 1)
    private var localCount = 0

    /// An empty entry: the zero GID, which is not an address.
    private static var empty: GID { GID() }

    init(ifindex: UInt32) {
        table.initialize(repeating: Self.empty, count: DeviceLimits.gids)
        refresh(ifindex: ifindex)
    }

    deinit {
        table.deallocate()
        local.deallocate()
    }

    /// A copy of all entries, for `hasEntries`.
    var entries: InlineArray<32, GID> { InlineArray { table[$0] } }

    /// Whether the entries are equal to `others`.
    func hasEntries(_ others: InlineArray<32, GID>) -> Bool {
        for index in 0..<DeviceLimits.gids where table[index] != others[index] { return false }
        return true
    }

    /// Empties an entry to whose address no socket can be bound (yet).
    func hide(at index: Int) { table[index] = Self.empty }

    /// Reads the addresses of this host again, and updates the table with those of the interface with this index. The
    /// table is unchanged when they cannot be read.
    /// - Returns: Whether they were read.
    @discardableResult
    mutating func refresh(ifindex: UInt32) -> Bool {
        let known = Int(linux_interface_addresses(nil, 0))
        guard known >= 0 else { return false }
        let capacity = known + 16
        let addresses = UnsafeMutablePointer<linux_interface_address>.allocate(capacity: capacity)
        defer { addresses.deallocate() }
        let found = Int(linux_interface_addresses(addresses, Int32(capacity)))
        guard found >= 0 else { return false }
        let count = min(found, capacity)
        rememberLocal(addresses, count)
        dropGone(addresses, count, ifindex)
        for index in 0..<count where addresses[index].isUsable(on: ifindex) { insert(addresses[index].address) }
        return true
    }

    /// The GID at this index; nil where the entry is empty or beyond the end of the table.
    func gid(at index: Int) -> GID? {
        guard index >= 0, index < DeviceLimits.gids, table[index] != Self.empty else { return nil }
        return table[index]
    }

    /// Whether the address is in the table.
    func contains(_ gid: GID) -> Bool { self.index(of: gid) != nil }

    func index(of gid: GID) -> Int? {
        for index in 0..<DeviceLimits.gids where table[index] == gid { return index }
        return nil
    }

    /// Whether the address belongs to this host.
    func isLocal(_ gid: GID) -> Bool {
        // All of 127.0.0.0/8 is local, though lo lists one address only.
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

    private func dropGone(
        _ addresses: UnsafeMutablePointer<linux_interface_address>, _ count: Int, _ ifindex: UInt32
    ) {
        for entry in 0..<DeviceLimits.gids {
            var found = false
            for index in 0..<count where addresses[index].isUsable(on: ifindex) {
                if addresses[index].address == table[entry] { found = true }
            }
            if !found { table[entry] = Self.empty }
        }
    }

    private func insert(_ gid: GID) {
        guard !contains(gid) else { return }
        for entry in 0..<DeviceLimits.gids where table[entry] == Self.empty {
            table[entry] = gid
            return
        }
    }
}

extension linux_interface_address {
    /// Whether a socket can be bound to the address on this interface.
    fileprivate func isUsable(on ifindex: UInt32) -> Bool { index == ifindex && !unusable }

    fileprivate var address: GID { withUnsafeBytes(of: gid) { GID(at: $0.baseAddress!) } }
}

extension GID {
    /// The GID as an `ibv_gid`.
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

    /// Calls `body` with the 16 bytes in network order.
    @inline(__always)
    func withNetworkBytes<Result>(_ body: (UnsafePointer<UInt8>) -> Result) -> Result {
        withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) {
            body($0.baseAddress!.assumingMemoryBound(to: UInt8.self))
        }
    }

    /// Whether the GID is an IPv4 address, ::ffff:a.b.c.d.
    var isIPv4: Bool { high == 0 && low >> 32 == 0xFFFF }

    /// The IPv4 address, first octet in the top bits.
    var ipv4: UInt32 { UInt32(truncatingIfNeeded: low) }
}
