import CIBVerbs
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

// Device, port, GIDs and P_Keys.

/// `query_device_ex`.
func queryDevice(
    kernel: OpaquePointer?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int, udata: UnsafePointer<rdma_udata>?,
    rawFirmware: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    guard let node = node(kernel), let attr, size >= MemoryLayout<ibv_device_attr>.size else { return EINVAL }
    if let input, input.pointee.comp_mask != 0 { return EOPNOTSUPP }
    return errno { () throws(KernelError) in
        var response = ibv_device_attr_ex()
        let firmware = try node.pointee.kernel.queryDevice(&response, driver: try driverData(udata))
        setFirmware(firmware, of: &response.orig_attr)
        rawFirmware?.pointee = firmware
        store(response, to: attr, size: size)
    }
}

/// `query_port`.
func queryPort(
    kernel: OpaquePointer?, port: UInt32, attr: UnsafeMutablePointer<ibv_port_attr>?, size: Int
) -> Int32 {
    // The kernel's command has 8 bits for the port.
    guard let node = node(kernel), let attr, size >= 0, let port = UInt8(exactly: port) else { return EINVAL }
    return errno { () throws(KernelError) in
        store(try node.pointee.kernel.queryPort(port), to: attr, size: size)
    }
}

/// `query_gid_ex`.
func queryGID(
    kernel: OpaquePointer?, port: UInt32, index: UInt32, entry: UnsafeMutablePointer<ibv_gid_entry>?, flags: UInt32,
    size: Int
) -> Int32 {
    guard let node = node(kernel), let entry, size >= 0 else { return EINVAL }
    if flags != 0 { return EOPNOTSUPP }
    return errno { () throws(KernelError) in
        let response = try node.pointee.kernel.queryGID(of: node.pointee.device, port: port, index: index)
        store(response, to: entry, size: size)
    }
}

/// `query_gid_table`.
func queryGIDTable(
    kernel: OpaquePointer?, entries: UnsafeMutablePointer<ibv_gid_entry>?, capacity: Int, flags: UInt32, size: Int
) -> Int {
    guard let node = node(kernel), let entries, size > 0, capacity >= 0 else { return -Int(EINVAL) }
    if flags != 0 { return -Int(EOPNOTSUPP) }
    do throws(KernelError) {
        return try node.pointee.kernel.queryGIDTable(
            of: node.pointee.device, entries, capacity: capacity, size: size)
    } catch {
        return -Int(error.rawValue)
    }
}

/// `query_pkey`.
func queryPartitionKey(
    kernel: OpaquePointer?, port: UInt32, index: Int32, key: UnsafeMutablePointer<UInt16>?
) -> Int32 {
    guard let node = node(kernel), let key, let port = UInt8(exactly: port) else { return EINVAL }
    return errno { () throws(KernelError) in
        key.pointee = try node.pointee.device.queryPartitionKey(port: port, index: index).bigEndian
    }
}
