import CIBVerbs
import CProviderABI
import SystemPackage

/// A shared receive queue (SRQ): receives for many queue pairs (`struct ibv_srq`, ibv_create_srq_ex(3)).
///
/// Posting needs exclusive access to the value. Queue pairs that use the queue keep it alive.
@frozen public struct SharedReceiveQueue: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and posting needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_srq>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// The identity of the queue in events.
    public struct ID: Hashable, Sendable {
        let address: UInt
        init(_ raw: UnsafeMutablePointer<ibv_srq>?) { address = UInt(bitPattern: raw) }
    }

    /// Keeps the queue and the objects that it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.
        let context: Context
        let raw: UnsafeMutablePointer<ibv_srq>
        let needs: [AnyObject]
        let attributes: Attributes
        /// Set by `close`, which needs the value, and read at the end of its life.
        private nonisolated(unsafe) var isDestroyed = false

        init(_ raw: UnsafeMutablePointer<ibv_srq>, context: Context, needs: [AnyObject], attributes: Attributes) {
            self.raw = raw
            self.context = context
            self.needs = needs
            self.attributes = attributes
        }

        func close() throws(VerbsError) {
            guard let destroy = context.table.destroy_srq else { return }
            try context.close(.destroySRQ, object, destroy(raw))
            isDestroyed = true
        }

        deinit {
            guard !isDestroyed, let destroy = context.table.destroy_srq else { return }
            context.destroy(.destroySRQ, object, keeping: needs, destroy(raw))
        }

        var object: VerbsObject { context.object("shared receive queue", raw.pointee.handle) }
    }

    /// The attributes of a shared receive queue (struct ibv_srq_attr).
    public struct Attributes: Hashable, Sendable {
        /// The largest number of outstanding work requests (`max_wr`).
        public var maxWR: UInt32
        /// The largest number of SGEs of a work request (`max_sge`).
        public var maxSGE: UInt32
        /// The limit (`srq_limit`): the event `sharedReceiveQueueLimitReached` is raised once when fewer work requests
        /// are outstanding; 0 raises none.
        public var limit: UInt32

        /// Makes attributes with these values; by default without a limit event.
        public init(maxWR: UInt32 = 128, maxSGE: UInt32 = 1, limit: UInt32 = 0) {
            self.maxWR = maxWR
            self.maxSGE = maxSGE
            self.limit = limit
        }

        init(_ raw: ibv_srq_attr) { self.init(maxWR: raw.max_wr, maxSGE: raw.max_sge, limit: raw.srq_limit) }

        var raw: ibv_srq_attr { ibv_srq_attr(max_wr: maxWR, max_sge: maxSGE, srq_limit: limit) }
    }

    /// Destroys the shared receive queue and reports a failure: ibv_destroy_srq(3).
    ///
    /// Without this call the same happens when the value goes, and a failure reaches the log only. After a failure, the
    /// shared receive queue is destroyed when the last object that uses it goes.
    ///
    /// - Throws: `EBUSY` while other objects use it.
    public consuming func close() throws(VerbsError) { try owner.close() }

    /// The open device.
    public var context: Context { owner.context }
    /// The identity of the queue in events.
    public var id: ID { ID(raw) }
    /// The attributes that the queue was made with, at least the requested ones.
    public var attributes: Attributes { owner.attributes }
    /// The struct of verbs.h, for calls into C.
    public var unsafeRaw: UnsafeMutablePointer<ibv_srq> { raw }
}

extension ProtectionDomain {
    /// Makes a shared receive queue: ibv_create_srq_ex(3) with `IBV_SRQT_BASIC`, the same as ibv_create_srq(3).
    ///
    /// - Throws: `EINVAL` for more than the device allows, `EOPNOTSUPP`, `ENOMEM`.
    public func makeSharedReceiveQueue(_ attributes: SharedReceiveQueue.Attributes = .init()) throws(VerbsError)
        -> SharedReceiveQueue
    {
        var initial = ibv_srq_init_attr_ex()
        initial.comp_mask = IBV_SRQ_INIT_ATTR_TYPE.rawValue | IBV_SRQ_INIT_ATTR_PD.rawValue
        initial.srq_type = IBV_SRQT_BASIC
        initial.pd = unsafeRaw
        initial.attr = attributes.raw
        return try context.makeSharedReceiveQueue(&initial, needs: [self], object)
    }
}

