import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

// The GID table of a port: kernels since 5.10 report an entry by ioctl, older kernels in sysfs only.

extension UnsafeMutablePointer<ibv_context> {
    /// Queries an entry of a port's GID table (`ibv_query_gid_ex`).
    /// - Throws: ENODATA for an empty entry, EINVAL for an index beyond the table.
    public func queryGID(port: UInt32, index: UInt32) throws(KernelError) -> ibv_gid_entry {
        try native.pointee.kernel.queryGID(of: pointee.device, port: port, index: index)
    }

    /// Queries the non-empty entries of all ports (`ibv_query_gid_table`).
    func queryGIDTable(_ entries: UnsafeMutableRawPointer, capacity: Int, size: Int) throws(KernelError) -> Int {
        try native.pointee.kernel.queryGIDTable(of: pointee.device, entries, capacity: capacity, size: size)
    }
}

extension KernelDevice {
    /// Queries an entry of a port's GID table (`ibv_query_gid_ex`), by ioctl or in sysfs.
    /// - Throws: ENODATA for an empty entry, EINVAL for an index beyond the table.
    public func queryGID(
        of device: UnsafeMutablePointer<ibv_device>, port: UInt32, index: UInt32
    ) throws(KernelError) -> ibv_gid_entry {
        do throws(KernelError) {
            return try queryGID(port: port, index: index)
        } catch {
            guard error == .notSupported else { throw error }
            return try readGID(of: device, port: port, index: index)
        }
    }

    /// Queries the non-empty entries of all ports (`ibv_query_gid_table`).
    /// - Parameters:
    ///   - entries: Receives the entries (`ibv_gid_entry`), with a stride of `size` bytes.
    ///   - capacity: The capacity of `entries`.
    /// - Returns: The number of entries.
    /// - Throws: EINVAL if there are more than `capacity`.
    public func queryGIDTable(
        of device: UnsafeMutablePointer<ibv_device>, _ entries: UnsafeMutableRawPointer, capacity: Int, size: Int
    ) throws(KernelError) -> Int {
        do throws(KernelError) {
            return try queryGIDTable(entries, capacity: capacity, size: size)
        } catch {
            guard error == .notSupported, size > 0 else { throw error }
        }
        var attributes = ibv_device_attr_ex()
        _ = try queryDevice(&attributes)
        var count = 0
        for port in 1...max(1, UInt32(attributes.orig_attr.phys_port_cnt)) {
            let length = try queryPort(UInt8(truncatingIfNeeded: port)).gid_tbl_len
            for index in 0..<UInt32(max(0, length)) {
                let entry: ibv_gid_entry
                do throws(KernelError) {
                    entry = try readGID(of: device, port: port, index: index)
                } catch {
                    // An empty entry; some kernels fail to read it.
                    if error == .invalidArgument || error.rawValue == ENODATA { continue }
                    throw error
                }
                guard count < capacity else { throw .invalidArgument }
                store(entry, to: entries + count * size, size: size)
                count += 1
            }
        }
        return count
    }

    /// Reads an entry from sysfs.
    private func readGID(
        of device: UnsafeMutablePointer<ibv_device>, port: UInt32, index: UInt32
    ) throws(KernelError) -> ibv_gid_entry {
        var line = InlineArray<64, CChar>(repeating: 0)
        let length = device.read("/gids/", port, index, &line)
        if length < 0 && length != -ENOENT { throw KernelError(rawValue: -length) }
        guard length == 39 else { throw .invalidArgument }
        var entry = ibv_gid_entry()
        entry.port_num = port
        entry.gid_index = index
        var any: UInt8 = 0
        try withUnsafeMutableBytes(of: &entry.gid) { gid throws(KernelError) in
            // "fe80:0000:...": eight groups of four hexadecimal digits.
            for byte in 0..<16 {
                let place = byte / 2 * 5 + byte % 2 * 2
                guard let high = hexadecimalDigit(line[place]), let low = hexadecimalDigit(line[place + 1]) else {
                    throw .invalidArgument
                }
                gid[byte] = UInt8(high << 4 | low)
                any |= gid[byte]
            }
        }
        guard any != 0 else { throw KernelError(rawValue: ENODATA) }
        let linkLayer = try queryPort(UInt8(truncatingIfNeeded: port)).link_layer
        let isEthernet = linkLayer == UInt8(IBV_LINK_LAYER_ETHERNET)
        // "IB/RoCE v1", or "RoCE v2".
        let hasVersion2Length = try device.readAttribute("/gid_attrs/types/", port, index, &line) == 7
        let isVersion2 = hasVersion2Length && line[6] == CChar(UInt8(ascii: "2"))
        entry.gid_type = !isEthernet ? 0 : isVersion2 ? IBV_GID_TYPE_ROCE_V2.rawValue : IBV_GID_TYPE_ROCE_V1.rawValue
        if try device.readAttribute("/gid_attrs/ndevs/", port, index, &line) > 0 {
            var interface = linux_interface()
            let error = withUnsafeBytes(of: line) {
                linux_find_interface($0.baseAddress!.assumingMemoryBound(to: CChar.self), &interface)
            }
            // An interface that is gone, or in another network namespace, has no index here.
            if [EMFILE, ENFILE, ENOMEM, ENOBUFS].contains(error) { throw KernelError(rawValue: error) }
            if error == 0 { entry.ndev_ifindex = interface.index }
        }
        return entry
    }

}

extension UnsafeMutablePointer<ibv_device> {
    /// Reads an attribute of a GID. Returns the length of its line; 0 when the kernel has no such attribute or no value.
    fileprivate func readAttribute(
        _ folder: StaticString, _ port: UInt32, _ index: UInt32, _ line: inout InlineArray<64, CChar>
    ) throws(KernelError) -> Int32 {
        let length = read(folder, port, index, &line)
        if length >= 0 { return length }
        guard [ENOENT, EINVAL, ENODATA, ENODEV].contains(-length) else { throw KernelError(rawValue: -length) }
        return 0
    }

    /// Reads the first line of a port's sysfs file. Returns its length, or a negative errno value.
    fileprivate func read(
        _ folder: StaticString, _ port: UInt32, _ index: UInt32, _ line: inout InlineArray<64, CChar>
    ) -> Int32 {
        var path = MessageText()
        withUnsafeBytes(of: pointee.ibdev_path) {
            path.append($0.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
        path.append("/ports/")
        path.append(Int(port))
        path.append(folder)
        path.append(Int(index))
        var count: Int32 = 0
        path.withCString { path in
            count = withUnsafeMutableBytes(of: &line) {
                linux_read_line(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
            }
        }
        return count
    }
}
