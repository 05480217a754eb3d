import CIBVerbs
import CProviderABI
import SystemPackage

/// A shared receive queue: receives for many queue pairs (ibv_create_srq_ex(3)).
///
/// Whoever holds the value posts; nobody else can. Queue pairs that use it keep the queue itself alive.
@frozen public struct SharedReceiveQueue: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and posting needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_srq>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// Says which queue an event is about.
    public struct ID: Hashable, Sendable {
        let address: UInt
        init(_ raw: UnsafeMutablePointer<ibv_srq>?) { address = UInt(bitPattern: raw) }
    }

    /// Keeps the queue and what it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: the pointer never changes, and the waist allows calls from any thread.
        let context: Context
        let raw: UnsafeMutablePointer<ibv_srq>
        let needs: [AnyObject]
        let limits: Limits

        init(_ raw: UnsafeMutablePointer<ibv_srq>, context: Context, needs: [AnyObject], limits: Limits) {
            self.raw = raw
            self.context = context
            self.needs = needs
            self.limits = limits
        }

        deinit {
            guard let destroy = context.table.destroy_srq else { return }
            context.destroy(.destroySRQ, object, keeping: needs, destroy(raw))
        }

        var object: VerbsObject { context.object("shared receive queue", raw.pointee.handle) }
    }

    /// What it holds (struct ibv_srq_attr).
    public struct Limits: Hashable, Sendable {
        /// Most outstanding work requests.
        public var requests: UInt32
        /// Most slices of a work request.
        public var slices: UInt32
        /// Number of outstanding work requests below which the event `sharedReceiveQueueLimitReached` comes,
        /// once; 0: none comes.
        public var limit: UInt32

        /// Room for that much, without an event.
        public init(requests: UInt32 = 128, slices: UInt32 = 1, limit: UInt32 = 0) {
            self.requests = requests
            self.slices = slices
            self.limit = limit
        }

        init(_ raw: ibv_srq_attr) { self.init(requests: raw.max_wr, slices: raw.max_sge, limit: raw.srq_limit) }

        var raw: ibv_srq_attr { ibv_srq_attr(max_wr: requests, max_sge: slices, srq_limit: limit) }
    }

    /// The device.
    public var context: Context { owner.context }
    /// Says which queue an event is about.
    public var id: ID { ID(raw) }
    /// What it was made with: at least what was asked for.
    public var limits: Limits { owner.limits }
    /// The struct of verbs.h, for calls into C.
    public var unsafeRaw: UnsafeMutablePointer<ibv_srq> { raw }
}

extension ProtectionDomain {
    /// Makes a shared receive queue: ibv_create_srq_ex(3), the basic kind.
    ///
    /// - Throws: `EINVAL` for more than the device allows, `EOPNOTSUPP`, `ENOMEM`.
    public func makeSharedReceiveQueue(_ limits: SharedReceiveQueue.Limits = .init()) throws(VerbsError)
        -> SharedReceiveQueue
    {
        var attributes = ibv_srq_init_attr_ex()
        attributes.comp_mask = IBV_SRQ_INIT_ATTR_TYPE.rawValue | IBV_SRQ_INIT_ATTR_PD.rawValue
        attributes.srq_type = IBV_SRQT_BASIC
        attributes.pd = unsafeRaw
        attributes.attr = limits.raw
        return try context.makeSharedReceiveQueue(&attributes, needs: [self], object)
    }
}

extension Context {
    /// Makes a shared receive queue from the attributes of verbs.h and keeps `needs` alive with it.
    func makeSharedReceiveQueue(
        _ attributes: inout ibv_srq_init_attr_ex, needs: [AnyObject], _ object: VerbsObject
    ) throws(VerbsError) -> SharedReceiveQueue {
        let create = try entry(table.create_srq_ex, destroyedBy: table.destroy_srq, .createSRQ, object)
        let asked = SharedReceiveQueue.Limits(attributes.attr)
        let advice = { (errno: Errno) -> Advice in
            errno == .invalidArgument
                ? .text(
                    "asked for \(asked.requests) receives of \(asked.slices) slices: compare with"
                        + " maxSharedReceiveRequests and maxSharedReceiveSlices of the device's attributes")
                : .general(errno)
        }
        let raw = try made(.createSRQ, object, advice: advice) { create(unsafeRaw, &attributes) }
        return SharedReceiveQueue(
            SharedReceiveQueue.Owner(
                raw, context: self, needs: needs, limits: SharedReceiveQueue.Limits(attributes.attr)))
    }
}

extension SharedReceiveQueue {
    /// Sets the number of outstanding work requests below which the event comes: ibv_modify_srq(3).
    public func setLimit(_ limit: UInt32) throws(VerbsError) {
        try modify(ibv_srq_attr(max_wr: 0, max_sge: 0, srq_limit: limit), IBV_SRQ_LIMIT.rawValue)
    }

    /// Changes how many outstanding work requests it holds: ibv_modify_srq(3).
    ///
    /// - Throws: `EINVAL` when more are outstanding, `EOPNOTSUPP` where the device lacks it.
    public mutating func resize(requests: UInt32) throws(VerbsError) {
        try modify(ibv_srq_attr(max_wr: requests, max_sge: 0, srq_limit: 0), IBV_SRQ_MAX_WR.rawValue)
    }

    private func modify(_ attributes: ibv_srq_attr, _ mask: UInt32) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_srq, .modifySRQ, owner.object)
        var attributes = attributes
        try context.check(.modifySRQ, owner.object, modify(raw, &attributes, Int32(mask)))
    }

    /// What it holds now: ibv_query_srq(3).
    public func query() throws(VerbsError) -> Limits {
        let query = try context.entry(context.table.query_srq, .querySRQ, owner.object)
        var attributes = ibv_srq_attr()
        try context.check(.querySRQ, owner.object, query(raw, &attributes))
        return Limits(attributes)
    }

    /// Its number, which peers name on XRC: ibv_get_srq_num(3).
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

    /// The error for a receive that was refused, after `posted` others.
    @inline(never)
    public func receiveFailure(slices: Int, _ code: Int32, posted: Int) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice = Advice.receive(errno, slices: slices, limit: limits.slices, depth: limits.requests)
        return VerbsError(.postSRQReceive, errno, owner.object, advice, postedCount: posted)
    }
}
