import CIBVerbs
import CLinux
import CProviderABI

/// Device, port, GID and P_Key.
func addQueries(to table: inout rdma_context_ops) {
    table.query_device_ex = queryDevice
    table.query_port = { context, port, attr, size in
        var answer = ibv_port_attr()
        let error = status { ___ibv_query_port(context, port, &answer) }
        if error == 0 { copyOut(answer, to: attr, size: size) }
        return error
    }
    table.query_gid_ex = { context, port, index, entry, flags, size in
        var answer = ibv_gid_entry()
        let error = status { ibv_query_gid_ex(context, port, index, &answer, flags) }
        if error == 0 { copyOut(answer, to: entry, size: size) }
        return error
    }
    table.query_gid_table = queryGIDTable
    table.query_pkey = { context, port, index, key in
        let error = status { ibv_query_pkey(context, port, index, key) }
        // It reads a file of sysfs, one for each entry.
        return error == ENOENT ? EINVAL : error
    }
    table.query_rt_values = { context, values in status { ibv_query_rt_values_ex(context, values) } }
}

private func queryDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int
) -> Int32 {
    // ibv_query_device_ex answers EINVAL for a bit of a later version.
    if let input, input.pointee.comp_mask != 0 { return EOPNOTSUPP }
    guard size >= MemoryLayout<ibv_device_attr>.size else { return EINVAL }
    var answer = ibv_device_attr_ex()
    let error = status { ibv_query_device_ex(context, input, &answer) }
    if error == 0 { copyOut(answer, to: attr, size: size) }
    return error
}

private func queryGIDTable(
    context: UnsafeMutablePointer<ibv_context>?, entries: UnsafeMutablePointer<ibv_gid_entry>?, capacity: Int,
    flags: UInt32, entrySize: Int
) -> Int {
    if entrySize == MemoryLayout<ibv_gid_entry>.size {
        return tableCount { ibv_query_gid_table(context, entries, capacity, flags) }
    }
    let own = UnsafeMutablePointer<ibv_gid_entry>.allocate(capacity: capacity)
    defer { own.deallocate() }
    let count = tableCount { ibv_query_gid_table(context, own, capacity, flags) }
    for index in 0..<max(count, 0) {
        copyOut(own[index], to: entries.map { UnsafeMutableRawPointer($0) + index * entrySize }, size: entrySize)
    }
    return count
}

/// A count, or a negative errno value.
private func tableCount(_ call: () -> Int) -> Int {
    linux_set_errno(0)
    let answer = call()
    return answer >= 0 ? answer : -Int(errorNumber(Int32(clamping: answer)))
}
