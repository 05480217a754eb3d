import CIBVerbs
import CProviderABI
import ProviderKit
import Synchronization

/// A protection domain, or a parent domain, which stands for the protection domain that it was made from.
struct SoftProtectionDomain: ~Copyable {
    var base = ibv_pd()
    /// What the engine compares: the same in a parent domain and in its protection domain.
    let number: UInt32
    /// Of a parent domain: the protection domain that it stands for.
    let parent: UnsafeMutablePointer<SoftProtectionDomain>?
    /// Of a parent domain: made with a thread domain, so one thread at a time uses what is made under it.
    let isSingleThreaded: Bool
    /// Objects that use it.
    let users = Atomic<Int>(0)

    init(
        context: UnsafeMutablePointer<ibv_context>, number: UInt32,
        parent: UnsafeMutablePointer<SoftProtectionDomain>? = nil, isSingleThreaded: Bool = false
    ) {
        base.context = context
        base.handle = number
        self.number = number
        self.parent = parent
        self.isSingleThreaded = isSingleThreaded
    }
}


typealias ProtectionDomain = UnsafeMutablePointer<SoftProtectionDomain>

extension UnsafeMutablePointer<ibv_pd> {
    var soft: ProtectionDomain { UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftProtectionDomain.self) }
}

extension ProtectionDomain {
    var verbs: UnsafeMutablePointer<ibv_pd> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_pd.self) }

    /// Counts an object that uses the domain.
    func retain() { pointee.users.add(1, ordering: .relaxed) }

    func release() { pointee.users.subtract(1, ordering: .relaxed) }
}

/// Numbers of protection domains, unique in the process: two contexts never share one.
private let nextDomainNumber = Atomic<UInt32>(1)

func allocateDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    let number = nextDomainNumber.add(1, ordering: .relaxed).oldValue
    let domain = ProtectionDomain.allocate(capacity: 1)
    domain.initialize(to: SoftProtectionDomain(context: context, number: number))
    return domain.verbs
}

func deallocateDomain(pd: UnsafeMutablePointer<ibv_pd>?) -> Int32 {
    guard let domain = pd?.soft else { return EINVAL }
    if domain.pointee.users.load(ordering: .relaxed) != 0 { return EBUSY }
    domain.pointee.parent?.release()
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
    let domain = ProtectionDomain.allocate(capacity: 1)
    domain.initialize(
        to: SoftProtectionDomain(
            context: context, number: parent.pointee.number, parent: parent,
            isSingleThreaded: attr.pointee.td != nil))
    parent.retain()
    return domain.verbs
}

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
