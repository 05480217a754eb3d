import CIBVerbs
import CKernelABI
import CLinux
import ProviderKit

// The GID table of a port: the kernel tells an entry by ioctl since 5.10, and in sysfs ever since.

extension UnsafeMutablePointer<ibv_context> {
    /// An entry of a port's GID table. ENODATA where it is empty, EINVAL where there is no such entry.
    public func queryGID(port: UInt32, index: UInt32) throws(KernelError) -> ibv_gid_entry {
        do throws(KernelError) {
            return try native.pointee.kernel.queryGID(port: port, index: index)
        } catch {
            guard error == .notSupported else { throw error }
            return try readGID(port: port, index: index)
        }
    }

    /// All entries of all ports that are not empty: how many there are. EINVAL when they are more than `capacity`.
    /// - Parameters:
    ///   - entries: where they go, each `size` bytes behind the one before.
    ///   - capacity: room for so many.
    func queryGIDTable(_ entries: UnsafeMutableRawPointer, capacity: Int, size: Int) throws(KernelError) -> Int {
        do throws(KernelError) {
            return try native.pointee.kernel.queryGIDTable(entries, capacity: capacity, size: size)
        } catch {
            guard error == .notSupported, size > 0 else { throw error }
        }
        var attributes = ibv_device_attr_ex()
        _ = try native.pointee.kernel.queryDevice(&attributes)
        var count = 0
        for port in 1...max(1, UInt32(attributes.orig_attr.phys_port_cnt)) {
            let length = try native.pointee.kernel.queryPort(UInt8(truncatingIfNeeded: port)).gid_tbl_len
            for index in 0..<UInt32(max(0, length)) {
                guard let entry = try? readGID(port: port, index: index) else { continue }
                guard count < capacity else { throw .invalidArgument }
                store(entry, to: entries + count * size, size: size)
                count += 1
            }
        }
        return count
    }

    /// An entry as sysfs has it.
    private func readGID(port: UInt32, index: UInt32) throws(KernelError) -> ibv_gid_entry {
        var line = InlineArray<64, CChar>(repeating: 0)
        guard read("/gids/", port, index, &line) == 39 else { throw .invalidArgument }
        var entry = ibv_gid_entry()
        entry.port_num = port
        entry.gid_index = index
        var any: UInt8 = 0
        try withUnsafeMutableBytes(of: &entry.gid) { gid throws(KernelError) in
            // "fe80:0000:…": eight groups of four digits.
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
        let isEthernet =
            try native.pointee.kernel.queryPort(UInt8(truncatingIfNeeded: port)).link_layer
            == UInt8(IBV_LINK_LAYER_ETHERNET)
        // "IB/RoCE v1", or "RoCE v2".
        let isVersion2 = read("/gid_attrs/types/", port, index, &line) == 7 && line[6] == CChar(UInt8(ascii: "2"))
        entry.gid_type = !isEthernet ? 0 : isVersion2 ? IBV_GID_TYPE_ROCE_V2.rawValue : IBV_GID_TYPE_ROCE_V1.rawValue
        if read("/gid_attrs/ndevs/", port, index, &line) > 0 {
            var interface = linux_interface()
            let error = withUnsafeBytes(of: line) {
                linux_find_interface($0.baseAddress!.assumingMemoryBound(to: CChar.self), &interface)
            }
            if error == 0 { entry.ndev_ifindex = interface.index }
        }
        return entry
    }

    /// The first line of a file of a port's; its length, or a negative errno value.
    private func read(
        _ folder: StaticString, _ port: UInt32, _ index: UInt32, _ line: inout InlineArray<64, CChar>
    ) -> Int32 {
        var path = Sentence()
        withUnsafeBytes(of: pointee.device.pointee.ibdev_path) {
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