extension Context {
    /// Makes a shared receive queue from the attributes of verbs.h and keeps `needs` alive with it.
    func makeSharedReceiveQueue(
        _ attributes: inout ibv_srq_init_attr_ex, needs: [AnyObject], _ object: VerbsObject
    ) throws(VerbsError) -> SharedReceiveQueue {
        let create = try entry(table.create_srq_ex, destroyedBy: table.destroy_srq, .createSRQ, object)
        let asked = SharedReceiveQueue.Attributes(attributes.attr)
        let advice = { (errno: Errno) -> Advice in
            errno == .invalidArgument
                ? .text(
                    "requested \(asked.maxWR) receives of \(asked.maxSGE) SGEs: compare with"
                        + " maxSRQWR and maxSRQSGE of the device's attributes")
                : .general(errno)
        }
        let raw = try made(.createSRQ, object, advice: advice) { create(unsafeRaw, &attributes) }
        return SharedReceiveQueue(
            SharedReceiveQueue.Owner(
                raw, context: self, needs: needs, attributes: SharedReceiveQueue.Attributes(attributes.attr)))
    }
}

extension SharedReceiveQueue {
    /// Sets `limit`: ibv_modify_srq(3) with `IBV_SRQ_LIMIT`.
    public func setLimit(_ limit: UInt32) throws(VerbsError) {
        try modify(ibv_srq_attr(max_wr: 0, max_sge: 0, srq_limit: limit), IBV_SRQ_LIMIT.rawValue)
    }

    /// Changes the largest number of outstanding work requests: ibv_modify_srq(3) with `IBV_SRQ_MAX_WR`.
    ///
    /// - Throws: `EINVAL` when more are outstanding, `EOPNOTSUPP` when the device does not support it.
    public mutating func resize(maxWR: UInt32) throws(VerbsError) {
        try modify(ibv_srq_attr(max_wr: maxWR, max_sge: 0, srq_limit: 0), IBV_SRQ_MAX_WR.rawValue)
    }

    private func modify(_ attributes: ibv_srq_attr, _ mask: UInt32) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_srq, .modifySRQ, owner.object)
        var attributes = attributes
        try context.check(.modifySRQ, owner.object, modify(raw, &attributes, Int32(mask)))
    }

    /// Reads the current attributes: ibv_query_srq(3).
    public func query() throws(VerbsError) -> Attributes {
        let query = try context.entry(context.table.query_srq, .querySRQ, owner.object)
        var attributes = ibv_srq_attr()
        try context.check(.querySRQ, owner.object, query(raw, &attributes))
        return Attributes(attributes)
    }

    /// The SRQ number, which the senders of XRC use (`remote_srqn`): ibv_get_srq_num(3).
    ///
    /// - Throws: `EOPNOTSUPP` for a queue that was not made for XRC.
    public func number() throws(VerbsError) -> UInt32 {
        let get = try context.entry(context.table.get_srq_num, .getSRQNum, owner.object)
        var number: UInt32 = 0
        try context.check(.getSRQNum, owner.object, get(raw, &number))
        return number
    }
}

extension SharedReceiveQueue: ReceiveQueue {
    /// Posts a chain of work requests through the provider's function, unchecked: ibv_post_srq_recv(3).
    @inlinable @inline(__always)
    public mutating func unsafePostReceive(
        _ first: UnsafeMutablePointer<ibv_recv_wr>, _ refused: inout UnsafeMutablePointer<ibv_recv_wr>?
    ) -> Int32 {
        raw.pointee.context.pointee.ops.post_srq_recv.unsafelyUnwrapped(raw, first, &refused)
    }

    /// Makes the error for a receive that the provider refused, after `posted` others.
    @inline(never)
    public func receiveFailure(sgeCount: Int, _ code: Int32, posted: Int) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice = Advice.receive(errno, sgeCount: sgeCount, limit: attributes.maxSGE, depth: attributes.maxWR)
        return VerbsError(.postSRQReceive, errno, owner.object, advice, postedCount: posted)
    }
}
