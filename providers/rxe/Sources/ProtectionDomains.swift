import CIBVerbs
import CProviderABI
import KernelVerbs
import ProviderKit

func allocateDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    do {
        return makeDomain(context: context, handle: try context.rxe.pointee.kernel.allocateDomain())
    } catch {
        return failure(error.rawValue)
    }
}

func deallocateDomain(pd: UnsafeMutablePointer<ibv_pd>?) -> Int32 {
    guard let pd else { return EINVAL }
    return pd.domain.end { handle in
        do throws(KernelError) {
            try pd.pointee.context.rxe.pointee.kernel.deallocateDomain(handle)
            return 0
        } catch {
            return error.rawValue
        }
    }
}
