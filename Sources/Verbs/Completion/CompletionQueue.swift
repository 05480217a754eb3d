import CIBVerbs
import CProviderABI
import SystemPackage

/// A completion queue: where the device says which work requests are done (ibv_create_cq(3)).
///
/// Whoever holds the value polls; nobody else can. Queue pairs that report here keep the queue itself alive.
@frozen public struct CompletionQueue: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and polling needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_cq>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// Says which queue an event is about.
    public struct ID: Hashable, Sendable {
        let address: UInt
        init(_ raw: UnsafeMutablePointer<ibv_cq>?) { address = UInt(bitPattern: raw) }
    }

    /// Keeps the queue and what it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: the pointer never changes, and the waist allows calls from any thread.
        let context: Context
        let channel: CompletionChannel?
        let parentDomain: ProtectionDomain?
        let raw: UnsafeMutablePointer<ibv_cq>
        /// What extended polling reads, where it was made by ibv_create_cq_ex and is an `ibv_cq_ex`.
        let fields: Fields?

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

        deinit {
            // First, so that the address can belong to a new queue as soon as this one is destroyed.
            channel?.remove(ID(raw))
            guard let destroy = context.table.destroy_cq else { return }
            context.destroy(.destroyCQ, object, keeping: [channel, parentDomain], destroy(raw))
        }

        var object: VerbsObject { context.object("completion queue", raw.pointee.handle) }
    }

    /// The device.
    public var context: Context { owner.context }
    /// The channel that tells of its completions; nil where it has none.
    public var channel: CompletionChannel? { owner.channel }
    /// Says which queue an event is about.
    public var id: ID { ID(raw) }
    /// How many completions it holds: at least as many as were asked for.
    public var capacity: Int { Int(raw.pointee.cqe) }
    /// The struct of verbs.h, for calls into C.
    public var unsafeRaw: UnsafeMutablePointer<ibv_cq> { raw }
}

extension Context {
    /// Makes a completion queue: ibv_create_cq(3).
    ///
    /// - Parameters:
    ///   - capacity: how many completions it must hold. When more come than fit, the queue fails with an
    ///     asynchronous event `completionQueueError`, and the queue pairs that report to it as well.
    ///   - channel: where its events go; without one it can only be polled.
    ///   - vector: completion vector, below `completionVectorCount`.
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
        return .text("\(capacity) completions: it takes from 1 to DeviceAttributes.maxCompletions")
    }

    /// Changes how many completions it holds: ibv_resize_cq(3).
    ///
    /// - Throws: `EINVAL` when more completions wait in it than would fit, or the device cannot hold so many.
    public mutating func resize(capacity: Int) throws(VerbsError) {
        let resize = try context.entry(context.table.resize_cq, .resizeCQ, owner.object)
        try context.check(.resizeCQ, owner.object, resize(raw, Int32(clamping: capacity)))
    }

    /// Moderates its events: one comes after `count` completions, or `period` microseconds after the first of
    /// them: ibv_modify_cq(3). 0 and 0 switch moderation off.
    public func moderate(count: UInt16, period: UInt16) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_cq, .modifyCQ, owner.object)
        var attributes = ibv_modify_cq_attr()
        attributes.attr_mask = IBV_CQ_ATTR_MODERATE.rawValue
        attributes.moderate.cq_count = count
        attributes.moderate.cq_period = period
        try context.check(.modifyCQ, owner.object, modify(raw, &attributes))
    }

    /// Asks for an event on the channel when the next completion comes: ibv_req_notify_cq(3).
    ///
    /// One event comes, once, for a completion that is added after the call. So poll again afterwards: what came
    /// before raises none.
    ///
    /// - Parameter solicitedOnly: wait for a receive that the peer marked as solicited, or a failure.
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
