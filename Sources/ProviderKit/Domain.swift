import CIBVerbs
import CLinux
import CProviderABI
import Synchronization

/// A protection domain (`ibv_pd`), or a parent domain (`ibv_alloc_parent_domain`) of a protection domain.
public struct Domain: ~Copyable {
    /// The `ibv_pd`. A parent domain has the `handle` of its protection domain.
    public var base = ibv_pd()
    private let room = ObjectRoom()
    /// The protection domain of a parent domain (`ibv_parent_domain_init_attr.pd`); nil for a protection domain.
    fileprivate let parent: DomainPointer?
    /// Whether this is a parent domain with a thread domain (`ibv_parent_domain_init_attr.td`): one thread at a time
    /// uses its objects.
    public let isSingleThreaded: Bool
    /// The number of objects created with this domain.
    fileprivate let users = Atomic<Int>(0)

    fileprivate init(
        context: UnsafeMutablePointer<ibv_context>, handle: UInt32, parent: DomainPointer? = nil,
        isSingleThreaded: Bool = false
    ) {
        rdma_init_pd(&base, context, handle)
        self.parent = parent
        self.isSingleThreaded = isSingleThreaded
    }
}

/// A pointer to a domain. The domain begins with its `ibv_pd`.
public typealias DomainPointer = UnsafeMutablePointer<Domain>

extension UnsafeMutablePointer<ibv_pd> {
    /// The domain that contains this `ibv_pd`. It was returned by `makeDomain` or `allocateParentDomain`.
    public var domain: DomainPointer { UnsafeMutableRawPointer(self).assumingMemoryBound(to: Domain.self) }
}

extension DomainPointer {
    fileprivate static func make(_ domain: consuming Domain) -> DomainPointer {
        let pointer = DomainPointer.allocate(capacity: 1)
        pointer.initialize(to: domain)
        return pointer
    }

    fileprivate var verbs: UnsafeMutablePointer<ibv_pd> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: ibv_pd.self)
    }

    /// Counts an object that was created with the domain.
    public func retain() { pointee.users.add(1, ordering: .relaxed) }

    /// Uncounts a destroyed object of the domain.
    public func release() { pointee.users.subtract(1, ordering: .relaxed) }

    /// Destroys the domain (`ibv_dealloc_pd`), unless objects still use it.
    /// - Parameter handle: Deallocates the handle of a protection domain. It returns 0, or an errno value, after which
    ///   the domain still exists. Not called for a parent domain, which has no handle of its own.
    /// - Returns: 0, EBUSY, or the errno value returned by `handle`.
    public func end(givingBack handle: (UInt32) -> Int32) -> Int32 {
        let left = pointee.users.load(ordering: .relaxed)
        if left != 0 {
            var text = MessageText("memory regions, queue pairs or address handles still use the domain, in total ")
            text.append(left)
            text.append(": destroy them first")
            return text.refusal(EBUSY)
        }
        if let parent = pointee.parent {
            parent.release()
        } else {
            let refusal = handle(pointee.base.handle)
            if refusal != 0 { return refusal }
        }
        deinitialize(count: 1)
        deallocate()
        return 0
    }
}

// MARK: - Entries of the control table

/// Creates a protection domain (`ibv_pd`) with the given `handle`. `end` destroys it.
public func makeDomain(context: UnsafeMutablePointer<ibv_context>, handle: UInt32) -> UnsafeMutablePointer<ibv_pd> {
    DomainPointer.make(Domain(context: context, handle: handle)).verbs
}

/// `alloc_parent_domain` (`ibv_alloc_parent_domain`). Allocators (IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS) are refused
/// with EOPNOTSUPP, because the provider allocates its queues itself.
public func allocateParentDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_parent_domain_init_attr>?
) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context, let attr, let parent = attr.pointee.pd?.domain else { return failure(EINVAL) }
    let known = IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT.rawValue
    guard attr.pointee.comp_mask & ~known == 0 else {
        return failure(EOPNOTSUPP, "the provider allocates its queues itself: it supports no allocators")
    }
    guard parent.pointee.base.context == context, parent.pointee.parent == nil else {
        return failure(EINVAL, "pd: a parent domain needs a protection domain of the same open device (ibv_context)")
    }
    parent.retain()
    return DomainPointer.make(
        Domain(
            context: context, handle: parent.pointee.base.handle, parent: parent,
            isSingleThreaded: attr.pointee.td != nil)
    ).verbs
}

/// `alloc_td` (`ibv_alloc_td`) for a provider that keeps no state in a thread domain.
public func allocateThreadDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_td_init_attr>?
) -> UnsafeMutablePointer<ibv_td>? {
    guard let context, let attr else { return failure(EINVAL) }
    guard attr.pointee.comp_mask == 0 else { return failure(EOPNOTSUPP) }
    let domain = allocatePublicStruct(ibv_td.self)
    rdma_init_td(domain, context)
    return domain
}

/// `dealloc_td` (`ibv_dealloc_td`).
public func deallocateThreadDomain(td: UnsafeMutablePointer<ibv_td>?) -> Int32 {
    guard let td else { return EINVAL }
    td.deallocate()
    return 0
}
