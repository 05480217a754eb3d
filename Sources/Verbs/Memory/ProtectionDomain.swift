import CIBVerbs
import CProviderABI

/// A protection domain: what may be used together (IBTA volume 1, 10.2.3). Memory regions, queue pairs,
/// shared receive queues and address handles are made in one, and work only with each other.
public final class ProtectionDomain: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the waist allows calls from any thread.

    /// The device.
    public let context: Context
    /// The domain that this one, a parent domain, stands for; else nil.
    public let base: ProtectionDomain?
    /// The thread domain of a parent domain; else nil.
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

    /// Makes a thread domain: ibv_alloc_td(3). What is made in a parent domain over it is used by one thread
    /// at a time, so the provider leaves its locks out.
    public func makeThreadDomain() throws(VerbsError) -> ThreadDomain {
        let alloc = try entry(table.alloc_td, destroyedBy: table.dealloc_td, .allocTD, object("context"))
        var attributes = ibv_td_init_attr()
        let raw = try made(.allocTD, object("context")) { alloc(unsafeRaw, &attributes) }
        return ThreadDomain(raw, context: self)
    }
}

extension ProtectionDomain {
    /// Makes a parent domain over this one: ibv_alloc_parent_domain(3). It is used like this one; what is made
    /// in it belongs to the thread domain as well.
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

/// A promise that objects are used by one thread at a time (ibv_alloc_td(3)).
public final class ThreadDomain: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the waist allows calls from any thread.

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
