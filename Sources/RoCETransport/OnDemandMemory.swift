// Memory regions whose accesses need more than a comparison: the null region, and regions with on-demand paging.

/// Checks that memory of this process is mapped and may be read or, with the last argument, written, and makes it
/// present.
public typealias MemoryCheck = @convention(c) @Sendable (UnsafeMutableRawPointer, UInt64, Bool) -> Bool

extension Engine {
    /// Registers memory with on-demand paging (`ibv_reg_mr` with `IBV_ACCESS_ON_DEMAND`): it need not be mapped before
    /// it is accessed. An access to memory that is not mapped then fails as one outside the region does.
    /// - Parameters:
    ///   - domain: The protection domain of the memory region.
    ///   - address: The address of the first byte; nil, with `length` `UInt64.max`, for the whole address space
    ///     (implicit on-demand paging), whose addresses in work requests and packets are those of the process.
    ///   - length: The length in bytes.
    ///   - virtualAddress: The address of the first byte in work requests and packets (`iova`).
    ///   - access: The accesses that the region allows.
    ///   - registration: Whether it replaces another registration.
    /// - Returns: The key, which is both L_Key and R_Key, and not 0.
    /// - Throws: The errors of `registerMemory`; EINVAL for `.memoryWindowBind`; EOPNOTSUPP when the configuration has
    ///   no `memoryCheck`.
    public borrowing func registerOnDemand(
        _ domain: ProtectionDomain, address: UnsafeMutableRawPointer?, length: UInt64, virtualAddress: UInt64,
        access: AccessFlags, _ registration: Registration = .new
    ) throws(Errno) -> UInt32 {
        guard configuration.memoryCheck != nil else { throw .notSupported }
        guard !access.contains(.memoryWindowBind), address != nil || length == 0 || virtualAddress == 0 else {
            throw .invalid
        }
        return try core.pointee.register(
            domain, .onDemand, base: UInt(bitPattern: address), length: length, virtualAddress: virtualAddress,
            access: access, registration)
    }

    /// Allocates the null region (`ibv_alloc_null_mr`): SGEs with its L_Key read zeros, and what is written to them is
    /// discarded. Its R_Key allows nothing.
    /// - Throws: As `registerMemory`.
    public borrowing func registerNullRegion(_ domain: ProtectionDomain) throws(Errno) -> UInt32 {
        core.pointee.keys.makeNullPages()
        return try core.pointee.register(
            domain, .null, base: 0, length: .max, virtualAddress: 0, access: .localWrite, .new)
    }

    /// The memory of an SGE of a region with on-demand paging, for `ibv_advise_mr`.
    /// - Returns: The address of the memory, which need not be mapped; nil for an SGE of length 0.
    /// - Throws: ENOENT when no region has the L_Key; EPERM for a region of another protection domain, or with
    ///   `forWriting` for one without local write access; EINVAL for a region without on-demand paging and for a
    ///   window; EFAULT for a range that is not inside the region.
    public borrowing func onDemandMemory(
        _ sge: SGE, _ domain: ProtectionDomain, forWriting: Bool
    ) throws(Errno) -> UnsafeMutableRawPointer? {
        guard let region = core.pointee.keys.region(sge.lkey) else {
            throw core.pointee.keys.window(sge.lkey) == nil ? .noEntry : .invalid
        }
        guard region.pointee.protectionDomain == domain.rawValue else { throw .notPermitted }
        guard region.pointee.kind == .onDemand else { throw .invalid }
        guard !forWriting || region.pointee.checkedAccess.contains(.localWrite) else { throw .notPermitted }
        let offset = sge.address &- region.pointee.virtualAddress
        guard offset <= region.pointee.length, UInt64(sge.length) <= region.pointee.length &- offset else {
            throw .fault
        }
        return sge.length == 0 ? nil : UnsafeMutableRawPointer(bitPattern: region.pointee.base &+ UInt(offset))
    }
}

extension Core {
    /// Adds a region whose accesses `translateChecked` checks.
    fileprivate mutating func register(
        _ domain: ProtectionDomain, _ kind: MemoryRegion.Kind, base: UInt, length: UInt64, virtualAddress: UInt64,
        access: AccessFlags, _ registration: Registration
    ) throws(Errno) -> UInt32 {
        guard domainExists(domain.rawValue), !virtualAddress.addingReportingOverflow(length).overflow,
            !UInt64(base).addingReportingOverflow(length).overflow,
            access.isDisjoint(with: [.remoteWrite, .remoteAtomic]) || access.contains(.localWrite)
        else { throw .invalid }
        var region = MemoryRegion(
            protectionDomain: domain.rawValue, virtualAddress: virtualAddress, length: length, base: base)
        region.kind = kind
        region.checkedAccess = access.intersection(.kept).union(.local)
        return try register(region, registration)
    }
}

extension MemoryKeyTable {
    /// Completes `translate` for a region that the comparisons there refuse: one without `access` that has
    /// `checkedAccess`.
    @inline(never)
    func translateChecked(
        key: UInt32, protectionDomain: UInt32, address: UInt64, length: UInt64, access: AccessFlags
    ) -> UnsafeMutableRawPointer? {
        guard let region = region(key), region.pointee.protectionDomain == protectionDomain,
            region.pointee.checkedAccess.isSuperset(of: access)
        else { return nil }
        if region.pointee.kind == .null {
            // At most one packet is copied at a time, and no packet is longer than a page of these two.
            return access.contains(.localWrite) ? nullPages.map { $0 + Int(Limits.maxPathMTU) } : nullPages
        }
        let offset = address &- region.pointee.virtualAddress
        guard offset <= region.pointee.length, length <= region.pointee.length &- offset,
            let memory = UnsafeMutableRawPointer(bitPattern: region.pointee.base &+ UInt(offset)),
            let check = memoryCheck
        else { return nil }
        // The range of a whole message: each packet's memory is checked, and made present, when the packet is copied.
        if length > UInt64(Limits.maxPathMTU) { return memory }
        guard check(memory, length, !access.isDisjoint(with: [.localWrite, .remoteWrite, .remoteAtomic])) else {
            return nil
        }
        return memory
    }

    /// Makes the two pages of the null region, if there are none yet: one of zeros, and one for what is discarded.
    mutating func makeNullPages() {
        guard nullPages == nil else { return }
        let count = 2 * Int(Limits.maxPathMTU)
        let pages = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 64)
        pages.initializeMemory(as: UInt8.self, repeating: 0, count: count)
        nullPages = pages
    }
}
