import CIBVerbs
import CProviderABI
import SystemPackage

/// A completion queue (CQ): the device adds a completion (CQE) for each work request that is done (`struct ibv_cq`,
/// ibv_create_cq(3)).
///
/// Polling needs exclusive access to the value. Queue pairs that use the queue keep it alive.
@frozen public struct CompletionQueue: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and polling needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_cq>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// The identity of the queue in events.
    public struct ID: Hashable, Sendable {
        let address: UInt
        init(_ raw: UnsafeMutablePointer<ibv_cq>?) { address = UInt(bitPattern: raw) }
    }

    /// Keeps the queue and the objects that it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.
        let context: Context
        let channel: CompletionChannel?
        let parentDomain: ProtectionDomain?
        let raw: UnsafeMutablePointer<ibv_cq>
        /// The fields that extended polling reads; nil unless the queue was made by ibv_create_cq_ex(3).
        let fields: Fields?
        /// Set by `close`, which needs the value, and read at the end of its life.
        private nonisolated(unsafe) var isDestroyed = false

        init(
            _ raw: UnsafeMutablePointer<ibv_cq>, context: Context, channel: CompletionChannel?,
            parentDomain: ProtectionDomain?, fields: Fields?
        ) {
            self.raw = raw
            self.context = context
            self.channel = channel
            self.parentDomain = parentDomain
            self.fields = fields
            channel?.add(ID(raw))
        }

        func close() throws(VerbsError) {
            guard let destroy = context.table.destroy_cq else { return }
            channel?.remove(ID(raw))
            do {
                try context.close(.destroyCQ, object, destroy(raw))
                isDestroyed = true
            } catch {
                channel?.add(ID(raw))
                throw error
            }
        }

        deinit {
            guard !isDestroyed else { return }
            // Comes first, since the address can belong to a new queue as soon as this one is destroyed.
            channel?.remove(ID(raw))
            guard let destroy = context.table.destroy_cq else { return }
            context.destroy(.destroyCQ, object, keeping: [channel, parentDomain], destroy(raw))
        }

        var object: VerbsObject { context.object("completion queue", raw.pointee.handle) }
    }

    /// Destroys the completion queue and reports a failure: ibv_destroy_cq(3).
    ///
    /// Without this call the same happens when the value goes, and a failure reaches the log only. After a failure, the
    /// completion queue is destroyed when the last object that uses it goes.
    ///
    /// - Throws: `EBUSY` while other objects use it.
    public consuming func close() throws(VerbsError) { try owner.close() }

    /// The open device.
    public var context: Context { owner.context }
    /// The completion channel (`ibv_cq.channel`); nil when the queue has none.
    public var channel: CompletionChannel? { owner.channel }
    /// The identity of the queue in events.
    public var id: ID { ID(raw) }
    /// The largest number of completions in the queue, at least the requested one (`ibv_cq.cqe`).
    public var capacity: Int { Int(raw.pointee.cqe) }
    /// The struct of verbs.h, for calls into C.
    public var unsafeRaw: UnsafeMutablePointer<ibv_cq> { raw }
}

extension Context {
    /// Makes a completion queue: ibv_create_cq(3).
    ///
    /// - Parameters:
    ///   - capacity: The smallest number of completions to hold (`cqe`). When more completions arrive than fit, the
    ///     queue and the queue pairs that use it fail; the device raises `completionQueueError` (`IBV_EVENT_CQ_ERR`).
    ///   - channel: The completion channel of the queue's events. Without one the queue can only be polled.
    ///   - vector: The completion vector (`comp_vector`), below `completionVectorCount`.
    /// - Throws: `EINVAL` for a capacity or vector out of range, `ENOMEM`.
    public func makeCompletionQueue(
        capacity: Int, channel: CompletionChannel? = nil, vector: Int = 0
    ) throws(VerbsError) -> CompletionQueue {
        let create = try entry(
            table.create_cq, destroyedBy: table.destroy_cq, .createCQ, object("context"))
        let advice = { [completionVectorCount] (errno: Errno) in
            CompletionQueue.creationAdvice(errno, capacity, vector, completionVectorCount)
        }
        let raw = try made(.createCQ, object("context"), advice: advice) {
            create(unsafeRaw, Int32(clamping: capacity), nil, channel?.raw, Int32(clamping: vector))
        }
        return CompletionQueue(
            CompletionQueue.Owner(raw, context: self, channel: channel, parentDomain: nil, fields: nil))
    }
}

