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
    let isOnDemand = access & IBV_ACCESS_ON_DEMAND.rawValue != 0
    let base = access & IBV_ACCESS_ZERO_BASED.rawValue != 0 ? 0 : virtualAddress
    if isOnDemand && address == nil && UInt(bitPattern: length) == .max {
        guard base == 0, access & IBV_ACCESS_ZERO_BASED.rawValue == 0 else {
            return failure(
                EINVAL, "addresses in a region of the whole address space are those of the process: iova must be 0")
        }
        return registerPart(
            pd: pd, nil, length: length, virtualAddress: 0, access: access, address: nil, .application)
    }
    guard length >= 0, UInt64(length) <= DeviceLimits.memoryRegionBytes else {
        return failure(
            overLimit("the length", UInt(bitPattern: length), "max_mr_size", Int(DeviceLimits.memoryRegionBytes)))
    }
    // Memory with on-demand paging need not be mapped before it is accessed.
    let missing =
        isOnDemand ? 0 : linux_check_memory(address, length, access & IBV_ACCESS_LOCAL_WRITE.rawValue != 0)
    guard missing == 0 else {
        return failure(
            missing, "no memory is mapped at that address over that length, or the process may not write to all of it")
    }
    return registerPart(
        pd: pd, address, length: length, virtualAddress: base, access: access, address: address, .application)
}

/// Registers mapped memory, or memory with on-demand paging.
/// - Parameter address: `ibv_mr.addr`.
func registerPart(
    pd: UnsafeMutablePointer<ibv_pd>, _ memory: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
    access: UInt32, address: UnsafeMutableRawPointer?, _ backing: RegionBacking
) -> UnsafeMutablePointer<ibv_mr>? {
    guard access & AccessFlags.flushPersistent.rawValue == 0 else {
        return failure(
            EOPNOTSUPP, "IBV_ACCESS_FLUSH_PERSISTENT: soft makes no memory persistent; use IBV_ACCESS_FLUSH_GLOBAL")
    }
    guard access & ~(knownAccess | optionalAccess) == 0 else {
        return failure(EOPNOTSUPP, "the access flags have one that soft does not know")
    }
    let context = pd.pointee.context!.soft
    context.lockForControl()
    defer { context.unlock() }
    let flags = AccessFlags(rawValue: access & knownAccess)
    let key: UInt32
    do throws(RoCETransport.Errno) {
        if access & IBV_ACCESS_ON_DEMAND.rawValue != 0 {
            key = try context.pointee.engine.registerOnDemand(
                pd.domain.engine, address: memory, length: UInt64(UInt(bitPattern: length)),
                virtualAddress: virtualAddress, access: flags)
        } else {
            key = try context.pointee.engine.registerMemory(
                pd.domain.engine, address: memory, length: UInt64(length), virtualAddress: virtualAddress,
                access: flags, shared: context.guarded.pointee.sharedMemory.place(of: memory, byteCount: length))
        }
    } catch {
        return failure(registrationRefusal(error, access, memory, length))
    }
    if case .deviceMemory(let memory) = backing { memory.pointee.regions += 1 }
    return makeRegion(
        pd, key: key, address: address, length: length, virtualAddress: virtualAddress, access: access, backing)
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

/// `ibv_rereg_mr`: replaces the registration by a new one, so that the keys change.
func reregisterMemory(
    mr: UnsafeMutablePointer<ibv_mr>?, flags: Int32, pd: UnsafeMutablePointer<ibv_pd>?,
    address: UnsafeMutableRawPointer?, length: Int, access: Int32
) -> Int32 {
    guard let mr else { return EINVAL }
    let known = Int32(IBV_REREG_MR_FLAGS_SUPPORTED.rawValue)
    guard flags & ~known == 0 else { return EOPNOTSUPP }
    guard case .application = mr.soft.pointee.backing else {
        return refusal(EOPNOTSUPP, "only regions of the application's memory are re-registered")
    }
    let wanted = UInt32(bitPattern: flags)
    let changesPlace = wanted & IBV_REREG_MR_CHANGE_TRANSLATION.rawValue != 0
    let changesDomain = wanted & IBV_REREG_MR_CHANGE_PD.rawValue != 0
    let changesAccess = wanted & IBV_REREG_MR_CHANGE_ACCESS.rawValue != 0
    if changesDomain && pd?.pointee.context != mr.pointee.context {
        return refusal(EINVAL, "the protection domain belongs to another open device")
    }
    let made = registerMemory(
        pd: changesDomain ? pd : mr.pointee.pd, address: changesPlace ? address : mr.pointee.addr,
        length: changesPlace ? length : mr.pointee.length,
        virtualAddress: changesPlace ? UInt64(UInt(bitPattern: address)) : mr.soft.pointee.virtualAddress,
        access: changesAccess ? UInt32(bitPattern: access) : mr.soft.pointee.access)
    guard let made else { return linux_errno() }
    let context = mr.pointee.context!.soft
    let isFree = context.endAccess(key: mr.pointee.lkey)
    context.lockForControl()
    let error = isFree ? context.deregister(mr.pointee.lkey) : .busy
    if error == .busy { _ = context.deregister(made.pointee.lkey) }
    context.unlock()
    guard error != .busy else {
        made.pointee.pd.domain.release()
        made.soft.deinitialize(count: 1)
        made.soft.deallocate()
        // EINVAL, after which the region is unchanged.
        return refusal(EINVAL, isFree ? windowsAreBound : isAccessed)
    }
    mr.pointee.pd.domain.release()
    // The new registration is moved to the object that the user holds.
    mr.soft.pointee.virtualAddress = made.soft.pointee.virtualAddress
    mr.soft.pointee.access = made.soft.pointee.access
    mr.pointee = made.pointee
    made.soft.deinitialize(count: 1)
    made.soft.deallocate()
    return 0
}
