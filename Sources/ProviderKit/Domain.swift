import CIBVerbs
import CLinux
import Synchronization

/// A protection domain, or a parent domain, which stands for the protection domain that it was made from.
public struct Domain: ~Copyable {
    /// The public struct. Its handle is the same in a parent domain and in its protection domain.
    public var base = ibv_pd()
    /// Of a parent domain: the protection domain that it stands for.
    fileprivate let parent: DomainPointer?
    /// Of a parent domain: made with a thread domain, so one thread at a time uses what is made under it.
    public let isSingleThreaded: Bool
    /// Objects made under it.
    fileprivate let users = Atomic<Int>(0)

    fileprivate init(
        context: UnsafeMutablePointer<ibv_context>, handle: UInt32, parent: DomainPointer? = nil,
        isSingleThreaded: Bool = false
    ) {
        base.context = context
        base.handle = handle
        self.parent = parent
        self.isSingleThreaded = isSingleThreaded
    }
}

/// Where a domain lies; the public struct comes first.
public typealias DomainPointer = UnsafeMutablePointer<Domain>

extension UnsafeMutablePointer<ibv_pd> {
    /// The whole of a domain that `makeDomain` made.
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

    /// Counts an object that was made under the domain.
    public func retain() { pointee.users.add(1, ordering: .relaxed) }

    /// Counts an object of the domain that is gone.
    public func release() { pointee.users.subtract(1, ordering: .relaxed) }

    /// Ends the domain, unless something still stands under it.
    /// - Parameter handle: gives the handle of a protection domain back: 0, or the errno value with which the domain stays.
    ///   A parent domain has none of its own.
    /// - Returns: 0, EBUSY, or what `handle` answered.
    public func end(givingBack handle: (UInt32) -> Int32) -> Int32 {
        if pointee.users.load(ordering: .relaxed) != 0 { return EBUSY }
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

// MARK: - What the control table does

/// A protection domain that the provider knows by this handle; `end` ends it.
public func makeDomain(context: UnsafeMutablePointer<ibv_context>, handle: UInt32) -> UnsafeMutablePointer<ibv_pd> {
    DomainPointer.make(Domain(context: context, handle: handle)).verbs
}

/// `alloc_parent_domain` for a provider whose queues lie in memory that is not the user's to choose: allocators are
/// refused with EOPNOTSUPP.
public func allocateParentDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_parent_domain_init_attr>?
) -> UnsafeMutablePointer<ibv_pd>? {
    guard let context, let attr, let parent = attr.pointee.pd?.domain else { return failure(EINVAL) }
    let known = IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT.rawValue
    guard attr.pointee.comp_mask & ~known == 0 else { return failure(EOPNOTSUPP) }
    guard parent.pointee.base.context == context, parent.pointee.parent == nil else { return failure(EINVAL) }
    parent.retain()
    return DomainPointer.make(
        Domain(
            context: context, handle: parent.pointee.base.handle, parent: parent,
            isSingleThreaded: attr.pointee.td != nil)
    ).verbs
}

/// `alloc_td` for a provider to which a thread domain only has to exist.
public func allocateThreadDomain(
    context: UnsafeMutablePointer<ibv_context>?, attr: UnsafeMutablePointer<ibv_td_init_attr>?
) -> UnsafeMutablePointer<ibv_td>? {
    guard let context, let attr else { return failure(EINVAL) }
    guard attr.pointee.comp_mask == 0 else { return failure(EOPNOTSUPP) }
    let domain = UnsafeMutablePointer<ibv_td>.allocate(capacity: 1)
    domain.initialize(to: ibv_td(context: context))
    return domain
}

/// `dealloc_td`.
public func deallocateThreadDomain(td: UnsafeMutablePointer<ibv_td>?) -> Int32 {
    guard let td else { return EINVAL }
    td.deallocate()
    return 0
}
