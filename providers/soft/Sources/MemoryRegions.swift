import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// A memory region (`ibv_mr`).
struct SoftMemoryRegion: ~Copyable {
    var base = ibv_mr()
    private let room = ObjectRoom()
    /// The address of the first byte in work requests and for peers (`iova`).
    var virtualAddress: UInt64
    var access: UInt32
    var backing: RegionBacking
}

/// The memory behind a memory region.
enum RegionBacking {
    /// Memory of the application.
    case application
    /// Nothing: `ibv_alloc_null_mr`.
    case null
    case deviceMemory(DeviceMemoryPointer)
    /// A mapping that ends with the region, and its length: `ibv_reg_dmabuf_mr`.
    case mapping(UnsafeMutableRawPointer, Int)
}

extension UnsafeMutablePointer<ibv_mr> {
    var soft: UnsafeMutablePointer<SoftMemoryRegion> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftMemoryRegion.self)
    }
}

/// The supported access flags. IBV_ACCESS_HUGETLB has no effect, since no page is pinned.
private let knownAccess =
    IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
    | IBV_ACCESS_REMOTE_ATOMIC.rawValue | IBV_ACCESS_MW_BIND.rawValue | IBV_ACCESS_ZERO_BASED.rawValue
    | IBV_ACCESS_ON_DEMAND.rawValue | IBV_ACCESS_HUGETLB.rawValue | AccessFlags.flushGlobal.rawValue

/// IBV_ACCESS_OPTIONAL_RANGE of verbs.h: a provider may ignore bits 20 to 29 that it does not know.
private let optionalAccess: UInt32 = 0x3FF0_0000

func registerMemory(
    pd: UnsafeMutablePointer<ibv_pd>?, address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
    access: UInt32
) -> UnsafeMutablePointer<ibv_mr>? {
    guard let pd else { return failure(EINVAL) }
    let base = access & IBV_ACCESS_ZERO_BASED.rawValue != 0 ? 0 : virtualAddress
    let error = check(address, length: length, virtualAddress: base, access: access)
    guard error == 0 else { return failure(error) }
    return registerPart(
        pd: pd, address, length: length, virtualAddress: base, access: access, address: address, .application)
}

/// Checks memory of the application that is to be registered. Returns 0, or the error, which is explained.
private func check(
    _ address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64, access: UInt32
) -> Int32 {
    let isOnDemand = access & IBV_ACCESS_ON_DEMAND.rawValue != 0
    if isOnDemand && address == nil && UInt(bitPattern: length) == .max {
        guard virtualAddress == 0, access & IBV_ACCESS_ZERO_BASED.rawValue == 0 else {
            return refusal(
                EINVAL, "addresses in a region of the whole address space are those of the process: iova must be 0")
        }
        return 0
    }
    guard length >= 0, UInt64(length) <= DeviceLimits.memoryRegionBytes else {
        return overLimit("the length", UInt(bitPattern: length), "max_mr_size", Int(DeviceLimits.memoryRegionBytes))
    }
    // Memory with on-demand paging need not be mapped before it is accessed.
    let missing =
        isOnDemand ? 0 : linux_check_memory(address, length, access & IBV_ACCESS_LOCAL_WRITE.rawValue != 0)
    guard missing == 0 else {
        return refusal(
            missing, "no memory is mapped at that address over that length, or the process may not write to all of it")
    }
    return 0
}

/// Registers mapped memory, or memory with on-demand paging.
/// - Parameter address: `ibv_mr.addr`.
func registerPart(
    pd: UnsafeMutablePointer<ibv_pd>, _ memory: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
    access: UInt32, address: UnsafeMutableRawPointer?, _ backing: RegionBacking
) -> UnsafeMutablePointer<ibv_mr>? {
    let context = pd.pointee.context!.soft
    context.lockForControl()
    defer { context.unlock() }
    var key: UInt32 = 0
    let error = context.register(
        pd.domain, memory, length: length, virtualAddress: virtualAddress, access: access, .new, &key)
    guard error == 0 else { return failure(error) }
    if case .deviceMemory(let memory) = backing { memory.pointee.regions += 1 }
    return makeRegion(
        pd, key: key, address: address, length: length, virtualAddress: virtualAddress, access: access, backing)
}

