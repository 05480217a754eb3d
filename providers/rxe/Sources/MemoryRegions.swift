import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

// Memory regions and windows: the public struct is all that there is.

func registerMemory(
    pd: UnsafeMutablePointer<ibv_pd>?, address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64,
    access: UInt32
) -> UnsafeMutablePointer<ibv_mr>? {
    guard let pd, length >= 0 else { return failure(EINVAL) }
    let context = pd.pointee.context!
    let optional = context.rxe.pointee.opened.takesOptionalAccess ? 0 : IB_UVERBS_ACCESS_OPTIONAL_RANGE.rawValue
    do {
        let made = try context.rxe.pointee.kernel.registerMemory(
            domain: pd.pointee.handle, address: address, length: length, virtualAddress: virtualAddress,
            access: access & ~optional)
        let region = UnsafeMutablePointer<ibv_mr>.allocate(capacity: 1)
        region.initialize(
            to: ibv_mr(
                context: context, pd: pd, addr: address, length: length, handle: made.handle, lkey: made.localKey,
                rkey: made.remoteKey))
        pd.domain.retain()
        return region
    } catch {
        return failure(error.rawValue)
    }
}

func deregisterMemory(mr: UnsafeMutablePointer<ibv_mr>?) -> Int32 {
    guard let mr else { return EINVAL }
    do {
        try mr.pointee.context.rxe.pointee.kernel.deregisterMemory(mr.pointee.handle)
    } catch {
        return error.rawValue
    }
    mr.pointee.pd.domain.release()
    mr.deallocate()
    return 0
}

func allocateWindow(pd: UnsafeMutablePointer<ibv_pd>?, type: ibv_mw_type) -> UnsafeMutablePointer<ibv_mw>? {
    guard let pd else { return failure(EINVAL) }
    do {
        let made = try pd.pointee.context.rxe.pointee.kernel.allocateWindow(domain: pd.pointee.handle, type: type)
        let window = UnsafeMutablePointer<ibv_mw>.allocate(capacity: 1)
        window.initialize(
            to: ibv_mw(
                context: pd.pointee.context, pd: pd, rkey: made.remoteKey, handle: made.handle, type: type))
        pd.domain.retain()
        return window
    } catch {
        return failure(error.rawValue)
    }
}

func deallocateWindow(mw: UnsafeMutablePointer<ibv_mw>?) -> Int32 {
    guard let mw else { return EINVAL }
    do {
        try mw.pointee.context.rxe.pointee.kernel.deallocateWindow(mw.pointee.handle)
    } catch {
        return error.rawValue
    }
    mw.pointee.pd.domain.release()
    mw.deallocate()
    return 0
}
