import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

func queryPort(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, attr: UnsafeMutablePointer<ibv_port_attr>?, size: Int
) -> Int32 {
    guard let context, let attr, port == 1 else { return EINVAL }
    var interface = context.soft.pointee.interface
    // An interface may change its MTU, or be gone; then the port is down.
    let isThere = withUnsafeBytes(of: context.soft.pointee.interface.name) { name in
        linux_find_interface(name.baseAddress!.assumingMemoryBound(to: CChar.self), &interface) == 0
    }
    var answer = ibv_port_attr()
    answer.state = isThere && interface.up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN
    answer.max_mtu = IBV_MTU_4096
    answer.active_mtu = pathMTU(interfaceMTU: interface.mtu)
    answer.gid_tbl_len = Int32(DeviceLimits.gids)
    answer.port_cap_flags = IBV_PORT_IP_BASED_GIDS.rawValue
    answer.max_msg_sz = UInt32(Limits.messageBytes)
    answer.pkey_tbl_len = 1
    answer.max_vl_num = 1
    // IBTA volume 1, 14.2.5.6: width 2 = 4x, speed 4 = 10 Gb/s a lane, physical state 5 = link up, 3 = disabled.
    answer.active_width = 2
    answer.active_speed = 4
    answer.phys_state = answer.state == IBV_PORT_ACTIVE ? 5 : 3
    answer.link_layer = UInt8(IBV_LINK_LAYER_ETHERNET)
    store(answer, to: attr, size: size)
    return 0
}

func queryGID(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt32, index: UInt32,
    entry: UnsafeMutablePointer<ibv_gid_entry>?, flags: UInt32, size: Int
) -> Int32 {
    guard let context, let entry, port == 1, index < DeviceLimits.gids else { return EINVAL }
    if flags != 0 { return EOPNOTSUPP }
    let soft = context.soft
    soft.refreshGIDs()
    soft.pointee.lock.lock()
    let gid = soft.guarded.pointee.gids.gid(at: Int(index))
    soft.unlock()
    guard let gid else { return ENODATA }
    store(soft.entry(gid, index: Int(index)), to: entry, size: size)
    return 0
}

func queryGIDTable(
    context: UnsafeMutablePointer<ibv_context>?, entries: UnsafeMutablePointer<ibv_gid_entry>?, capacity: Int,
    flags: UInt32, size: Int
) -> Int {
    guard let context, let entries, size > 0 else { return -Int(EINVAL) }
    if flags != 0 { return -Int(EOPNOTSUPP) }
    let soft = context.soft
    soft.refreshGIDs()
    soft.pointee.lock.lock()
    defer { soft.unlock() }
    var count = 0
    for index in 0..<DeviceLimits.gids {
        guard let gid = soft.guarded.pointee.gids.gid(at: index) else { continue }
        guard count < capacity else { return -Int(EINVAL) }
        store(soft.entry(gid, index: index), to: UnsafeMutableRawPointer(entries) + count * size, size: size)
        count += 1
    }
    return count
}

func queryPartitionKey(
    context: UnsafeMutablePointer<ibv_context>?, port: UInt8, index: Int32, key: UnsafeMutablePointer<UInt16>?
) -> Int32 {
    guard let key, port == 1, index == 0 else { return EINVAL }
    key.pointee = DeviceLimits.partitionKey.bigEndian
    return 0
}

extension ContextPointer {
    /// Reads the addresses of the interface again.
    func refreshGIDs() {
        pointee.lock.lock()
        guarded.pointee.gids.refresh()
        unlock()
    }

    fileprivate func entry(_ gid: GID, index: Int) -> ibv_gid_entry {
        ibv_gid_entry(
            gid: gid.verbs, gid_index: UInt32(index), port_num: 1, gid_type: IBV_GID_TYPE_ROCE_V2.rawValue,
            ndev_ifindex: pointee.interface.index)
    }
}
