import CSimulator

/// What a handle can name.
enum Kind: UInt8 {
    case domain, region, window, addressHandle, completionQueue, queuePair, sharedReceiveQueue, doorbellPage
}

/// Something that the program has made on an open device.
class Object {
    let kind: Kind
    let context: Context
    var handle: UInt32 = 0
    /// Other objects that need it: it cannot be destroyed.
    var users = 0

    init(_ kind: Kind, _ context: Context) {
        self.kind = kind
        self.context = context
    }
}

/// An object that events can be about.
class EventSource: Object {
    /// How the program calls it in events.
    let userHandle: UInt64
    /// Events about it that were read.
    var reported: UInt32 = 0

    init(_ kind: Kind, _ context: Context, userHandle: UInt64) {
        self.userHandle = userHandle
        super.init(kind, context)
    }
}

final class ProtectionDomain: Object {
    init(_ context: Context) { super.init(.domain, context) }
}

/// Registered memory. The device reads and writes it where the program has it: both are one process.
final class MemoryRegion: Object {
    var domain: ProtectionDomain
    var start: UInt64
    var length: UInt64
    /// How work requests name the first byte.
    var virtualAddress: UInt64
    /// `enum ibv_access_flags`.
    var access: UInt32
    var key: UInt32 = 0

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
    /// What it opens, since it was bound.
    var region: MemoryRegion?
    var address: UInt64 = 0
    var length: UInt64 = 0
    var access: UInt32 = 0
    /// A window of type 2 is open to the peers of one queue pair.
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

/// What a codec keeps of a queue: where it lies and how far it is.
class VendorState {
    init() {}
}

final class CompletionQueue: EventSource {
    var entries: UInt32
    let channel: EventFile?
    /// What the next completion makes an event for.
    var notification = Notification.none
    /// An entry was overwritten, or would have been: nothing is written to it any more.
    var isBroken = false
    /// Events read from its channel.
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
    var maximumElements: UInt32
    /// Fewer requests than this make an event, once; 0: none.
    var limit: UInt32
    var vendor = VendorState()

    init(
        _ domain: ProtectionDomain, userHandle: UInt64, maximumRequests: UInt32, maximumElements: UInt32, limit: UInt32
    ) {
        self.domain = domain
        self.maximumRequests = maximumRequests
        self.maximumElements = maximumElements
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
    /// Packet sequence number of the next request, and of the next that is expected.
    var sendPSN: UInt32 = 0
    var expectedPSN: UInt32 = 0
    /// Times that the request at the head was told that its peer is not ready.
    var notReady = 0
    /// The request at the head of the queue was sent over the wire, by this number, and has no answer yet; 0: none was.
    var awaited: UInt64 = 0
    /// The step of the device in which that request may be sent again.
    var resumes: UInt64 = 0
    /// An event is wanted when it has its answer.
    var wantsDrained = false
    /// The event of the last work request was made.
    var saidLast = false
    /// Something has arrived since it became ready to receive.
    var isEstablished = false
    /// Multicast groups that it is attached to.
    var groups: [MulticastGroup] = []
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

/// A multicast group, as ATTACH_MCAST names it.
struct MulticastGroup: Equatable {
    var high: UInt64
    var low: UInt64
    var lid: UInt16
}

/// What MODIFY_QP sets and QUERY_QP tells, beside the limits.
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
    var partitionIndex: UInt16 = 0
    var alternatePartitionIndex: UInt16 = 0
    var maximumReads: UInt8 = 0
    var maximumPeerReads: UInt8 = 0
    var notReadyTimer: UInt8 = 0
    var port: UInt8 = 0
    var timeout: UInt8 = 0
    var retries: UInt8 = 0
    var notReadyRetries: UInt8 = 0
    var alternatePort: UInt8 = 0
    var alternateTimeout: UInt8 = 0
}
