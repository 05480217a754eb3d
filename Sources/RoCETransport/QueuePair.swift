import RoCEWire
import Synchronization

/// The storage of a queue pair (`struct rxe_qp` of the kernel's rxe). Posting threads access the first part only, which
/// does not change after creation, except for the state; the rest is accessed under the engine's lock.
struct QueuePairStorage: ~Copyable {
    // For posting threads.
    let number: UInt32
    let type: QueuePairType
    /// The transport service of its packets.
    let transport: Opcode.Transport
    let capabilities: QueuePairCapabilities
    let sqSigAll: Bool
    let send: Ring
    let receive: Ring
    /// Constant, except on XRC_RECV, where each request sets it (`Core.select`), and posting threads do not read it.
    var sharedReceiveQueue: UnsafeMutablePointer<SharedReceiveQueueStorage>?
    /// A copy of `state` for posting threads, which read it without the lock.
    let published = Atomic<UInt8>(QueuePairState.reset.rawValue)
    let doorbells: Doorbells
    let index: UInt32

    // For the engine, under its lock.
    /// `protectionDomain` and `receiveCQ` are constant, except on XRC_RECV, where they are those of `sharedReceiveQueue`.
    var protectionDomain: UInt32
    let sendCQ: UnsafeMutablePointer<CompletionQueueStorage>
    var receiveCQ: UnsafeMutablePointer<CompletionQueueStorage>
    /// The XRC domain of an XRC_RECV queue pair.
    let xrcDomain: UnsafeMutablePointer<XRCDomainStorage>?
    /// The links of the three ready lists (acknowledgements, READ responses and requests), of `PathWindow.waiting` and of
    /// `Core.gaps`.
    let links: UnsafeMutablePointer<ReadyLink>
    let event: UnsafeMutablePointer<EventNode>
    /// Changed by `Engine.setUserData`.
    var userData: UnsafeMutableRawPointer?
    var attributes = QueuePairAttributes()
    var requester = Requester()
    var responder: Responder
    /// A number for the time from the state in which the access table has an entry of this queue pair until that ends,
    /// so that a reference of an earlier connection is not taken for one of the present one; 0: the table has no entry.
    var grantNumber: UInt16 = 0
    /// The number of windows of type 2 that are bound on this queue pair.
    var windows: UInt32 = 0
    /// Position in the heap of timers, or -1.
    var timerPosition = -1
    /// The timer that runs: at most one at a time.
    var timer = QueuePairTimer.none
    /// The time at which that timer expires. While a timer runs, the heap of timers has an entry for this time or an
    /// earlier one.
    var deadline: UInt64 = 0
    var pacing = Pacing()
    /// The window of all queue pairs with this destination; nil: none limits this queue pair.
    var pathWindow: UnsafeMutablePointer<PathWindow>?
    /// The packets of this queue pair in `PathWindow.inFlight`.
    var charged: UInt32 = 0
    /// Whether the queue pair may send though others wait for room in the window: it has waited.
    var hasPathTurn = false

    /// Whether the local GID of its path is none of this host's any more, or may be none: then its peer accesses memory by
    /// packets only. A path that is set by `Engine.modify` has a GID that exists.
    var isSourceLost = false

    /// The state, under the engine's lock. `attributes.state` is authoritative, and only `Core.setState` writes it,
    /// together with `published`, the copy for threads without the lock. `ibv_qp.state` is a copy that a provider makes
    /// in `ibv_modify_qp` and `ibv_query_qp`; the engine does not use it.
    @inline(__always)
    var state: QueuePairState {
        assert(published.load(ordering: .relaxed) == attributes.state.rawValue, "both copies of the state agree")
        return attributes.state
    }

    static let acknowledgements = 0
    static let readResponses = 1
    static let requests = 2
    static let pathWaiting = 3
    static let gaps = 4
    static let linkCount = 5

    /// Offset of the scatter/gather list, or of the inline data, in a slot of the send queue.
    @inline(__always)
    var sgListOffset: Int { SendWQE.size + (type == .ud ? MemoryLayout<Path>.stride : 0) }

    @inline(__always)
    func sendWQE(_ index: UInt32) -> UnsafeMutablePointer<SendWQE> {
        send.slot(index).assumingMemoryBound(to: SendWQE.self)
    }
}

/// A queue pair (`struct ibv_qp`). The handle is not valid any more after `Engine.destroy`.
///
/// `stageSend`, `commitSends`, `publishSends`, `discardSends`, `stageReceive`, `commitReceives` and `state` do not need the
/// engine's lock, but only one thread at a time may post to a queue.
@frozen
public struct QueuePair: Hashable, @unchecked Sendable {
    /// The address of the engine's storage, which identifies the queue pair, as the address of a `struct ibv_qp` does
    /// in libibverbs.
    public let identity: UnsafeMutableRawPointer

    @inline(__always)
    var storage: UnsafeMutablePointer<QueuePairStorage> { identity.assumingMemoryBound(to: QueuePairStorage.self) }

    init(_ storage: UnsafeMutablePointer<QueuePairStorage>) { identity = UnsafeMutableRawPointer(storage) }

    /// The QPN, 24 bits (`ibv_qp.qp_num`).
    public var number: UInt32 { storage.pointee.number }

    /// The service type (`ibv_qp.qp_type`).
    public var type: QueuePairType { storage.pointee.type }

    /// The sizes of its queues (`struct ibv_qp_cap`).
    public var capabilities: QueuePairCapabilities { storage.pointee.capabilities }

    /// The pointer that was passed to `Engine.createQueuePair` or `setUserData` (`qp_context`).
    public var userData: UnsafeMutableRawPointer? { storage.pointee.userData }

    /// The current state (`ibv_qp_attr.qp_state`). The engine can move the queue pair to SQE or ERR at any time.
    public var state: QueuePairState {
        // Only raw values of `QueuePairState` are stored.
        QueuePairState(rawValue: storage.pointee.published.load(ordering: .acquiring)) ?? .error
    }
}

/// The timers of a queue pair, of which at most one runs.
enum QueuePairTimer: UInt8 {
    /// No timer runs: no request is outstanding, or `ibv_qp_attr.timeout` is 0.
    case none
    /// The local ACK timeout (IBTA volume 1, 9.7.6.1.3): when it expires, no response arrived, and the oldest request
    /// is sent again.
    case localACK
    /// The RNR timer (IBTA volume 1, 9.7.5.2.8): the peer had no receive work request posted, and no request is sent
    /// until the time of the RNR NAK has passed.
    case rnr
}
