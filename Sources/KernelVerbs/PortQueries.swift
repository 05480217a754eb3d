import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

extension KernelDevice {
    /// The state of a port, counted from 1.
    public func queryPort(_ port: UInt8) throws(KernelError) -> ibv_port_attr {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_PORT)
        method.constant(UVERBS_ATTR_QUERY_PORT_PORT_NUM, UInt64(port))
        let output = method.output(UVERBS_ATTR_QUERY_PORT_RESP, ib_uverbs_query_port_resp_ex.self)
        if try call(&method, orElse: .queryPort) {
            let answer = method[output]
            return ibv_port_attr(answer.legacy_resp, moreCapabilities: answer.port_cap_flags2)
        }
        var request = ib_uverbs_query_port()
        request.port_num = port
        var answer = ib_uverbs_query_port_resp()
        try call(.queryPort, request, &answer)
        return ibv_port_attr(answer, moreCapabilities: 0)
    }

    /// An entry of a port's GID table. ENODATA where it is empty.
    public func queryGID(port: UInt32, index: UInt32) throws(KernelError) -> ibv_gid_entry {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_ENTRY)
        method.constant(UVERBS_ATTR_QUERY_GID_ENTRY_PORT, UInt64(port))
        method.constant(UVERBS_ATTR_QUERY_GID_ENTRY_GID_INDEX, UInt64(index))
        method.input(UVERBS_ATTR_QUERY_GID_ENTRY_FLAGS, UInt32(0))
        let output = method.output(UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY, ib_uverbs_gid_entry.self)
        try call(&method)
        return withUnsafeBytes(of: method[output]) { $0.loadUnaligned(as: ibv_gid_entry.self) }
    }

    /// All entries of all ports that are not empty: how many there are. EINVAL when they are more than `capacity`, or than
    /// fit into 65535 bytes.
    /// - Parameters:
    ///   - entries: where they go.
    ///   - capacity: room for so many.
    ///   - size: of an entry in bytes.
    public func queryGIDTable(
        _ entries: UnsafeMutableRawPointer, capacity: Int, size: Int
    ) throws(KernelError) -> Int {
        // An attribute counts its bytes in 16 bits.
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
    /// An entry of a port's P_Key table, which the kernel tells in sysfs alone. EINVAL where there is no such entry.
    public func queryPartitionKey(port: UInt8, index: Int32) throws(KernelError) -> UInt16 {
        var path = Sentence()
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
    fileprivate init(_ answer: ib_uverbs_query_port_resp, moreCapabilities: UInt16) {
        self.init()
        state = ibv_port_state(rawValue: UInt32(answer.state))
        max_mtu = ibv_mtu(rawValue: UInt32(answer.max_mtu))
        active_mtu = ibv_mtu(rawValue: UInt32(answer.active_mtu))
        gid_tbl_len = Int32(bitPattern: answer.gid_tbl_len)
        port_cap_flags = answer.port_cap_flags
        max_msg_sz = answer.max_msg_sz
        bad_pkey_cntr = answer.bad_pkey_cntr
        qkey_viol_cntr = answer.qkey_viol_cntr
        pkey_tbl_len = answer.pkey_tbl_len
        lid = answer.lid
        sm_lid = answer.sm_lid
        lmc = answer.lmc
        max_vl_num = answer.max_vl_num
        sm_sl = answer.sm_sl
        subnet_timeout = answer.subnet_timeout
        init_type_reply = answer.init_type_reply
        active_width = answer.active_width
        active_speed = answer.active_speed
        phys_state = answer.phys_state
        link_layer = answer.link_layer
        flags = answer.flags
        port_cap_flags2 = moreCapabilities
    }
}
