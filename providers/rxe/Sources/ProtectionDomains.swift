import CIBVerbs
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit
import Synchronization

/// A protection domain, or a parent domain, which stands for the protection domain that it was made from.
struct RxeDomain: ~Copyable {
    /// The kernel's handle is the same in a parent domain and in its protection domain.
    var base = ibv_pd()
    /// Of a parent domain: the protection domain that it stands for.
    let parent: DomainPointer?
    /// Of a parent domain: made with a thread domain, so one thread at a time uses what is made under it.
    let isSingleThreaded: Bool
    /// Objects made under it.
    let users = Atomic<Int>(0)

    init(
        context: UnsafeMutablePointer<ibv_context>, handle: UInt32, parent: DomainPointer? = nil,
        isSingleThreaded: Bool = false
    ) {
        base.context = context
        base.handle = handle
        self.parent = parent
        self.isSingleThreaded = isSingleThreaded
    }
}

typealias DomainPointer = UnsafeMutablePointer<RxeDomain>

extension UnsafeMutablePointer<ibv_pd> {
    var rxe: DomainPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: RxeDomain.self) }
}

extension DomainPointer {
    var verbs: UnsafeMutablePointer<ibv_pd> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_pd.self) }

    /// Counts an object that was made under the domain.
    func retain() { pointee.users.add(1, ordering: .relaxed) }

    func release() { pointee.users.subtract(1, ordering: .relaxed) }
}

func allocateDomain(context: UnsafeMutablePointer<ibv_context>?) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context else { return failure(EINVAL) }
    do {
        let handle = try context.rxe.pointee.kernel.allocateDomain()
        let domain = DomainPointer.allocate(capacity: 1)
        domain.initialize(to: RxeDomain(context: context, handle: handle))
        return domain.verbs
    } catch {
        return failure(error.rawValue)
    }
}

func deallocateDomain(pd: UnsafeMutablePointer<ibv_pd>?) -> Int32 {
    guard let domain = pd?.rxe else { return EINVAL }
    if domain.pointee.users.load(ordering: .relaxed) != 0 { return EBUSY }
    if let parent = domain.pointee.parent {
        parent.release()
    } else {
        do {
            try domain.pointee.base.context.rxe.pointee.kernel.deallocateDomain(domain.pointee.base.handle)
        } catch {
            return error.rawValue
        }
    }
    domain.deinitialize(count: 1)
    domain.deallocate()
    return 0
}

/// A parent domain takes no allocators: the memory of the queues is the kernel's.
func allocateParentDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_parent_domain_init_attr>?
) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context, let attr, let parent = attr.pointee.pd?.rxe else { return failure(EINVAL) }
    let known = IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT.rawValue
    guard attr.pointee.comp_mask & ~known == 0 else { return failure(EOPNOTSUPP) }
    guard parent.pointee.base.context == context, parent.pointee.parent == nil else { return failure(EINVAL) }
    let domain = DomainPointer.allocate(capacity: 1)
    domain.initialize(
        to: RxeDomain(
            context: context, handle: parent.pointee.base.handle, parent: parent,
            isSingleThreaded: attr.pointee.td != nil))
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
