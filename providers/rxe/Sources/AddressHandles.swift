import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// `ibv_create_ah`. Fails with EOPNOTSUPP on a kernel before 5.18, which returns no AH number
/// (`rxe_create_ah_resp.ah_num`) and expects the address vector (`struct rxe_av`) in each WQE.
func createAddressHandle(
    pd: UnsafeMutablePointer<ibv_pd>?, attr: UnsafeMutablePointer<ibv_ah_attr>?
) -> UnsafeMutablePointer<ibv_ah>? {
    guard let pd, let attr else { return failure(EINVAL) }
    let context = pd.pointee.context.native
    do {
        var response = rxe_create_ah_resp()
        let handle = try DriverData.response(&response) { driver throws(KernelError) in
            try context.pointee.kernel.createAddressHandle(
                domain: pd.pointee.handle, attr.pointee, driver: driver)
        }
        guard response.ah_num != 0 else {
            try context.pointee.kernel.destroyAddressHandle(handle)
            return failure(EOPNOTSUPP)
        }
        let ah = UnsafeMutablePointer<RxeAddressHandle>.allocate(capacity: 1)
        ah.initialize(to: RxeAddressHandle())
        rdma_init_ah(&ah.pointee.base, pd, handle)
        ah.pointee.number = response.ah_num
        pd.domain.retain()
        return UnsafeMutableRawPointer(ah).assumingMemoryBound(to: ibv_ah.self)
    } catch {
        return failure(error.rawValue)
    }
}
