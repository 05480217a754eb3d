import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

extension KernelDevice {
    /// Queries a port (`ibv_query_port`, UVERBS_METHOD_QUERY_PORT or `struct ib_uverbs_query_port`). Ports are counted
    /// from 1.
    public func queryPort(_ port: UInt8) throws(KernelError) -> ibv_port_attr {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_PORT)
        method.constant(UVERBS_ATTR_QUERY_PORT_PORT_NUM, UInt64(port))
        let output = method.output(UVERBS_ATTR_QUERY_PORT_RESP, ib_uverbs_query_port_resp_ex.self)
        if try call(&method, orElse: .queryPort) {
            let response = method[output]
            return ibv_port_attr(response.legacy_resp, moreCapabilities: response.port_cap_flags2)
        }
        var request = ib_uverbs_query_port()
        request.port_num = port
        var response = ib_uverbs_query_port_resp()
        try call(.queryPort, request, &response)
        return ibv_port_attr(response, moreCapabilities: 0)
    }

    /// Queries an entry of a port's GID table (`ibv_query_gid_ex`, UVERBS_METHOD_QUERY_GID_ENTRY).
    /// - Throws: ENODATA for an empty entry; EOPNOTSUPP from a kernel before 5.10.
    public func queryGID(port: UInt32, index: UInt32) throws(KernelError) -> ibv_gid_entry {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_ENTRY)
        method.constant(UVERBS_ATTR_QUERY_GID_ENTRY_PORT, UInt64(port))
        method.constant(UVERBS_ATTR_QUERY_GID_ENTRY_GID_INDEX, UInt64(index))
        method.input(UVERBS_ATTR_QUERY_GID_ENTRY_FLAGS, UInt32(0))
        let output = method.output(UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY, ib_uverbs_gid_entry.self)
        try call(&method)
        return withUnsafeBytes(of: method[output]) { $0.loadUnaligned(as: ibv_gid_entry.self) }
    }

    /// Queries the non-empty GID table entries of all ports (`ibv_query_gid_table`, UVERBS_METHOD_QUERY_GID_TABLE).
    /// - Parameters:
    ///   - entries: Receives the entries (`ibv_gid_entry`).
    ///   - capacity: The capacity of `entries`.
    ///   - size: The size of an entry in bytes.
    /// - Returns: The number of entries.
    /// - Throws: EINVAL if there are more than `capacity`, or than fit into 65535 bytes.
    public func queryGIDTable(
        _ entries: UnsafeMutableRawPointer, capacity: Int, size: Int
    ) throws(KernelError) -> Int {
        // The length of an attribute (`ib_uverbs_attr.len`) has 16 bits.
        guard size > 0, size <= Int(UInt16.max), capacity > 0 else { throw .invalidArgument }
        let room = min(capacity, Int(UInt16.max) / size)
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_TABLE)
        method.constant(UVERBS_ATTR_QUERY_GID_TABLE_ENTRY_SIZE, UInt64(size))
        method.input(UVERBS_ATTR_QUERY_GID_TABLE_FLAGS, UInt32(0))
        method.output(
            UVERBS_ATTR_QUERY_GID_TABLE_RESP_ENTRIES,
            into: UnsafeMutableRawBufferPointer(start: entries, count: room * size))
        let count = method.output(UVERBS_ATTR_QUERY_GID_TABLE_RESP_NUM_ENTRIES, UInt64.self)
        try call(&method)
        return Int(method[count])
    }
}

extension UnsafeMutablePointer<ibv_device> {
    /// Queries an entry of a port's P_Key table (`ibv_query_pkey`), which the kernel reports only in sysfs.
    /// - Throws: EINVAL for an index beyond the table.
    public func queryPartitionKey(port: UInt8, index: Int32) throws(KernelError) -> UInt16 {
        var path = MessageText()
        withUnsafeBytes(of: pointee.ibdev_path) {
            path.append($0.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
        path.append("/ports/")
        path.append(Int(port))
        path.append("/pkeys/")
        path.append(Int(index))
        var line = InlineArray<16, CChar>(repeating: 0)
        var count: Int32 = 0
        path.withCString { path in
            count = withUnsafeMutableBytes(of: &line) {
                linux_read_line(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
            }
        }
        // "0xffff"
        if count < 0 && count != -ENOENT { throw KernelError(rawValue: -count) }
        guard count == 6 else { throw .invalidArgument }
        var key: UInt16 = 0
        for index in 2..<6 {
            guard let digit = hexadecimalDigit(line[index]) else { throw .invalidArgument }
            key = key << 4 | digit
        }
        return key
    }
}

func hexadecimalDigit(_ character: CChar) -> UInt16? {
    let code = UInt8(bitPattern: character)
    switch code {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): return UInt16(code - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): return UInt16(code - UInt8(ascii: "a") + 10)
    default: return nil
    }
}

extension ibv_port_attr {
    fileprivate init(_ response: ib_uverbs_query_port_resp, moreCapabilities: UInt16) {
        self.init()
        state = ibv_port_state(rawValue: UInt32(response.state))
        max_mtu = ibv_mtu(rawValue: UInt32(response.max_mtu))
        active_mtu = ibv_mtu(rawValue: UInt32(response.active_mtu))
        gid_tbl_len = Int32(bitPattern: response.gid_tbl_len)
        port_cap_flags = response.port_cap_flags
        max_msg_sz = response.max_msg_sz
        bad_pkey_cntr = response.bad_pkey_cntr
        qkey_viol_cntr = response.qkey_viol_cntr
        pkey_tbl_len = response.pkey_tbl_len
        lid = response.lid
        sm_lid = response.sm_lid
        lmc = response.lmc
        max_vl_num = response.max_vl_num
        sm_sl = response.sm_sl
        subnet_timeout = response.subnet_timeout
        init_type_reply = response.init_type_reply
        active_width = response.active_width
        active_speed = response.active_speed
        phys_state = response.phys_state
        link_layer = response.link_layer
        flags = response.flags
        port_cap_flags2 = moreCapabilities
    }
}
