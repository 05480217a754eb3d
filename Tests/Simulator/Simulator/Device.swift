import CSimulator
import CSimulatorABI

/// A simulated device: what all who have it open share.
final class Device {
    let index: Int
    let options: Options
    private(set) var codec: Codec! = nil
    var contexts: [Context] = []
    private(set) var isDead = false
    /// Nothing is carried out.
    var isHeld = false
    /// Stores to doorbell pages, for the test, as many as it may want to look at.
    var stores: [uverbs_sim_store] = []

    // What the data path finds by number. A number is not used twice.
    private(set) var queuePairs: [QueuePair?] = []
    private var sharedReceiveQueues: [SharedReceiveQueue?] = []
    private(set) var completionQueues: [CompletionQueue] = []
    private var keys: [Object?] = []

    /// To the devices of other processes.
    let wire: Wire?

    /// Used for every request in turn.
    let send = SendRequest()
    let receive = ReceiveRequest()
    /// What came over the wire.
    let arrived = SendRequest()
    let message = Message()

    /// Work requests carried out, ever.
    var carriedOut = 0
    /// Something was carried out, or found to be done, since this was last set to false.
    var hasProgressed = false
    /// Completions written, ever.
    var completed = 0
    /// Steps, ever.
    var steps: UInt64 = 0
    /// Of requests that were sent over the wire.
    var lastSerial: UInt64 = 0
    /// Requests of every kind that were, ever.
    var transmitted = 0
    /// A thread lets it run, and how long that may rest, in nanoseconds.
    var isRunning = false
    var rest: Int64 = 0

    private let refusal = Text()
    private(set) var refusals = 0

    static let firstNumber: UInt32 = 0x101
    /// Numbers below are special in InfiniBand, or look like an index by mistake.
    static let firstKey: UInt32 = 0x1234
    /// The only port without a wire has 1.
    let lid: UInt16
    /// In bytes.
    static let longestMessage: UInt64 = 1 << 30
    /// Path MTU of the port, in bytes.
    let mtu = 4096

    init(index: Int, options: Options, wire: Wire?) {
        self.index = index
        self.options = options
        self.wire = wire
        lid = wire?.lid ?? 1
        switch options.vendor {
        case .hfi1: codec = RdmavtCodec(self)
        case .mlx5: codec = Mlx5Codec(self)
        }
    }

    // MARK: - What was refused

    /// Keeps the reason, so that a test can read it. The errno value.
    func keep(_ refusal: Refusal, of call: StaticString) -> Int32 {
        let text = self.refusal
        text.clear()
        text.append(call)
        text.append(": ")
        text.append(refusal.why)
        if let has = refusal.has {
            text.append(" (")
            text.append(has)
            if let wants = refusal.wants {
                text.append(", not ")
                text.append(wants)
            }
            text.append(")")
        }
        refusals += 1
        return refusal.errno
    }

    /// Forgets the refusals.
    func forgive() {
        refusal.clear()
        refusals = 0
    }

    /// The last reason; empty when nothing was refused.
    var lastRefusal: UnsafePointer<CChar> { refusal.cString }

    /// Adds a store to the log, unless nobody seems to read it.
    func keep(_ store: uverbs_sim_store) {
        if stores.count < 1 << 16 { stores.append(store) }
    }

    // MARK: - Numbers and keys

    func add(_ queuePair: QueuePair) {
        queuePair.number = Device.firstNumber + UInt32(queuePairs.count)
        queuePairs.append(queuePair)
    }

    var nextSharedNumber: UInt32 { Device.firstNumber + UInt32(sharedReceiveQueues.count) }

    func add(_ queue: SharedReceiveQueue) {
        queue.number = nextSharedNumber
        sharedReceiveQueues.append(queue)
    }

    func add(_ queue: CompletionQueue) { completionQueues.append(queue) }

    func remove(_ queuePair: QueuePair) { queuePairs[Int(queuePair.number - Device.firstNumber)] = nil }
    func remove(_ queue: SharedReceiveQueue) { sharedReceiveQueues[Int(queue.number - Device.firstNumber)] = nil }
    func remove(_ queue: CompletionQueue) { completionQueues.removeAll { $0 === queue } }

    func queuePair(number: UInt32) -> QueuePair? {
        guard number >= Device.firstNumber, number - Device.firstNumber < queuePairs.count else { return nil }
        return queuePairs[Int(number - Device.firstNumber)]
    }

    func sharedReceiveQueue(number: UInt32) -> SharedReceiveQueue? {
        guard number >= Device.firstNumber, number - Device.firstNumber < sharedReceiveQueues.count else { return nil }
        return sharedReceiveQueues[Int(number - Device.firstNumber)]
    }

    /// A key for a region or window: 24 bits of index, 8 that change when it is made anew.
    func addKey(_ object: Object) -> UInt32 {
        keys.append(object)
        return (Device.firstKey + UInt32(keys.count - 1)) << 8 | UInt32(keys.count & 0xFF)
    }

    func removeKey(_ key: UInt32) { keys[Int(key >> 8 - Device.firstKey)] = nil }

    /// Whose index the key has: whether all of it is right is for the caller to see.
    func object(key: UInt32) -> Object? {
        guard key >> 8 >= Device.firstKey, key >> 8 - Device.firstKey < keys.count else { return nil }
        return keys[Int(key >> 8 - Device.firstKey)]
    }

    // MARK: - Events

    /// An asynchronous event about an object.
    func raise(_ type: ibv_event_type, _ source: EventSource) {
        source.context.events?.add(source, type: type.rawValue)
    }

    /// Dies: every program is told, and gets EIO from then on.
    func die() {
        guard !isDead else { return }
        for context in contexts {
            context.events?.add(element: 1, type: IBV_EVENT_DEVICE_FATAL.rawValue)
        }
        isDead = true
        wire?.close()
    }
}
