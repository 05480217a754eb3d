import CIBVerbs
import CProviderABI
import SystemPackage

/// Device memory: memory on the device itself (`struct ibv_dm`, ibv_alloc_dm(3)).
public final class DeviceMemory: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

    /// The device.
    public let context: Context
    /// Size in bytes.
    public let byteCount: Int
    let raw: UnsafeMutablePointer<ibv_dm>

    init(_ raw: UnsafeMutablePointer<ibv_dm>, context: Context, byteCount: Int) {
        self.raw = raw
        self.context = context
        self.byteCount = byteCount
    }

    deinit {
        guard let free = context.table.free_dm else { return }
        context.destroy(.freeDM, object, keeping: [], free(raw))
    }

    var object: VerbsObject { context.object("device memory", raw.pointee.handle) }
}

extension Context {
    /// Allocates memory on the device: ibv_alloc_dm(3).
    ///
    /// - Parameters:
    ///   - byteCount: Size in bytes, at most `DeviceAttributes.maxDeviceMemory` for all allocations together.
    ///   - alignment: Alignment of the first byte, a power of two (`ibv_alloc_dm_attr.log_align_req`).
    public func makeDeviceMemory(byteCount: Int, alignment: Int = 1) throws(VerbsError) -> DeviceMemory {
        let alloc = try entry(table.alloc_dm, destroyedBy: table.free_dm, .allocDM, object("context"))
        guard alignment > 0, alignment & (alignment - 1) == 0, byteCount > 0 else {
            throw VerbsError(
                .allocDM, errno: .invalidArgument, object: object("context"),
                hint: "\(byteCount) bytes at multiples of \(alignment): the size starts at 1, and the alignment is a"
                    + " power of two")
        }
        var attributes = ibv_alloc_dm_attr()
        attributes.length = byteCount
        attributes.log_align_req = UInt32(alignment.trailingZeroBitCount)
        let raw = try made(.allocDM, object("context")) { alloc(unsafeRaw, &attributes) }
        return DeviceMemory(raw, context: self, byteCount: byteCount)
    }
}

extension DeviceMemory {
    /// Copies bytes to the device: ibv_memcpy_to_dm(3).
    ///
    /// - Throws: `EINVAL` when the range lies outside.
    public func copyBytes(from source: RawSpan, at offset: Int = 0) throws(VerbsError) {
        try requireInside(.memcpyToDM, offset, source.byteCount)
        guard let copy = raw.pointee.memcpy_to_dm else {
            throw VerbsError(.memcpyToDM, errno: .notSupported, object: object)
        }
        try context.check(
            .memcpyToDM, object, source.withUnsafeBytes { copy(raw, UInt64(offset), $0.baseAddress, $0.count) })
    }

    /// Copies bytes from the device: ibv_memcpy_from_dm(3).
    ///
    /// - Throws: `EINVAL` when the range lies outside.
    public func copyBytes(_ range: Range<Int>) throws(VerbsError) -> [UInt8] {
        try requireInside(.memcpyFromDM, range.lowerBound, range.count)
        guard let copy = raw.pointee.memcpy_from_dm else {
            throw VerbsError(.memcpyFromDM, errno: .notSupported, object: object)
        }
        var bytes = [UInt8](repeating: 0, count: range.count)
        try context.check(.memcpyFromDM, object, copy(&bytes, raw, UInt64(range.lowerBound), range.count))
        return bytes
    }

    private func requireInside(_ verb: Verb, _ offset: Int, _ count: Int) throws(VerbsError) {
        guard offset >= 0, offset <= byteCount, count <= byteCount - offset else {
            throw VerbsError(
                verb, errno: .invalidArgument, object: object,
                hint: "\(count) bytes from offset \(offset) on lie outside its \(byteCount) bytes")
        }
    }
}

extension ProtectionDomain {
    /// Registers device memory: ibv_reg_dm_mr(3) with `IBV_ACCESS_ZERO_BASED`, so addresses in the region count from 0.
    ///
    /// - Parameters:
    ///   - memory: The device memory. The region keeps it alive.
    ///   - offset: Offset of the region in the device memory, in bytes.
    ///   - byteCount: Size of the region in bytes.
    ///   - access: The operations that are allowed on the region (`ibv_access_flags`).
    public func makeMemoryRegion(
        _ memory: DeviceMemory, offset: Int = 0, byteCount: Int, access: AccessFlags
    ) throws(VerbsError) -> MemoryRegion {
        let reg = try context.entry(context.table.reg_dm_mr, destroyedBy: context.table.dereg_mr, .regDMMR, object)
        let access = access.union(.zeroBased)
        let raw = try context.made(.regDMMR, object) {
            reg(unsafeRaw, memory.raw, UInt64(truncatingIfNeeded: offset), byteCount, access.rawValue)
        }
        return MemoryRegion(
            raw, protectionDomain: self, access: access, byteCount: byteCount, address: 0,
            host: UnsafeMutableRawBufferPointer(start: nil, count: 0), backing: .deviceMemory(memory))
    }
}
