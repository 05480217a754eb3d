import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// EOPNOTSUPP from a kernel before 5.18, which knows address handles by no number: it would have the path in every
/// work request.
func createAddressHandle(
    pd: UnsafeMutablePointer<ibv_pd>?, attr: UnsafeMutablePointer<ibv_ah_attr>?
) -> UnsafeMutablePointer<ibv_ah>? {
    guard let pd, let attr else { return failure(EINVAL) }
    let context = pd.pointee.context.rxe
    do {
        var answer = rxe_create_ah_resp()
        let handle = try DriverData.answer(&answer) { driver throws(KernelError) in
            try context.pointee.kernel.createAddressHandle(
                domain: pd.pointee.handle, attr.pointee, driver: driver)
        }
        guard answer.ah_num != 0 else {
            try context.pointee.kernel.destroyAddressHandle(handle)
            return failure(EOPNOTSUPP)
        }
        let made = UnsafeMutablePointer<RxeAddressHandle>.allocate(capacity: 1)
        made.initialize(to: RxeAddressHandle())
        made.pointee.base = ibv_ah(context: pd.pointee.context, pd: pd, handle: handle)
        made.pointee.number = answer.ah_num
        pd.domain.retain()
        return UnsafeMutableRawPointer(made).assumingMemoryBound(to: ibv_ah.self)
    } catch {
        return failure(error.rawValue)
    }
}

func destroyAddressHandle(ah: UnsafeMutablePointer<ibv_ah>?) -> Int32 {
    guard let ah else { return EINVAL }
    do {
        try ah.pointee.context.rxe.pointee.kernel.destroyAddressHandle(ah.pointee.handle)
    } catch {
        return error.rawValue
    }
    ah.pointee.pd.domain.release()
    ah.rxe.deallocate()
    return 0
}

func attachMulticast(qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16) -> Int32 {
    guard let qp, let gid else { return EINVAL }
    do {
        try qp.rxe.context.pointee.kernel.attachMulticast(queuePair: qp.pointee.handle, gid: gid.pointee, lid: lid)
        return 0
    } catch {
        return error.rawValue
    }
}

func detachMulticast(qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16) -> Int32 {
    guard let qp, let gid else { return EINVAL }
    do {
        try qp.rxe.context.pointee.kernel.detachMulticast(queuePair: qp.pointee.handle, gid: gid.pointee, lid: lid)
        return 0
    } catch {
        return error.rawValue
    }
}
