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
    let context = pd.pointee.context.native
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
