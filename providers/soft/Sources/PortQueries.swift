import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

private let onePort: StaticString = "the device has one port, number 1"

func queryPort(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, attr: UnsafeMutablePointer<ibv_port_attr>?, size: Int
) -> Int32 {
    guard let context, let attr else { return EINVAL }
    guard port == 1 else { return refusal(EINVAL, onePort) }
    let interface = context.soft.whileFollowing { $0.pointee.port }
    // The port of an interface that no longer exists is down.
    guard interface.error == 0 || interface.error == ENODEV else {
        return withUnsafeBytes(of: interface.current.name) { name in
            explainAbsence(of: name.baseAddress!.assumingMemoryBound(to: CChar.self), interface.error).refusal(
                interface.error)
        }
    }
    var answer = ibv_port_attr()
    answer.state = interface.state
    answer.max_mtu = IBV_MTU_4096
    answer.active_mtu = interface.activeMTU
    answer.gid_tbl_len = Int32(DeviceLimits.gids)
    answer.port_cap_flags = IBV_PORT_IP_BASED_GIDS.rawValue
    answer.max_msg_sz = UInt32(Limits.maxMessageSize)
    answer.pkey_tbl_len = 1
    answer.max_vl_num = 1
    // IBTA volume 1, 14.2.5.6: width 2 = 4x, speed 4 = 10 Gb/s a lane.
    answer.active_width = 2
    answer.active_speed = 4
    answer.phys_state = interface.physicalState
    answer.link_layer = UInt8(IBV_LINK_LAYER_ETHERNET)
    store(answer, to: attr, size: size)
    return 0
}

func queryGID(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt32, index: UInt32,
    entry: UnsafeMutablePointer<ibv_gid_entry>?, flags: UInt32, size: Int
) -> Int32 {
    guard let context, let entry else { return EINVAL }
    guard port == 1 else { return refusal(EINVAL, onePort) }
    guard index < DeviceLimits.gids else { return noGID(Int(index)) }
    if flags != 0 { return EOPNOTSUPP }
    let soft = context.soft
    return soft.whileFollowing { guarded in
        guard let found = guarded.pointee.entry(at: Int(index)) else { return ENODATA }
        store(found, to: entry, size: size)
        return 0
    }
}

func queryGIDTable(
    context: UnsafeMutablePointer<ibv_context>?, entries: UnsafeMutablePointer<ibv_gid_entry>?, capacity: Int,
    flags: UInt32, size: Int
) -> Int {
    guard let context, let entries, size > 0 else { return -Int(EINVAL) }
    if flags != 0 { return -Int(EOPNOTSUPP) }
    let soft = context.soft
    return soft.whileFollowing { guarded in
        var count = 0
        for index in 0..<DeviceLimits.gids {
            guard let entry = guarded.pointee.entry(at: index) else { continue }
            guard count < capacity else { return -Int(EINVAL) }
            store(entry, to: UnsafeMutableRawPointer(entries) + count * size, size: size)
            count += 1
        }
        return count
    }
}

func queryPartitionKey(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, index: Int32, key: UnsafeMutablePointer<UInt16>?
) -> Int32 {
    guard let key else { return EINVAL }
    guard port == 1 else { return refusal(EINVAL, onePort) }
    guard index == 0 else { return refusal(EINVAL, "the P_Key table has one entry, index 0") }
    key.pointee = DeviceLimits.pkey.bigEndian
    return 0
}

extension ContextPointer {
    /// Follows the interface, and calls `body` under the lock.
    fileprivate func whileFollowing<Result>(_ body: (UnsafeMutablePointer<Guarded>) -> Result) -> Result {
        lockForControl()
        defer { unlock() }
        followInterface()
        return body(guarded)
    }
}

extension Guarded {
    /// An entry of the GID table; nil where it is empty.
    fileprivate func entry(at index: Int) -> ibv_gid_entry? {
        guard let gid = gids.gid(at: index) else { return nil }
        var entry = ibv_gid_entry()
        entry.gid = gid.verbs
        entry.gid_index = UInt32(index)
        entry.port_num = 1
        entry.gid_type = IBV_GID_TYPE_ROCE_V2.rawValue
        entry.ndev_ifindex = port.index
        return entry
    }
}
