import CIBVerbs
import CProviderABI
import ProviderLoader
import SystemPackage

/// A queue pair: one end of a connection, or a sender and receiver of datagrams (IBTA volume 1, 10.2.4).
///
/// Whoever holds the value posts; nobody else can. It keeps its protection domain, its completion queues and its
/// shared receive queue alive, and is destroyed when it goes; what is outstanding then never completes.
@frozen public struct QueuePair: ~Copyable, @unchecked Sendable {
    // Unchecked: the value has one owner, and posting needs it exclusively.
    @usableFromInline let raw: UnsafeMutablePointer<ibv_qp>
    @usableFromInline let owner: Owner

    init(_ owner: Owner) {
        raw = owner.raw
        self.owner = owner
    }

    /// Keeps the queue pair and what it needs alive, and destroys it.
    @usableFromInline final class Owner: @unchecked Sendable {
        // Unchecked: all fields but `state` never change, and the waist allows calls from any thread.
        let context: Context
        let raw: UnsafeMutablePointer<ibv_qp>
        /// The protection domain, completion queues and so on that it was made from.
        let needs: [AnyObject]
        /// What it was made for.
        let capabilities: Capabilities
        /// The form that takes the extended work requests; nil where it was not made for them.
        let extended: UnsafeMutablePointer<ibv_qp_ex>?
        /// The operations that it takes so.
        let extendedOperations: ExtendedOperations
        let state = Locked(State())

        /// What the short path remembers between its steps, and what must be undone before the end.
        struct State {
            var local: LocalEnd?
            var groups: [MulticastGroup] = []
            /// Whether the connection manager has it.
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

        deinit {
            // The kernel refuses to destroy a queue pair that is in a group.
            for group in state.withLock({ $0.groups }) {
                var gid = group.gid.raw
                _ = context.table.detach_mcast?(raw, &gid, group.lid)
            }
            guard let destroy = context.table.destroy_qp else { return }
            context.destroy(.destroyQP, object, keeping: needs, destroy(raw))
        }

        var object: VerbsObject { context.object("queue pair", raw.pointee.qp_num) }
    }

    /// The device.
    public var context: Context { owner.context }
    /// Its number on this device: 24 bits.
    public var number: UInt32 { raw.pointee.qp_num }
    /// Its transport service.
    public var kind: Kind { Kind(rawValue: raw.pointee.qp_type.rawValue) }
    /// Its state as last set from here. The device may have moved it to the error state since; `query` asks.
    public var lastKnownState: State { State(rawValue: raw.pointee.state.rawValue) }
    /// What its queues hold: at least what was asked for.
    public var capabilities: Capabilities { owner.capabilities }
    /// The struct of verbs.h, for calls into C.
    public var unsafeRaw: UnsafeMutablePointer<ibv_qp> { raw }
}

extension QueuePair {
    /// What the queues of a queue pair hold (struct ibv_qp_cap).
    public struct Capabilities: Hashable, Sendable {
        /// Most outstanding work requests of the send queue.
        public var sendRequests: UInt32
        /// Most outstanding work requests of the receive queue.
        public var receiveRequests: UInt32
        /// Most slices of a send work request.
        public var sendSlices: UInt32
        /// Most slices of a receive work request.
        public var receiveSlices: UInt32
        /// Most bytes that a send work request carries inline.
        public var inlineBytes: UInt32

        /// Room for that much.
        public init(
            sendRequests: UInt32 = 128, receiveRequests: UInt32 = 128, sendSlices: UInt32 = 1,
            receiveSlices: UInt32 = 1, inlineBytes: UInt32 = 0
        ) {
            self.sendRequests = sendRequests
            self.receiveRequests = receiveRequests
            self.sendSlices = sendSlices
            self.receiveSlices = receiveSlices
            self.inlineBytes = inlineBytes
        }

        init(_ raw: ibv_qp_cap) {
            self.init(
                sendRequests: raw.max_send_wr, receiveRequests: raw.max_recv_wr, sendSlices: raw.max_send_sge,
                receiveSlices: raw.max_recv_sge, inlineBytes: raw.max_inline_data)
        }

        var raw: ibv_qp_cap {
            ibv_qp_cap(
                max_send_wr: sendRequests, max_recv_wr: receiveRequests, max_send_sge: sendSlices,
                max_recv_sge: receiveSlices, max_inline_data: inlineBytes)
        }
    }
}
