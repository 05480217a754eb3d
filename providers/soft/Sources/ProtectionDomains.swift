import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

extension DomainPointer {
    /// The engine's protection domain, whose number is the handle.
    var engine: ProtectionDomain { ProtectionDomain(rawValue: pointee.base.handle) }
}

func allocateDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    do {
        return makeDomain(context: context, handle: try soft.pointee.engine.allocateProtectionDomain().rawValue)
    } catch {
        return failure(tooMany("protection domains", DeviceLimits.protectionDomains, "max_pd"))
    }
}

func deallocateDomain(pd: UnsafeMutablePointer<ibv_pd>?) -> Int32 {
    guard let domain = pd?.domain else { return EINVAL }
    return domain.end { _ in
        let context = domain.pointee.base.context!.soft
        context.lockForControl()
        defer { context.unlock() }
        do throws(RoCETransport.Errno) {
            try context.pointee.engine.deallocate(domain.engine)
            return 0
        } catch {
            return error.rawValue
        }
    }
}
