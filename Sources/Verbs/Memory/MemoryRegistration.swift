import CIBVerbs
import CProviderABI
import Glibc
import SystemPackage

extension ProtectionDomain {
    /// Allocates zeroed memory and registers it: ibv_reg_mr(3), with `iova` `ibv_reg_mr_iova`.
    ///
    /// - Parameters:
    ///   - byteCount: Size in bytes, at least 1. The region occupies whole pages.
    ///   - access: The operations that are allowed on the region (`ibv_access_flags`).
    ///   - iova: The address of the first byte in work requests of this process and of peers; its own address by
    ///     default, or 0 with `AccessFlags.zeroBased`.
    /// - Throws: `ENOMEM` (RLIMIT_MEMLOCK, or a limit of the device), `EINVAL` for an access that contradicts
    ///   itself, `EOPNOTSUPP` for a flag that the device does not know.
    public func makeMemoryRegion(
        byteCount: Int, access: AccessFlags = .localWrite, iova: UInt64? = nil
    ) throws(VerbsError) -> MemoryRegion {
        let pages = try Pages(byteCount: byteCount, for: object, of: context)
        let host = UnsafeMutableRawBufferPointer(start: pages.base, count: byteCount)
        return try register(host, access: access, iova: iova, backing: .pages(pages))
    }

    /// Registers memory that the caller owns: ibv_reg_mr(3).
    /// Unsafe: the memory must stay allocated and mapped until the region is deregistered; otherwise the device writes
    /// to memory of something else. The region keeps `owner` alive.
    ///
    /// - Throws: The errors of `makeMemoryRegion`; `EFAULT` when the memory is not mapped.
    public func unsafeRegister(
        _ memory: UnsafeMutableRawBufferPointer, access: AccessFlags, iova: UInt64? = nil, owner: AnyObject? = nil
    ) throws(VerbsError) -> MemoryRegion {
        try register(memory, access: access, iova: iova, backing: .foreign(owner))
    }

    /// Registers all of the address space of the process, with on-demand paging: ibv_reg_mr(3), implicit ODP.
    ///
    /// Unsafe: a peer that has the rkey can access all memory of the process as `access` allows. SGEs take absolute
    /// addresses.
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
        let advice = { (errno: Errno) in self.context.registrationAdvice(errno, access) }
        let marked = try ForkSupport.mark(host, for: context)
        let raw: UnsafeMutablePointer<ibv_mr>
        do throws(VerbsError) {
            raw = try context.made(.regMR, object, advice: advice) {
                reg(unsafeRaw, host.baseAddress, host.count, address, access.rawValue)
            }
        } catch {
            ForkSupport.release(marked)
            throw error
        }
        return MemoryRegion(
            raw, protectionDomain: self, access: access, byteCount: host.count, address: address, host: host,
            backing: backing, marked: marked)
    }

    /// Registers a dmabuf, such as memory of a GPU: ibv_reg_dmabuf_mr(3). Its bytes are not mapped here.
    ///
    /// - Parameters:
    ///   - descriptor: The dmabuf. It may be closed afterwards.
    ///   - offset: Offset of the region in the dmabuf, in bytes.
    ///   - byteCount: Size of the region in bytes.
    ///   - iova: The address of the first byte in work requests of this process and of peers. Its offset within a page
    ///     must be that of `offset`.
    ///   - access: The operations that are allowed on the region (`ibv_access_flags`).
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

    /// Makes the null region: ibv_alloc_null_mr(3). Writes to it are discarded, and reads return zeroes.
    public func makeNullMemoryRegion() throws(VerbsError) -> MemoryRegion {
        let alloc = try context.entry(
            context.table.alloc_null_mr, destroyedBy: context.table.dereg_mr, .allocNullMR, object)
        let raw = try context.made(.allocNullMR, object) { alloc(unsafeRaw) }
        return MemoryRegion(
            raw, protectionDomain: self, access: .localWrite, byteCount: Int(UInt32.max), address: 0,
            host: UnsafeMutableRawBufferPointer(start: nil, count: 0), backing: .none)
    }

    /// Advises the device about SGEs of regions with on-demand paging: ibv_advise_mr(3).
    ///
    /// - Parameters:
    ///   - advice: The advice (`ibv_advise_mr_advice`).
    ///   - sgList: SGEs of the memory.
    ///   - flush: Whether the call waits until the operation is done (`IBV_ADVISE_MR_FLAG_FLUSH`).
    public func advise(
        _ advice: MemoryAdvice, _ sgList: [ScatterGatherElement], flush: Bool = false
    ) throws(VerbsError) {
        let advise = try context.entry(context.table.advise_mr, .adviseMR, object)
        var sges = sgList.map(\.raw)
        try context.check(
            .adviseMR, object,
            advise(
                unsafeRaw, ib_uverbs_advise_mr_advice(rawValue: advice.rawValue),
                flush ? IB_UVERBS_ADVISE_MR_FLAG_FLUSH.rawValue : 0, &sges, UInt32(sges.count)))
    }
}

