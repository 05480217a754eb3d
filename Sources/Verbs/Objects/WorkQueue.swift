import CIBVerbs
import CProviderABI
import SystemPackage

/// A receive work queue without a queue pair (ibv_create_wq(3)): several of them in an `IndirectionTable` take
/// the packets of one queue pair by their hash.
///
/// Whoever holds the value posts; nobody else can.
@frozen public struct WorkQueue: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and posting needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_wq>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// Keeps the queue and what it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: the pointer never changes, and the waist allows calls from any thread.
        let context: Context
        let raw: UnsafeMutablePointer<ibv_wq>
        let needs: [AnyObject]
        let limits: Limits

        init(_ raw: UnsafeMutablePointer<ibv_wq>, context: Context, needs: [AnyObject], limits: Limits) {
            self.raw = raw
            self.context = context
            self.needs = needs
            self.limits = limits
        }

        deinit {
            guard let destroy = context.table.destroy_wq else { return }
            context.destroy(.destroyWQ, object, keeping: needs, destroy(raw))
        }

        var object: VerbsObject { context.object("work queue", raw.pointee.wq_num) }
    }

    /// What it holds.
    public struct Limits: Hashable, Sendable {
        /// Most outstanding work requests.
        public var requests: UInt32
        /// Most slices of a work request.
        public var slices: UInt32

        /// Room for that much.
        public init(requests: UInt32 = 128, slices: UInt32 = 1) {
            self.requests = requests
            self.slices = slices
        }
    }

    /// The device.
    public var context: Context { owner.context }
    /// Its number on this device.
    public var number: UInt32 { raw.pointee.wq_num }
    /// Its state as last set from here.
    public var lastKnownState: State { State(rawValue: raw.pointee.state.rawValue) }
    /// What it holds: at least what was asked for.
    public var limits: Limits { owner.limits }
}

extension ProtectionDomain {
    /// Makes a receive work queue: ibv_create_wq(3). It is in state RESET.
    public func makeWorkQueue(
        _ limits: WorkQueue.Limits = .init(), completions: borrowing CompletionQueue, flags: WorkQueue.Flags = []
    ) throws(VerbsError) -> WorkQueue {
        let create = try context.entry(
            context.table.create_wq, destroyedBy: context.table.destroy_wq, .createWQ, object)
        var attributes = ibv_wq_init_attr()
        attributes.wq_type = IBV_WQT_RQ
        attributes.max_wr = limits.requests
        attributes.max_sge = limits.slices
        attributes.pd = unsafeRaw
        attributes.cq = completions.raw
        if !flags.isEmpty {
            attributes.comp_mask = IBV_WQ_INIT_ATTR_FLAGS.rawValue
            attributes.create_flags = flags.rawValue
        }
        let raw = try context.made(.createWQ, object) { create(context.unsafeRaw, &attributes) }
        return WorkQueue(
            WorkQueue.Owner(
                raw, context: context, needs: [self, completions.owner],
                limits: WorkQueue.Limits(requests: attributes.max_wr, slices: attributes.max_sge)))
    }
}

extension WorkQueue {
    /// Moves it to another state, and changes its flags: ibv_modify_wq(3).
    ///
    /// - Parameters:
    ///   - state: where to; RESET to RDY, RDY to ERR, any to RESET. Nil leaves it where it is.
    ///   - flags: the values of the flags in `mask`.
    ///   - mask: which flags change.
    public mutating func modify(
        to state: State? = nil, flags: Flags = [], mask: Flags = []
    ) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_wq, .modifyWQ, owner.object)
        var attributes = ibv_wq_attr()
        if let state {
            attributes.attr_mask |= IBV_WQ_ATTR_STATE.rawValue
            attributes.wq_state = ibv_wq_state(rawValue: state.rawValue)
        }
        if !mask.isEmpty {
            attributes.attr_mask |= IBV_WQ_ATTR_FLAGS.rawValue
            attributes.flags = flags.rawValue
            attributes.flags_mask = mask.rawValue
        }
        try context.check(.modifyWQ, owner.object, modify(raw, &attributes))
        if let state { raw.pointee.state = ibv_wq_state(rawValue: state.rawValue) }
    }
}

extension WorkQueue: ReceiveQueue {
    /// Posts a chain of work requests through the provider's function, unchecked: ibv_post_wq_recv(3).
    @inlinable @inline(__always)
    public mutating func unsafePostReceive(
        _ first: UnsafeMutablePointer<ibv_recv_wr>, _ refused: inout UnsafeMutablePointer<ibv_recv_wr>?
    ) -> Int32 {
        raw.pointee.post_recv.unsafelyUnwrapped(raw, first, &refused)
    }

    /// The error for a receive that was refused, after `posted` others.
    @inline(never)
    public func receiveFailure(slices: Int, _ code: Int32, posted: Int) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice = Advice.receive(errno, slices: slices, limit: limits.slices, depth: limits.requests)
        return VerbsError(.postWQReceive, errno, owner.object, advice, postedCount: posted)
    }
}