extension ContextPointer {
    /// Registers memory in the engine, under the lock. Returns 0 and its key, or the error, which is explained.
    fileprivate func register(
        _ domain: DomainPointer, _ memory: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
        access: UInt32, _ registration: Registration, _ key: inout UInt32
    ) -> Int32 {
        guard access & AccessFlags.flushPersistent.rawValue == 0 else {
            return refusal(
                EOPNOTSUPP,
                "IBV_ACCESS_FLUSH_PERSISTENT: soft makes no memory persistent; use IBV_ACCESS_FLUSH_GLOBAL")
        }
        guard access & ~(knownAccess | optionalAccess) == 0 else {
            return refusal(EOPNOTSUPP, "the access flags have one that soft does not know")
        }
        let flags = AccessFlags(rawValue: access & knownAccess)
        do throws(RoCETransport.Errno) {
            if access & IBV_ACCESS_ON_DEMAND.rawValue != 0 {
                key = try pointee.engine.registerOnDemand(
                    domain.engine, address: memory, length: UInt64(UInt(bitPattern: length)),
                    virtualAddress: virtualAddress, access: flags, registration)
            } else {
                key = try pointee.engine.registerMemory(
                    domain.engine, address: memory, length: UInt64(length), virtualAddress: virtualAddress,
                    access: flags, shared: guarded.pointee.sharedMemory.place(of: memory, byteCount: length),
                    registration)
            }
            return 0
        } catch {
            return registrationRefusal(error, access, memory, length)
        }
    }
}

/// Makes the object of a memory region. Under the lock.
func makeRegion(
    _ pd: UnsafeMutablePointer<ibv_pd>, key: UInt32, address: UnsafeMutableRawPointer?, length: Int,
    virtualAddress: UInt64, access: UInt32, _ backing: RegionBacking
) -> UnsafeMutablePointer<ibv_mr> {
    let region = UnsafeMutablePointer<SoftMemoryRegion>.allocate(capacity: 1)
    region.initialize(to: SoftMemoryRegion(virtualAddress: virtualAddress, access: access, backing: backing))
    rdma_init_mr(&region.pointee.base, pd, address, length, key >> 16, key, key)
    pd.domain.retain()
    return UnsafeMutableRawPointer(region).assumingMemoryBound(to: ibv_mr.self)
}

/// Explains and returns the error of a registration that the engine refused.
private func registrationRefusal(
    _ error: RoCETransport.Errno, _ access: UInt32, _ address: UnsafeMutableRawPointer?, _ length: Int
) -> Int32 {
    if error == .noMemory { return tooMany("memory regions", Int(Limits.maxMR), "max_mr") }
    if error == .busy { return refusal(error.rawValue, windowsAreBound) }
    let remote = IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_ATOMIC.rawValue
    if access & remote != 0 && access & IBV_ACCESS_LOCAL_WRITE.rawValue == 0 {
        return refusal(error.rawValue, "remoteWrite and remoteAtomic need localWrite as well")
    }
    if access & IBV_ACCESS_ON_DEMAND.rawValue != 0 && access & IBV_ACCESS_MW_BIND.rawValue != 0 {
        return refusal(error.rawValue, "memory windows cannot be bound to memory with on-demand paging")
    }
    if address == nil && length > 0 { return refusal(error.rawValue, "the address is null") }
    return refusal(error.rawValue, "the region extends past the end of the address space: check iova and length")
}

func deregisterMemory(mr: UnsafeMutablePointer<ibv_mr>?) -> Int32 {
    guard let mr else { return EINVAL }
    let context = mr.pointee.context!.soft
    guard context.endAccess(key: mr.pointee.lkey) else { return refusal(EBUSY, isAccessed) }
    context.lockForControl()
    let error = context.deregister(mr.pointee.lkey)
    if error != .busy, case .deviceMemory(let memory) = mr.soft.pointee.backing { memory.pointee.regions -= 1 }
    context.unlock()
    guard error != .busy else { return refusal(error.rawValue, windowsAreBound) }
    if case .mapping(let address, let length) = mr.soft.pointee.backing { linux_unmap(address, length) }
    mr.pointee.pd.domain.release()
    mr.soft.deinitialize(count: 1)
    mr.soft.deallocate()
    return 0
}

