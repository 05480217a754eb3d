import CIBVerbs
import CProviderABI
import Locking
import SystemPackage

/// A queue pair (QP): one end of a connection, or a sender and receiver of datagrams (`struct ibv_qp`; IBTA volume 1,
/// 10.2.4).
///
/// Posting needs exclusive access to the value. The queue pair keeps its protection domain, completion queues and
/// shared receive queue alive. It is destroyed with the value; outstanding work requests then never complete.
@frozen public struct QueuePair: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and posting needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_qp>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// Keeps the queue pair and the objects that it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: all fields but `state` never change, and the provider ABI allows calls from any thread.
        let context: Context
        let raw: UnsafeMutablePointer<ibv_qp>
        /// The objects that it was made from, such as protection domain and completion queues.
        let needs: [AnyObject]
        /// The limits of its queues.
        let capabilities: Capabilities
        /// The queue pair as `ibv_qp_ex`; nil when it was made without `extendedOperations`.
        let extended: UnsafeMutablePointer<ibv_qp_ex>?
        /// The operations of the `ibv_wr_*` functions that it supports.
        let extendedOperations: ExtendedOperations
        let state = Locked(State())
        /// Whether `close` has destroyed the queue pair. The connection manager may hold a reference at that moment: it
        /// holds this lock during its calls.
        let isDestroyed = Locked(false)

        /// The state of `endpoint` and `connect`, and the multicast groups to leave before the queue pair is destroyed.
        struct State {
            var local: LocalEnd?
            var groups: [MulticastGroup] = []
            /// Whether a connection of the connection manager uses it.
            var isClaimed = false
        }

        init(
            _ raw: UnsafeMutablePointer<ibv_qp>, context: Context, needs: [AnyObject], capabilities: Capabilities,
            extendedOperations: ExtendedOperations = []
        ) {
            self.raw = raw
            self.context = context
            self.needs = needs
            self.capabilities = capabilities
            self.extendedOperations = extendedOperations
            extended = extendedOperations.isEmpty ? nil : context.table.qp_to_qp_ex?(raw)
        }

        func close() throws(VerbsError) {
            guard let destroy = context.table.destroy_qp else { return }
            try isDestroyed.withLock { (isDestroyed: inout Bool) throws(VerbsError) in
                leaveGroups()
                try context.close(.destroyQP, object, destroy(raw))
                isDestroyed = true
            }
        }

        /// Detaches it from its multicast groups: the kernel refuses to destroy an attached queue pair.
        private func leaveGroups() {
            let groups = state.withLock { state in
                defer { state.groups = [] }
                return state.groups
            }
            for group in groups {
                var gid = group.gid.raw
                _ = context.table.detach_mcast?(raw, &gid, group.lid)
            }
        }

        deinit {
            guard !isDestroyed.withLock({ $0 }) else { return }
            leaveGroups()
            guard let destroy = context.table.destroy_qp else { return }
            context.destroy(.destroyQP, object, keeping: needs, destroy(raw))
        }

        var object: VerbsObject { context.object("queue pair", raw.pointee.qp_num) }
    }

    /// Destroys the queue pair and reports a failure: ibv_destroy_qp(3).
    ///
    /// Without this call the same happens when the value goes, and a failure reaches the log only. After a failure, the
    /// queue pair is destroyed when the last object that uses it goes.
    ///
    /// - Throws: `EBUSY` while other objects use it.
    public consuming func close() throws(VerbsError) { try owner.close() }

    /// The open device.
    public var context: Context { owner.context }
    /// Its QPN: 24 bits (`ibv_qp.qp_num`).
    public var number: UInt32 { raw.pointee.qp_num }
    /// Its transport service (`ibv_qp.qp_type`).
    public var type: QueuePairType { QueuePairType(rawValue: raw.pointee.qp_type.rawValue) }
    /// The state as last set or queried (`ibv_qp.state`). The device may have moved the queue pair to the error state
    /// since then; `query` returns the current state.
    public var lastKnownState: State { State(rawValue: raw.pointee.state.rawValue) }
    /// The limits of its queues, at least the requested ones.
    public var capabilities: Capabilities { owner.capabilities }
    /// The struct of verbs.h, for calls into C.
    public var unsafeRaw: UnsafeMutablePointer<ibv_qp> { raw }
}

extension QueuePair {
    /// The limits of a queue pair's queues (struct ibv_qp_cap).
    public struct Capabilities: Hashable, Sendable {
        /// The largest number of outstanding work requests of the send queue (`max_send_wr`).
        public var maxSendWR: UInt32
        /// The largest number of outstanding work requests of the receive queue (`max_recv_wr`).
        public var maxReceiveWR: UInt32
        /// The largest number of SGEs of a send work request (`max_send_sge`).
        public var maxSendSGE: UInt32
        /// The largest number of SGEs of a receive work request (`max_recv_sge`).
        public var maxReceiveSGE: UInt32
        /// The largest number of bytes that a send work request carries inline (`max_inline_data`).
        public var maxInlineData: UInt32

        /// Makes a value with these limits.
        public init(
            maxSendWR: UInt32 = 128, maxReceiveWR: UInt32 = 128, maxSendSGE: UInt32 = 1,
            maxReceiveSGE: UInt32 = 1, maxInlineData: UInt32 = 0
        ) {
            self.maxSendWR = maxSendWR
            self.maxReceiveWR = maxReceiveWR
            self.maxSendSGE = maxSendSGE
            self.maxReceiveSGE = maxReceiveSGE
            self.maxInlineData = maxInlineData
        }

        init(_ raw: ibv_qp_cap) {
            self.init(
                maxSendWR: raw.max_send_wr, maxReceiveWR: raw.max_recv_wr, maxSendSGE: raw.max_send_sge,
                maxReceiveSGE: raw.max_recv_sge, maxInlineData: raw.max_inline_data)
        }

        var raw: ibv_qp_cap {
            ibv_qp_cap(
                max_send_wr: maxSendWR, max_recv_wr: maxReceiveWR, max_send_sge: maxSendSGE,
                max_recv_sge: maxReceiveSGE, max_inline_data: maxInlineData)
        }
    }
}
