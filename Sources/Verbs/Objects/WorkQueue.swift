import CIBVerbs
import CProviderABI
import SystemPackage

/// A receive work queue without a queue pair (`struct ibv_wq`, ibv_create_wq(3)): several of them in an
/// `IndirectionTable` receive the packets of one queue pair, distributed by a hash.
///
/// Posting needs exclusive access to the value.
@frozen public struct WorkQueue: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and posting needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_wq>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// Keeps the queue and the objects that it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.
        let context: Context
        let raw: UnsafeMutablePointer<ibv_wq>
        let needs: [AnyObject]
        let limits: Limits
        /// Set by `close`, which needs the value, and read at the end of its life.
        private nonisolated(unsafe) var isDestroyed = false

        init(_ raw: UnsafeMutablePointer<ibv_wq>, context: Context, needs: [AnyObject], limits: Limits) {
            self.raw = raw
            self.context = context
            self.needs = needs
            self.limits = limits
        }

        func close() throws(VerbsError) {
            guard let destroy = context.table.destroy_wq else { return }
            try context.close(.destroyWQ, object, destroy(raw))
            isDestroyed = true
        }

        deinit {
            guard !isDestroyed, let destroy = context.table.destroy_wq else { return }
            context.destroy(.destroyWQ, object, keeping: needs, destroy(raw))
        }

        var object: VerbsObject { context.object("work queue", raw.pointee.wq_num) }
    }

    /// The size of a work queue (`ibv_wq_init_attr`).
    public struct Limits: Hashable, Sendable {
        /// The largest number of outstanding work requests (`max_wr`).
        public var maxWR: UInt32
        /// The largest number of SGEs of a work request (`max_sge`).
        public var maxSGE: UInt32

        /// Makes a value with these limits.
        public init(maxWR: UInt32 = 128, maxSGE: UInt32 = 1) {
            self.maxWR = maxWR
            self.maxSGE = maxSGE
        }
    }

    /// Destroys the work queue and reports a failure: ibv_destroy_wq(3).
    ///
    /// Without this call the same happens when the value goes, and a failure reaches the log only. After a failure, the
    /// work queue is destroyed when the last object that uses it goes.
    ///
    /// - Throws: `EBUSY` while other objects use it.
    public consuming func close() throws(VerbsError) { try owner.close() }

    /// The open device.
    public var context: Context { owner.context }
    /// Its number on this device (`ibv_wq.wq_num`).
    public var number: UInt32 { raw.pointee.wq_num }
    /// The state that `modify` last set (`ibv_wq.state`).
    public var lastKnownState: State { State(rawValue: raw.pointee.state.rawValue) }
    /// The size of the queue, at least the requested one.
    public var limits: Limits { owner.limits }
}

extension ProtectionDomain {
    /// Makes a receive work queue: ibv_create_wq(3). It is in state RESET.
    ///
    /// This call has run only against a fake provider.
    public func makeWorkQueue(
        _ limits: WorkQueue.Limits = .init(), completions: borrowing CompletionQueue, flags: WorkQueue.Flags = []
    ) throws(VerbsError) -> WorkQueue {
        let create = try context.entry(
            context.table.create_wq, destroyedBy: context.table.destroy_wq, .createWQ, object)
        var attributes = ibv_wq_init_attr()
        attributes.wq_type = IBV_WQT_RQ
        attributes.max_wr = limits.maxWR
        attributes.max_sge = limits.maxSGE
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
                limits: WorkQueue.Limits(maxWR: attributes.max_wr, maxSGE: attributes.max_sge)))
    }
}

extension WorkQueue {
    /// Changes the state and the flags: ibv_modify_wq(3).
    ///
    /// - Parameters:
    ///   - state: The new state: RESET to RDY, RDY to ERR, any to RESET. Nil does not change it.
    ///   - flags: The values of the flags in `mask` (`ibv_wq_attr.flags`).
    ///   - mask: The flags to change (`ibv_wq_attr.flags_mask`).
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

    /// Makes the error for a receive that the provider refused, after `posted` others.
    @inline(never)
    public func receiveFailure(sgeCount: Int, _ code: Int32, posted: Int) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice = Advice.receive(errno, sgeCount: sgeCount, limit: limits.maxSGE, depth: limits.maxWR)
        return VerbsError(.postWQReceive, errno, owner.object, advice, postedCount: posted)
    }
}