private let isAccessed: StaticString =
    "a process of this host is stopped in the middle of an access to the region: let it continue, or end it"
private let windowsAreBound: StaticString =
    "memory windows are bound to the region: deallocate them, bind them elsewhere or invalidate them first"

extension ContextPointer {
    /// Deregisters memory under the lock. Returns `.success` or the error.
    fileprivate func deregister(_ key: UInt32) -> RoCETransport.Errno {
        do throws(RoCETransport.Errno) {
            try pointee.engine.deregisterMemory(key)
            return .success
        } catch {
            pointee.engine.restore(key: key)
            return error
        }
    }
}

/// `ibv_rereg_mr`. The keys stay where access or protection domain change alone, as in Linux's rxe and mlx5; other memory gets
/// other ones. After EINVAL and EOPNOTSUPP the region is what it was.
func reregisterMemory(
    mr: UnsafeMutablePointer<ibv_mr>?, flags: Int32, pd: UnsafeMutablePointer<ibv_pd>?,
    address: UnsafeMutableRawPointer?, length: Int, access: Int32
) -> Int32 {
    guard let mr else { return EINVAL }
    let known = Int32(IBV_REREG_MR_FLAGS_SUPPORTED.rawValue)
    guard flags & ~known == 0 else { return EOPNOTSUPP }
    guard flags != 0 else { return refusal(EINVAL, "flags: nothing is to change") }
    guard case .application = mr.soft.pointee.backing else {
        return refusal(EOPNOTSUPP, "only regions of the application's memory are re-registered")
    }
    let wanted = UInt32(bitPattern: flags)
    let changesPlace = wanted & IBV_REREG_MR_CHANGE_TRANSLATION.rawValue != 0
    let changesDomain = wanted & IBV_REREG_MR_CHANGE_PD.rawValue != 0
    if changesDomain && pd?.pointee.context != mr.pointee.context {
        return refusal(EINVAL, "the protection domain belongs to another open device")
    }
    let (old, key) = (mr.pointee.pd.domain, mr.pointee.lkey)
    let domain = changesDomain ? pd!.domain : old
    let access =
        wanted & IBV_REREG_MR_CHANGE_ACCESS.rawValue != 0 ? UInt32(bitPattern: access) : mr.soft.pointee.access
    let (start, count) = changesPlace ? (address, length) : (mr.pointee.addr, mr.pointee.length)
    // Under a key that stays, the addresses stay: IBV_ACCESS_ZERO_BASED is for a translation that is made.
    let newBase = access & IBV_ACCESS_ZERO_BASED.rawValue != 0 ? 0 : UInt64(UInt(bitPattern: address))
    let base = changesPlace ? newBase : mr.soft.pointee.virtualAddress
    let invalid = check(start, length: count, virtualAddress: base, access: access)
    guard invalid == 0 else { return invalid }
    let context = mr.pointee.context!.soft
    // From here on, until the new registration is in its place, requesters of this host send packets.
    guard context.endAccess(key: key) else { return refusal(EINVAL, isAccessed) }
    context.lockForControl()
    var newKey: UInt32 = 0
    let error = context.register(
        domain, start, length: count, virtualAddress: base, access: access,
        changesPlace ? .replacing(key) : .keeping(key), &newKey)
    if error == 0 {
        // Before the old one, which may be the same.
        domain.retain()
    } else {
        context.pointee.engine.restore(key: key)
    }
    context.unlock()
    // EINVAL, after which the region is unchanged.
    guard error == 0 else { return error == EBUSY ? EINVAL : error }
    old.release()
    mr.soft.pointee.virtualAddress = base
    mr.soft.pointee.access = access
    if changesDomain { mr.pointee.pd = pd }
    mr.pointee.addr = start
    mr.pointee.length = count
    mr.pointee.lkey = newKey
    mr.pointee.rkey = newKey
    return 0
}
