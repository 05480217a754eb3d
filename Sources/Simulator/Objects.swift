import CSimulator

/// The types of kernel objects (`enum uverbs_default_objects`, `MLX5_IB_OBJECT_UAR`).
enum Kind: UInt8 {
    case domain, region, window, addressHandle, completionQueue, queuePair, sharedReceiveQueue, uar
}

/// An object that the program has created on an open device.
class Object {
    let kind: Kind
    let context: Context
    var handle: UInt32 = 0
    /// The number of objects that use it: destroying it fails with EBUSY until it is 0.
    var users = 0

    init(_ kind: Kind, _ context: Context) {
        self.kind = kind
        self.context = context
    }
}

/// An object that can be the source of events.
class EventSource: Object {
    /// The program's `user_handle`, which events carry.
    let userHandle: UInt64
    /// Number of its asynchronous events that the program has read (`events_reported`).
    var reported: UInt32 = 0

    init(_ kind: Kind, _ context: Context, userHandle: UInt64) {
        self.userHandle = userHandle
        super.init(kind, context)
    }
}

final class ProtectionDomain: Object {
    init(_ context: Context) { super.init(.domain, context) }
}

/// Registered memory. The device accesses the program's memory directly: both are in one process.
final class MemoryRegion: Object {
    var domain: ProtectionDomain
    var start: UInt64
    var length: UInt64
    /// The address of the first byte in work requests (`hca_va`).
    var virtualAddress: UInt64
    /// `enum ibv_access_flags`.
    var access: UInt32
    var key: UInt32 = 0
    /// iWARP: the region's key was invalidated.
    var isInvalid = false

    init(_ domain: ProtectionDomain, start: UInt64, length: UInt64, virtualAddress: UInt64, access: UInt32) {
        self.domain = domain
        self.start = start
        self.length = length
        self.virtualAddress = virtualAddress
        self.access = access
        super.init(.region, domain.context)
    }
}

final class MemoryWindow: Object {
    let domain: ProtectionDomain
    let type: UInt8
    var key: UInt32 = 0
    /// The region that the window is bound to; nil: none.
    var region: MemoryRegion?
    var address: UInt64 = 0
    var length: UInt64 = 0
    var access: UInt32 = 0
    /// Type 2: the QPN that the window is bound to.
    var queuePair: UInt32 = 0

    init(_ domain: ProtectionDomain, type: UInt8) {
        self.domain = domain
        self.type = type
        super.init(.window, domain.context)
    }
}

final class AddressHandle: Object {
    let domain: ProtectionDomain
    let attributes: ib_uverbs_ah_attr

    init(_ domain: ProtectionDomain, _ attributes: ib_uverbs_ah_attr) {
        self.domain = domain
        self.attributes = attributes
        super.init(.addressHandle, domain.context)
    }
}

/// A codec's state of a queue: its memory and its indexes.
class VendorState {
    init() {}
}

final class CompletionQueue: EventSource {
    var entries: UInt32
    let channel: EventFile?
    /// The arm state.
    var notification = Notification.none
    /// The queue has overrun: no more CQEs are written.
    var isBroken = false
    /// Number of its completion events that the program has read (`comp_events_reported`).
    var completionEventsReported: UInt32 = 0
    var vendor = VendorState()

    enum Notification { case none, solicited, next }

    init(_ context: Context, userHandle: UInt64, entries: UInt32, channel: EventFile?) {
        self.entries = entries
        self.channel = channel
        super.init(.completionQueue, context, userHandle: userHandle)
    }
}

final class SharedReceiveQueue: EventSource {
    let domain: ProtectionDomain
    var number: UInt32 = 0
    var maximumRequests: UInt32
    var maximumSGEs: UInt32
    /// `srq_limit`: fewer posted WQEs raise IBV_EVENT_SRQ_LIMIT_REACHED, once; 0: not armed.
    var limit: UInt32
    var vendor = VendorState()

