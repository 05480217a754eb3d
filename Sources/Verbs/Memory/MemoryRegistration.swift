import CIBVerbs
import CProviderABI
import Glibc
import SystemPackage

extension ProtectionDomain {
    /// Allocates zeroed memory and registers it: ibv_reg_mr(3).
    ///
    /// - Parameters:
    ///   - byteCount: at least 1; whole pages are taken.
    ///   - access: who may do what with it.
    ///   - iova: the address by which work requests and peers name the first byte; its own address by default, or
    ///     0 with `AccessFlags.zeroBased`.
    /// - Throws: `ENOMEM` (RLIMIT_MEMLOCK, or a limit of the device), `EINVAL` for an access that contradicts
    ///   itself, `EOPNOTSUPP` for a flag that the device does not know.
    public func makeMemoryRegion(
        byteCount: Int, access: AccessFlags = .localWrite, iova: UInt64? = nil
    ) throws(VerbsError) -> MemoryRegion {
        let pages = try Pages(byteCount: byteCount, for: object)
        let host = UnsafeMutableRawBufferPointer(start: pages.base, count: byteCount)
        return try register(host, access: access, iova: iova, backing: .pages(pages))
    }

    /// Registers memory that somebody else owns: ibv_reg_mr(3).
    ///
    /// Unsafe: the memory must stay where it is until the region is gone, or the device writes to what took its
    /// place. `owner`, if there is one, is kept as long as the region.
    ///
    /// - Throws: as `makeMemoryRegion`, and `EFAULT` where there is no memory.
    public func unsafeRegister(
        _ memory: UnsafeMutableRawBufferPointer, access: AccessFlags, iova: UInt64? = nil, owner: AnyObject? = nil
    ) throws(VerbsError) -> MemoryRegion {
        try register(memory, access: access, iova: iova, backing: .foreign(owner))
    }

    /// Registers all of the address space of the process, with on-demand paging: ibv_reg_mr(3), implicit ODP.
    ///
    /// Unsafe: whoever has the rkey reaches all memory of the process that `access` allows. Slices are named by
    /// absolute addresses.
    ///
    /// - Throws: `EOPNOTSUPP` where the device lacks `DeviceAttributes.OnDemandPaging.implicit`.
    public func unsafeRegisterAddressSpace(access: AccessFlags) throws(VerbsError) -> MemoryRegion {
        let reg = try context.entry(context.table.reg_mr, destroyedBy: context.table.dereg_mr, .regMR, object)
        let access = access.union(.onDemand)
        let raw = try context.made(.regMR, object) {
            reg(unsafeRaw, nil, Int(bitPattern: UInt.max), 0, access.rawValue)
        }
        return MemoryRegion(
            raw, protectionDomain: self, access: access, byteCount: .max, address: 0,
            host: UnsafeMutableRawBufferPointer(start: nil, count: 0), backing: .none)
    }

    private func register(
        _ host: UnsafeMutableRawBufferPointer, access: AccessFlags, iova: UInt64?, backing: MemoryRegion.Backing
    ) throws(VerbsError) -> MemoryRegion {
        let reg = try context.entry(context.table.reg_mr, destroyedBy: context.table.dereg_mr, .regMR, object)
        let address = iova ?? (access.contains(.zeroBased) ? 0 : UInt64(UInt(bitPattern: host.baseAddress)))
        let advice = { (errno: Errno) in MemoryRegion.registrationAdvice(errno, access) }
        let raw = try context.made(.regMR, object, advice: advice) {
            reg(unsafeRaw, host.baseAddress, host.count, address, access.rawValue)
        }
        return MemoryRegion(
            raw, protectionDomain: self, access: access, byteCount: host.count, address: address, host: host,
            backing: backing)
    }

    /// Registers a dmabuf, such as memory of a GPU: ibv_reg_dmabuf_mr(3). Its bytes are not mapped here.
    ///
    /// - Parameters:
    ///   - descriptor: the dmabuf; may be closed afterwards.
    ///   - offset: where in the dmabuf the region begins.
    ///   - byteCount: size of the region.
    ///   - iova: the address by which work requests and peers name the first byte. Its offset within a page must
    ///     be that of `offset`.
    ///   - access: who may do what with it.
    public func makeMemoryRegion(
        dmabuf descriptor: FileDescriptor, offset: UInt64, byteCount: Int, iova: UInt64, access: AccessFlags
    ) throws(VerbsError) -> MemoryRegion {
        let reg = try context.entry(
            context.table.reg_dmabuf_mr, destroyedBy: context.table.dereg_mr, .regDMABufMR, object)
        let raw = try context.made(.regDMABufMR, object) {
            reg(unsafeRaw, offset, byteCount, iova, descriptor.rawValue, Int32(bitPattern: access.rawValue))
        }
        return MemoryRegion(
            raw, protectionDomain: self, access: access, byteCount: byteCount, address: iova,
            host: UnsafeMutableRawBufferPointer(start: nil, count: 0), backing: .none)
    }

