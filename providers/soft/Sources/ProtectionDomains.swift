import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import Synchronization

/// A protection domain, or a parent domain, which stands for the protection domain that it was made from.
struct SoftDomain: ~Copyable {
    var base = ibv_pd()
    /// The engine's: the same in a parent domain and in its protection domain.
    let domain: ProtectionDomain
    /// Of a parent domain: the protection domain that it stands for.
    let parent: DomainPointer?
    /// Of a parent domain: made with a thread domain, so one thread at a time uses what is made under it.
    let isSingleThreaded: Bool
    /// Objects made under it.
    let users = Atomic<Int>(0)

    init(
        context: UnsafeMutablePointer<ibv_context>, domain: ProtectionDomain, parent: DomainPointer? = nil,
        isSingleThreaded: Bool = false
    ) {
        base.context = context
        base.handle = domain.rawValue
        self.domain = domain
        self.parent = parent
        self.isSingleThreaded = isSingleThreaded
    }
}

typealias DomainPointer = UnsafeMutablePointer<SoftDomain>

extension UnsafeMutablePointer<ibv_pd> {
    var soft: DomainPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftDomain.self) }
}

extension DomainPointer {
    var verbs: UnsafeMutablePointer<ibv_pd> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_pd.self) }

    var domain: ProtectionDomain { pointee.domain }

    /// Counts an object that was made under the domain.
    func retain() { pointee.users.add(1, ordering: .relaxed) }

    func release() { pointee.users.subtract(1, ordering: .relaxed) }
}

func allocateDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    let soft = context.soft
    soft.lockForControl()
    defer { soft.unlock() }
    do {
        let made = try soft.pointee.engine.allocateProtectionDomain()
        let domain = DomainPointer.allocate(capacity: 1)
        domain.initialize(to: SoftDomain(context: context, domain: made))
        return domain.verbs
    } catch {
        return failure(error.rawValue)
    }
}

func deallocateDomain(pd: UnsafeMutablePointer<ibv_pd>?) -> Int32 {
    guard let domain = pd?.soft else { return EINVAL }
    if domain.pointee.users.load(ordering: .relaxed) != 0 { return EBUSY }
    if let parent = domain.pointee.parent {
        parent.release()
    } else {
        let context = domain.pointee.base.context!.soft
        context.lockForControl()
        defer { context.unlock() }
        do {
            try context.pointee.engine.deallocate(domain.domain)
        } catch {
            return error.rawValue
        }
    }
    domain.deinitialize(count: 1)
    domain.deallocate()
    return 0
}

/// A parent domain takes no allocators: what soft allocates, no hardware reads.
func allocateParentDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_parent_domain_init_attr>?
) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context, let attr, let parent = attr.pointee.pd?.soft else { return failure(EINVAL) }
    let known = IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT.rawValue
    guard attr.pointee.comp_mask & ~known == 0 else { return failure(EOPNOTSUPP) }
    guard parent.pointee.base.context == context, parent.pointee.parent == nil else { return failure(EINVAL) }
    let domain = DomainPointer.allocate(capacity: 1)
    domain.initialize(
        to: SoftDomain(
            context: context, domain: parent.domain, parent: parent, isSingleThreaded: attr.pointee.td != nil))
    parent.retain()
    return domain.verbs
}

/// A thread domain only has to exist.
func allocateThreadDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_td_init_attr>?
) -> UnsafeMutablePointer<ibv_td>? {
    guard let context, let attr else { return failure(EINVAL) }
    guard attr.pointee.comp_mask == 0 else { return failure(EOPNOTSUPP) }
    let domain = UnsafeMutablePointer<ibv_td>.allocate(capacity: 1)
    domain.initialize(to: ibv_td(context: context))
    return domain
}

func deallocateThreadDomain(td: UnsafeMutablePointer<ibv_td>?) -> Int32 {
    guard let td else { return EINVAL }
    td.deallocate()
    return 0
}