    init(
        _ domain: ProtectionDomain, userHandle: UInt64, maximumRequests: UInt32, maximumSGEs: UInt32, limit: UInt32
    ) {
        self.domain = domain
        self.maximumRequests = maximumRequests
        self.maximumSGEs = maximumSGEs
        self.limit = limit
        super.init(.sharedReceiveQueue, domain.context, userHandle: userHandle)
    }
}

final class QueuePair: EventSource {
    let type: UInt32
    let domain: ProtectionDomain
    let sendCompletions: CompletionQueue
    let receiveCompletions: CompletionQueue
    let sharedReceives: SharedReceiveQueue?
    var limits: ibv_qp_cap
    let signalsAll: Bool
    var number: UInt32 = 0
    var attributes = QueuePairAttributes()
    /// PSN of the next request to send, and of the next request that the responder expects.
    var sendPSN: UInt32 = 0
    var expectedPSN: UInt32 = 0
    /// RNR NAKs that the WQE at the head of the send queue has received.
    var rnrNAKs = 0
    /// Serial number of the request at the head of the send queue that was sent over the wire and is not acknowledged;
    /// 0: none.
    var outstanding: UInt64 = 0
    /// The step of the device (`Device.steps`) from which that request may be retried.
    var retryStep: UInt64 = 0
    /// IBV_EVENT_SQ_DRAINED is raised when the outstanding request is acknowledged.
    var wantsDrained = false
    /// IBV_EVENT_QP_LAST_WQE_REACHED was raised.
    var raisedLastWQE = false
    /// A message has arrived since RTR.
    var isEstablished = false
    /// iWARP: it is, or was, connected.
    var wasConnected = false
    /// Multicast groups that it is attached to.
    var groups: [MulticastGroup] = []
    /// A receive WQE that was consumed for a dropped message: the next message is received into it.
    var retainedReceive: ReceiveRequest?
    var vendor = VendorState()

    var state: UInt32 {
        get { attributes.state }
        set { attributes.state = newValue }
    }

    init(
        domain: ProtectionDomain, userHandle: UInt64, type: UInt32, sendCompletions: CompletionQueue,
        receiveCompletions: CompletionQueue, sharedReceives: SharedReceiveQueue?, limits: ibv_qp_cap, signalsAll: Bool
    ) {
        self.domain = domain
        self.type = type
        self.sendCompletions = sendCompletions
        self.receiveCompletions = receiveCompletions
        self.sharedReceives = sharedReceives
        self.limits = limits
        self.signalsAll = signalsAll
        super.init(.queuePair, domain.context, userHandle: userHandle)
    }
}

/// A multicast group, as ATTACH_MCAST identifies it.
struct MulticastGroup: Equatable {
    var high: UInt64
    var low: UInt64
    var lid: UInt16
}

/// The attributes that MODIFY_QP sets and QUERY_QP returns, besides the limits.
struct QueuePairAttributes {
    var state: UInt32 = IBV_QPS_RESET.rawValue
    var pathMTU: UInt8 = 0
    var migration: UInt8 = 0
    var qkey: UInt32 = 0
    var receivePSN: UInt32 = 0
    var sendPSN: UInt32 = 0
    var destination: UInt32 = 0
    var access: UInt32 = 0
    var address = ib_uverbs_qp_dest()
    var alternateAddress = ib_uverbs_qp_dest()
    var pkeyIndex: UInt16 = 0
    var alternatePkeyIndex: UInt16 = 0
    var maxReadAtomic: UInt8 = 0
    var maxDestReadAtomic: UInt8 = 0
    var minRNRTimer: UInt8 = 0
    var port: UInt8 = 0
    var timeout: UInt8 = 0
    var retries: UInt8 = 0
    var rnrRetry: UInt8 = 0
    var alternatePort: UInt8 = 0
    var alternateTimeout: UInt8 = 0
}