extension MemoryRegion {
    /// Changes the registration in place: ibv_rereg_mr(3). Cheaper than a new one where the memory stays.
    ///
    /// The returned object is the region from now on. This object can no longer be used in work requests; its bytes
    /// stay until it is destroyed. No work request on the region may be outstanding. The keys may be new: soft keeps them
    /// unless the memory changes.
    ///
    /// - Parameters:
    ///   - protectionDomain: The new protection domain; by default it does not change.
    ///   - access: The new access flags; by default they do not change.
    ///   - byteCount: Size of new, zeroed memory; by default the memory does not change.
    /// - Throws: `EINVAL` when it was re-registered before. After `EINVAL` and `EOPNOTSUPP` the region is as it
    ///   was; after any other error it can no longer be used.
    public func reregister(
        protectionDomain: ProtectionDomain? = nil, access: AccessFlags? = nil, byteCount: Int? = nil
    ) throws(VerbsError) -> MemoryRegion {
        let rereg = try context.entry(context.table.rereg_mr, .reregMR, object)
        let pages = byteCount == nil ? nil : try Pages(byteCount: byteCount ?? 0, for: object, of: context)
        let newHost = pages.map { UnsafeMutableRawBufferPointer(start: $0.base, count: byteCount ?? 0) } ?? unsafeBytes
        let newAccess = access ?? self.access
        let flags =
            (pages == nil ? 0 : IBV_REREG_MR_CHANGE_TRANSLATION.rawValue)
            | (protectionDomain == nil ? 0 : IBV_REREG_MR_CHANGE_PD.rawValue)
            | (access == nil ? 0 : IBV_REREG_MR_CHANGE_ACCESS.rawValue)
        return try withRegistration { (registration: inout Registration) throws(VerbsError) in
            guard let raw = registration.raw else {
                throw outside("it was re-registered before: use the region that reregister returned")
            }
            let marked = pages == nil ? nil : try ForkSupport.mark(newHost, for: context)
            do throws(VerbsError) {
                try context.check(
                    .reregMR, object,
                    rereg(
                        raw, Int32(flags), protectionDomain?.unsafeRaw, newHost.baseAddress, newHost.count,
                        Int32(bitPattern: newAccess.rawValue))
                ) { context.registrationAdvice($0, newAccess) }
            } catch {
                // The provider ABI: any other error leaves a region that can only be deregistered.
                if ![.invalidArgument, .notSupported].contains(error.errno) {
                    registration.disputed = pages
                } else {
                    ForkSupport.release(marked)
                }
                throw error
            }
            registration.raw = nil
            if pages != nil { ForkSupport.release(registration.marked) }
            return MemoryRegion(
                raw, protectionDomain: protectionDomain ?? self.protectionDomain, access: newAccess,
                byteCount: pages == nil ? self.byteCount : newHost.count,
                address: pages == nil ? address : UInt64(UInt(bitPattern: newHost.baseAddress)), host: newHost,
                backing: pages.map(Backing.pages) ?? backing,
                marked: pages == nil ? registration.marked : marked)
        }
    }
}

extension Context {
    /// The hint for a failed registration.
    func registrationAdvice(_ errno: Errno, _ access: AccessFlags) -> Advice {
        switch errno {
        // The kernel pins the memory; a userspace device accesses it without pinning.
        case .noMemory where !isSoftware: .memoryLock
        case .invalidArgument
        where !access.isDisjoint(with: [.remoteWrite, .remoteAtomic])
            && !access.contains(.localWrite):
            .text("remoteWrite and remoteAtomic need localWrite as well")
        case .badAddress: .text("there is no memory, or only read-only memory, at that address")
        default: .general(errno)
        }
    }
}