extension CompletionQueue {
    static func creationAdvice(_ errno: Errno, _ capacity: Int, _ vector: Int, _ vectorCount: Int) -> Advice {
        guard errno == .invalidArgument else { return .general(errno) }
        if !(0..<vectorCount).contains(vector) {
            return .text("completion vector \(vector) does not exist: there are \(vectorCount), from 0")
        }
        return .text("\(capacity) completions: the range is 1 to DeviceAttributes.maxCQE")
    }

    /// Changes the capacity: ibv_resize_cq(3).
    ///
    /// - Throws: `EINVAL` when the queue holds more completions than `capacity`, or `capacity` exceeds the device's
    ///   limit.
    public mutating func resize(capacity: Int) throws(VerbsError) {
        let resize = try context.entry(context.table.resize_cq, .resizeCQ, owner.object)
        try context.check(.resizeCQ, owner.object, resize(raw, Int32(clamping: capacity)))
    }

    /// Moderates the queue's events: ibv_modify_cq(3) with `IBV_CQ_ATTR_MODERATE`.
    ///
    /// The device raises one event after `count` completions, or `period` after the first of them. 0 and `.zero` switch
    /// moderation off.
    ///
    /// - Parameters:
    ///   - count: Completions per event (`ibv_moderate_cq.cq_count`).
    ///   - period: At most 65,535 µs (`ibv_moderate_cq.cq_period`), rounded up to whole microseconds.
    /// - Throws: `EINVAL` for a longer or negative period or values that the device refuses, `EOPNOTSUPP`.
    public func moderate(count: UInt16, period: Duration) throws(VerbsError) {
        let (seconds, attoseconds) = period.components
        let microseconds = Double(seconds) * 1e6 + Double(attoseconds) / 1e12
        guard let period = UInt16(exactly: microseconds.rounded(.up)) else {
            throw VerbsError(
                .modifyCQ, errno: .invalidArgument, object: owner.object,
                hint: "the period is \(period): the range is 0 to 65535 microseconds")
        }
        let modify = try context.entry(context.table.modify_cq, .modifyCQ, owner.object)
        var attributes = ibv_modify_cq_attr()
        attributes.attr_mask = IBV_CQ_ATTR_MODERATE.rawValue
        attributes.moderate.cq_count = count
        attributes.moderate.cq_period = period
        try context.check(.modifyCQ, owner.object, modify(raw, &attributes))
    }

    /// Requests one event on the channel for the next completion: ibv_req_notify_cq(3).
    ///
    /// Completions that were added before the call raise no event, so poll again after arming.
    ///
    /// - Parameter solicitedOnly: Whether only a solicited receive or a failed request raises the event.
    @inlinable @inline(__always)
    public mutating func arm(solicitedOnly: Bool = false) throws(VerbsError) {
        let code = raw.pointee.context.pointee.ops.req_notify_cq.unsafelyUnwrapped(raw, solicitedOnly ? 1 : 0)
        if code != 0 { throw failure(.reqNotifyCQ, code) }
    }

    /// The error for a call on the data path that failed.
    @usableFromInline @inline(never)
    func failure(_ verb: Verb, _ code: Int32) -> VerbsError {
        let errno = code == -1 ? Errno.ioError : Errno(rawValue: abs(code))
        return VerbsError(verb, errno, owner.object, .general(errno))
    }
}
