import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// A memory region.
struct SoftMemoryRegion: ~Copyable {
    var base = ibv_mr()
    /// What work requests and peers call the first byte.
    var virtualAddress: UInt64
    var access: UInt32
}

extension UnsafeMutablePointer<ibv_mr> {
    var soft: UnsafeMutablePointer<SoftMemoryRegion> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftMemoryRegion.self)
    }
}

/// The access flags that we know. ON_DEMAND and HUGETLB change nothing: no page is ever pinned.
private let knownAccess =
    IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
    | IBV_ACCESS_REMOTE_ATOMIC.rawValue | IBV_ACCESS_ZERO_BASED.rawValue | IBV_ACCESS_HUGETLB.rawValue

/// IBV_ACCESS_OPTIONAL_RANGE of verbs.h: bits 20 to 29 may be ignored by who does not know them.
private let optionalAccess: UInt32 = 0x3FF0_0000

func registerMemory(
    pd: UnsafeMutablePointer<ibv_pd>?, address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
    access: UInt32
) -> UnsafeMutablePointer<ibv_mr>? {
    guard let pd, length >= 0, UInt64(length) <= DeviceLimits.memoryRegionBytes else { return failure(EINVAL) }
    guard access & ~(knownAccess | optionalAccess) == 0 else { return failure(EOPNOTSUPP) }
    let base = access & IBV_ACCESS_ZERO_BASED.rawValue != 0 ? 0 : virtualAddress
    let missing = linux_check_memory(address, length, access & IBV_ACCESS_LOCAL_WRITE.rawValue != 0)
    guard missing == 0 else { return failure(missing) }
    let context = pd.pointee.context!.soft
    context.lockForControl()
    defer { context.unlock() }
    let key: UInt32
    do {
        key = try context.pointee.engine.registerMemory(
            pd.domain.engine, address: address, length: UInt64(length), virtualAddress: base,
            access: AccessFlags(rawValue: access & knownAccess))
    } catch {
        return failure(error.rawValue)
    }
    let region = UnsafeMutablePointer<SoftMemoryRegion>.allocate(capacity: 1)
    region.initialize(to: SoftMemoryRegion(virtualAddress: base, access: access))
    region.pointee.base = ibv_mr(
        context: pd.pointee.context, pd: pd, addr: address, length: length, handle: key >> 16, lkey: key, rkey: key)
    pd.domain.retain()
    return UnsafeMutableRawPointer(region).assumingMemoryBound(to: ibv_mr.self)
}

func deregisterMemory(mr: UnsafeMutablePointer<ibv_mr>?) -> Int32 {
    guard let mr else { return EINVAL }
    let context = mr.pointee.context!.soft
    context.lockForControl()
    try? context.pointee.engine.deregisterMemory(mr.pointee.lkey)
    context.unlock()
    mr.pointee.pd.domain.release()
    mr.soft.deinitialize(count: 1)
    mr.soft.deallocate()
    return 0
}

/// A new registration takes the place of the old one, so the keys change.
func reregisterMemory(
    mr: UnsafeMutablePointer<ibv_mr>?, flags: Int32, pd: UnsafeMutablePointer<ibv_pd>?,
    address: UnsafeMutableRawPointer?, length: Int, access: Int32
) -> Int32 {
    guard let mr else { return EINVAL }
    let known = Int32(IBV_REREG_MR_FLAGS_SUPPORTED.rawValue)
    guard flags & ~known == 0 else { return EOPNOTSUPP }
    let wanted = UInt32(bitPattern: flags)
    let changesPlace = wanted & IBV_REREG_MR_CHANGE_TRANSLATION.rawValue != 0
    let changesDomain = wanted & IBV_REREG_MR_CHANGE_PD.rawValue != 0
    let changesAccess = wanted & IBV_REREG_MR_CHANGE_ACCESS.rawValue != 0
    if changesDomain && pd?.pointee.context != mr.pointee.context { return EINVAL }
    let made = registerMemory(
        pd: changesDomain ? pd : mr.pointee.pd, address: changesPlace ? address : mr.pointee.addr,
        length: changesPlace ? length : mr.pointee.length,
        virtualAddress: changesPlace ? UInt64(UInt(bitPattern: address)) : mr.soft.pointee.virtualAddress,
        access: changesAccess ? UInt32(bitPattern: access) : mr.soft.pointee.access)
    guard let made else { return linux_errno() }
    let context = mr.pointee.context!.soft
    context.lockForControl()
    try? context.pointee.engine.deregisterMemory(mr.pointee.lkey)
    context.unlock()
    mr.pointee.pd.domain.release()
    // The new registration moves into the object that the user holds.
    mr.soft.pointee.virtualAddress = made.soft.pointee.virtualAddress
    mr.soft.pointee.access = made.soft.pointee.access
    mr.pointee = made.pointee
    made.soft.deinitialize(count: 1)
    made.soft.deallocate()
    return 0
}
