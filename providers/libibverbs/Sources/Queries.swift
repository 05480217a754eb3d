import CIBVerbs
import CLinux
import CProviderABI

/// Device, port, GID and P_Key.
func addQueries(to table: inout rdma_context_ops) {
    table.query_device_ex = queryDevice
    table.query_port = { context, port, attr, size in
        var result = ibv_port_attr()
        let error = status { ___ibv_query_port(context, port, &result) }
        if error == 0 { copyOut(result, to: attr, size: size) }
        return error
    }
    table.query_gid_ex = { context, port, index, entry, flags, size in
        var result = ibv_gid_entry()
        let error = status { ibv_query_gid_ex(context, port, index, &result, flags) }
        if error == 0 { copyOut(result, to: entry, size: size) }
        return error
    }
    table.query_gid_table = queryGIDTable
    table.query_pkey = { context, port, index, key in
        let error = status { ibv_query_pkey(context, port, index, key) }
        // libibverbs reads a sysfs file per index; a missing file is an index out of range.
        return error == ENOENT ? EINVAL : error
    }
    table.query_rt_values = { context, values in status { ibv_query_rt_values_ex(context, values) } }
}

private func queryDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int
) -> Int32 {
    // ibv_query_device_ex returns EINVAL for an unknown bit; the provider ABI requires EOPNOTSUPP.
    if let input, input.pointee.comp_mask != 0 { return EOPNOTSUPP }
    guard size >= MemoryLayout<ibv_device_attr>.size else { return EINVAL }
    var result = ibv_device_attr_ex()
    let error = status { ibv_query_device_ex(context, input, &result) }
    if error == 0 { copyOut(result, to: attr, size: size) }
    return error
}

private func queryGIDTable(
    context: UnsafeMutablePointer<ibv_context>?, entries: UnsafeMutablePointer<ibv_gid_entry>?, capacity: Int,
    flags: UInt32, entrySize: Int
) -> Int {
    if entrySize == MemoryLayout<ibv_gid_entry>.size {
        return tableCount { ibv_query_gid_table(context, entries, capacity, flags) }
    }
    guard capacity >= 0 else { return -Int(EINVAL) }
    let table = UnsafeMutablePointer<ibv_gid_entry>.allocate(capacity: capacity)
    defer { table.deallocate() }
    let count = tableCount { ibv_query_gid_table(context, table, capacity, flags) }
    for index in 0..<max(count, 0) {
        copyOut(table[index], to: entries.map { UnsafeMutableRawPointer($0) + index * entrySize }, size: entrySize)
    }
    return count
}

/// The count that the call returns, or a negative errno value.
private func tableCount(_ call: () -> Int) -> Int {
    linux_set_errno(0)
    let result = call()
    return result >= 0 ? result : -Int(errorNumber(Int32(clamping: result)))
}
