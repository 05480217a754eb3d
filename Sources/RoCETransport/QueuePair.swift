import RoCEWire
import Synchronization

/// What a queue pair is made of. The first part never changes after creation (but for `published`) and is all that
/// posting threads look at; the rest is the engine's.
struct QueuePairStorage: ~Copyable {
    // What posting threads use.
    let number: UInt32
    let type: QueuePairType
    let capabilities: QueuePairCapabilities
    let signalAll: Bool
    let send: Ring
    let receive: Ring
    let sharedReceiveQueue: UnsafeMutablePointer<SharedReceiveQueueStorage>?
    /// `state`, for posting threads.
    let published = Atomic<UInt8>(QueuePairState.reset.rawValue)
    let doorbells: Doorbells
    let index: UInt32

    // What the engine uses.
    let protectionDomain: UInt32
    let sendCompletions: UnsafeMutablePointer<CompletionQueueStorage>
    let receiveCompletions: UnsafeMutablePointer<CompletionQueueStorage>
    /// Places in the lists of those that have acknowledgements, READ responses and requests to send.
    let links: UnsafeMutablePointer<ReadyLink>
    let event: UnsafeMutablePointer<EventNode>
    let userData: UnsafeMutableRawPointer?
    var attributes = QueuePairAttributes()
    var requester = Requester()
    var responder: Responder
    /// Place in the heap of timers, or -1.
    var timerPosition = -1
    /// The real deadline; nil when nothing is waited for. The heap may still hold an earlier one.
    var deadline: UInt64?

    static let acknowledgements = 0
    static let readResponses = 1
    static let requests = 2

    /// Where the pieces of memory lie in a slot of the send queue.
    @inline(__always)
    var elementOffset: Int { SendEntry.size + (type == .ud ? MemoryLayout<Path>.stride : 0) }

    @inline(__always)
    func sendEntry(_ index: UInt32) -> UnsafeMutablePointer<SendEntry> {
        send.slot(index).assumingMemoryBound(to: SendEntry.self)
    }
}

/// A queue pair. A plain handle; it is dead after `Engine.destroy`.
///
/// `stageSend`, `commitSends`, `discardSends`, `stageReceive`, `commitReceives` and `state` need not be under the lock
/// that guards the engine, but only one thread at a time may post to a queue.
@frozen
public struct QueuePair: Hashable, @unchecked Sendable {
    /// The engine's storage, opaque outside; the same value names the same object.
    public let identity: UnsafeMutableRawPointer

    @inline(__always)
    var storage: UnsafeMutablePointer<QueuePairStorage> { identity.assumingMemoryBound(to: QueuePairStorage.self) }

    init(_ storage: UnsafeMutablePointer<QueuePairStorage>) { identity = UnsafeMutableRawPointer(storage) }

    /// The queue pair number, 24 bits.
    public var number: UInt32 { storage.pointee.number }

    /// The service type.
    public var type: QueuePairType { storage.pointee.type }

    /// The sizes it was created with.
    public var capabilities: QueuePairCapabilities { storage.pointee.capabilities }

    /// The pointer that was given to `Engine.createQueuePair`.
    public var userData: UnsafeMutableRawPointer? { storage.pointee.userData }

    /// The state it is in now; the engine can move it to an error state at any time.
    public var state: QueuePairState {
        // Only states are stored there.
        QueuePairState(rawValue: storage.pointee.published.load(ordering: .acquiring)) ?? .error
    }
}
