import CIBVerbs
import CProviderABI

/// A protection domain (PD): objects that may be used together (`struct ibv_pd`; IBTA volume 1, 10.2.3). Memory
/// regions, queue pairs, shared receive queues and address handles belong to one, and work only with others of the same
/// one.
public final class ProtectionDomain: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

    /// The device.
    public let context: Context
    /// The protection domain of a parent domain (`ibv_parent_domain_init_attr.pd`); nil for other domains.
    public let base: ProtectionDomain?
    /// The thread domain of a parent domain (`ibv_parent_domain_init_attr.td`); nil when there is none.
    public let threadDomain: ThreadDomain?
    /// The struct of verbs.h, for calls into C.
    public let unsafeRaw: UnsafeMutablePointer<ibv_pd>

    init(
        _ raw: UnsafeMutablePointer<ibv_pd>, context: Context, base: ProtectionDomain? = nil,
        threadDomain: ThreadDomain? = nil
    ) {
        unsafeRaw = raw
        self.context = context
        self.base = base
        self.threadDomain = threadDomain
    }

    deinit {
        guard let dealloc = context.table.dealloc_pd else { return }
        context.destroy(.deallocPD, object, keeping: [base, threadDomain], dealloc(unsafeRaw))
    }

    /// The domain, as errors name it.
    var object: VerbsObject { context.object("protection domain", unsafeRaw.pointee.handle) }
}

extension Context {
    /// Makes a protection domain: ibv_alloc_pd(3).
    public func makeProtectionDomain() throws(VerbsError) -> ProtectionDomain {
        let alloc = try entry(
            table.alloc_pd, destroyedBy: table.dealloc_pd, .allocPD, object("context"))
        let raw = try made(.allocPD, object("context")) { alloc(unsafeRaw) }
        return ProtectionDomain(raw, context: self)
    }

    /// Makes a thread domain: ibv_alloc_td(3). Objects that are made in a parent domain with it are used by one thread
    /// at a time, so the provider uses no locks.
    public func makeThreadDomain() throws(VerbsError) -> ThreadDomain {
        let alloc = try entry(table.alloc_td, destroyedBy: table.dealloc_td, .allocTD, object("context"))
        var attributes = ibv_td_init_attr()
        let raw = try made(.allocTD, object("context")) { alloc(unsafeRaw, &attributes) }
        return ThreadDomain(raw, context: self)
    }
}

extension ProtectionDomain {
    /// Makes a parent domain of this one: ibv_alloc_parent_domain(3). It is used like this one; objects that are made
    /// in it belong to the thread domain as well.
    public func makeParentDomain(threadDomain: ThreadDomain? = nil) throws(VerbsError) -> ProtectionDomain {
        let alloc = try context.entry(
            context.table.alloc_parent_domain, destroyedBy: context.table.dealloc_pd, .allocParentDomain, object)
        var attributes = ibv_parent_domain_init_attr()
        attributes.pd = unsafeRaw
        attributes.td = threadDomain?.raw
        let raw = try context.made(.allocParentDomain, object) { alloc(context.unsafeRaw, &attributes) }
        return ProtectionDomain(raw, context: context, base: self, threadDomain: threadDomain)
    }
}

/// A thread domain: its objects are used by one thread at a time (`struct ibv_td`, ibv_alloc_td(3)).
public final class ThreadDomain: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

    /// The device.
    public let context: Context
    let raw: UnsafeMutablePointer<ibv_td>

    init(_ raw: UnsafeMutablePointer<ibv_td>, context: Context) {
        self.raw = raw
        self.context = context
    }

    deinit {
        guard let dealloc = context.table.dealloc_td else { return }
        context.destroy(.deallocTD, context.object("thread domain"), keeping: [], dealloc(raw))
    }
}