    /// Makes the null region: ibv_alloc_null_mr(3). What is written there is lost, reads give zeroes.
    public func makeNullMemoryRegion() throws(VerbsError) -> MemoryRegion {
        let alloc = try context.entry(
            context.table.alloc_null_mr, destroyedBy: context.table.dereg_mr, .allocNullMR, object)
        let raw = try context.made(.allocNullMR, object) { alloc(unsafeRaw) }
        return MemoryRegion(
            raw, protectionDomain: self, access: .localWrite, byteCount: Int(UInt32.max), address: 0,
            host: UnsafeMutableRawBufferPointer(start: nil, count: 0), backing: .none)
    }

    /// Advises the device about slices of regions with on-demand paging: ibv_advise_mr(3).
    ///
    /// - Parameters:
    ///   - advice: what is going to happen.
    ///   - slices: to which memory.
    ///   - flush: wait until it is done.
    public func advise(
        _ advice: MemoryAdvice, _ slices: [MemoryRegion.Slice], flush: Bool = false
    ) throws(VerbsError) {
        let advise = try context.entry(context.table.advise_mr, .adviseMR, object)
        var elements = slices.map(\.raw)
        let code = advise(
            unsafeRaw, ib_uverbs_advise_mr_advice(rawValue: advice.rawValue),
            flush ? IB_UVERBS_ADVISE_MR_FLAG_FLUSH.rawValue : 0, &elements, UInt32(elements.count))
        try context.check(.adviseMR, object, code)
    }
}

extension MemoryRegion {
    /// Changes the registration in place: ibv_rereg_mr(3). Cheaper than a new one where the memory stays.
    ///
    /// The answer stands for the region from now on; this object can no longer be used in work requests, but its
    /// bytes stay until it goes. No work request on the region may be outstanding.
    ///
    /// - Parameters:
    ///   - protectionDomain: the new domain; the same by default.
    ///   - access: the new access; the same by default.
    ///   - byteCount: for new, zeroed memory of that size; the same memory by default.
    /// - Throws: `EINVAL` when it was re-registered before. After `EINVAL` and `EOPNOTSUPP` the region is as it
    ///   was; after any other error it can no longer be used.
    public func reregister(
        protectionDomain: ProtectionDomain? = nil, access: AccessFlags? = nil, byteCount: Int? = nil
    ) throws(VerbsError) -> MemoryRegion {
        let rereg = try context.entry(context.table.rereg_mr, .reregMR, object)
        let pages = byteCount == nil ? nil : try Pages(byteCount: byteCount ?? 0, for: object)
        let newHost = pages.map { UnsafeMutableRawBufferPointer(start: $0.base, count: byteCount ?? 0) } ?? unsafeBytes
        let newAccess = access ?? self.access
        let flags =
            (pages == nil ? 0 : IBV_REREG_MR_CHANGE_TRANSLATION.rawValue)
            | (protectionDomain == nil ? 0 : IBV_REREG_MR_CHANGE_PD.rawValue)
            | (access == nil ? 0 : IBV_REREG_MR_CHANGE_ACCESS.rawValue)
        return try withRegistration { (registration: inout Registration) throws(VerbsError) in
            guard let raw = registration.raw else {
                throw outside("it was re-registered before: use the region that reregister answered then")
            }
            let code = rereg(
                raw, Int32(flags), protectionDomain?.unsafeRaw, newHost.baseAddress, newHost.count,
                Int32(bitPattern: newAccess.rawValue))
            // The waist: any other error leaves a region that can only be deregistered.
            if code != 0, code != EINVAL, code != EOPNOTSUPP { registration.disputed = pages }
            try context.check(.reregMR, object, code) { MemoryRegion.registrationAdvice($0, newAccess) }
            registration.raw = nil
            return MemoryRegion(
                raw, protectionDomain: protectionDomain ?? self.protectionDomain, access: newAccess,
                byteCount: pages == nil ? self.byteCount : newHost.count,
                address: pages == nil ? address : UInt64(UInt(bitPattern: newHost.baseAddress)), host: newHost,
                backing: pages.map(Backing.pages) ?? backing)
        }
    }

    /// What to try when registration fails.
    static func registrationAdvice(_ errno: Errno, _ access: AccessFlags) -> Advice {
        switch errno {
        case .noMemory: .memoryLock
        case .invalidArgument
        where !access.isDisjoint(with: [.remoteWrite, .remoteAtomic])
            && !access.contains(.localWrite):
            .text("remoteWrite and remoteAtomic need localWrite as well")
        case .badAddress: .text("there is no memory, or only read-only memory, at that address")
        default: .general(errno)
        }
    }
}
