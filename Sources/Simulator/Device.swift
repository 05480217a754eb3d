import CSimulator
import CSimulatorABI

/// A simulated device: the state that its open contexts share.
final class Device {
    let index: Int
    /// The connection manager of the network namespace that the device is in.
    var manager: ConnectionManager {
        didSet { connectionObserver = manager }
    }
    let options: Options
    private(set) var codec: Codec! = nil
    var contexts: [Context] = []
    private(set) var isDead = false
    /// The device executes no WQE (`uverbs_sim_hold`).
    var isHeld = false
    /// Learns of the ends of iWARP connections: the connection manager.
    var connectionObserver: ConnectionObserver?
    /// The log of stores to UAR pages (`uverbs_sim_stores`).
    var stores: [uverbs_sim_store] = []

    // Objects by number. A number is never reused.
    private(set) var queuePairs: [QueuePair?] = []
    private var sharedReceiveQueues: [SharedReceiveQueue?] = []
    private(set) var completionQueues: [CompletionQueue] = []
    private var keys: [Object?] = []

    /// The wire to the devices of other processes.
    let wire: Wire?

    // The decoded WQE of each kind; the objects are reused.
    let send = SendRequest()
    let receive = ReceiveRequest()
    /// The request of the last message from the wire.
    let arrived = SendRequest()
    /// The payload of the current request or response.
    let message = Message()

    /// Number of WQEs executed since the device was created.
    var executed = 0
    /// A WQE was executed, or a state changed, since this was last set to false.
    var hasProgressed = false
    /// Number of CQEs written.
    var completed = 0
    /// Number of steps.
    var steps: UInt64 = 0
    /// Serial number of the last request that was sent over the wire.
    var lastSerial: UInt64 = 0
    /// Number of requests sent over the wire.
    var transmitted = 0
    /// The thread that runs the device exists.
    var isRunning = false
    /// Time that the thread sleeps between two steps, in nanoseconds.
    var pause: Int64 = 0

    private let refusal = Text()
    private(set) var refusals = 0

    /// First QPN and first number of a shared receive queue. QPNs 0 and 1 are special in InfiniBand, and a small number
    /// can be mistaken for an index.
    static let firstNumber: UInt32 = 0x101
    /// Index of the first lkey and rkey.
    static let firstKey: UInt32 = 0x1234
    /// LID of the port; 1 without a wire.
    let lid: UInt16
    /// `max_msg_sz` of the port, in bytes.
    static let longestMessage: UInt64 = 1 << 30
    /// Path MTU of the port, in bytes.
    let mtu = 4096

    init(index: Int, options: Options, wire: Wire?) {
        self.index = index
        manager = simulation.manager
        connectionObserver = manager
        self.options = options
        self.wire = wire
        lid = wire?.lid ?? 1
        switch options.vendor {
        case .hfi1: codec = RdmavtCodec(self)
        case .mlx5: codec = Mlx5Codec(self)
        case .cxgb4: codec = Cxgb4Codec(self)
        }
    }

    /// Whether a program has the device open, or its connection manager needs the port.
    var isInUse: Bool { !contexts.isEmpty || manager.needs(self) }

    func closeIfUnused() { if !isInUse { wire?.close() } }

    // MARK: - Refusals

    /// Records the reason for the test (`uverbs_sim_refusal`). Returns the errno value.
    func record(_ refusal: Refusal, of call: StaticString) -> Int32 {
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

    /// Clears the reason and the count.
    func clearRefusals() {
        refusal.clear()
        refusals = 0
    }

    /// The reason of the last refusal; empty when there was none.
    var lastRefusal: UnsafePointer<CChar> { refusal.cString }

    /// Adds a store to the log, which has room for 65,536.
    func record(_ store: uverbs_sim_store) {
        if stores.count < 1 << 16 { stores.append(store) }
    }

    // MARK: - Numbers and keys

    func add(_ queuePair: QueuePair) throws(Refusal) {
        let number = try codec.allocateNumber(queuePair)
        while queuePairs.count <= Int(number - codec.firstNumber) { queuePairs.append(nil) }
        queuePair.number = number
        queuePairs[Int(number - codec.firstNumber)] = queuePair
    }

    /// The QPN after the last one.
    var nextNumber: UInt32 { codec.firstNumber + UInt32(queuePairs.count) }

    var nextSharedNumber: UInt32 { Device.firstNumber + UInt32(sharedReceiveQueues.count) }

    func add(_ queue: SharedReceiveQueue) {
        queue.number = nextSharedNumber
        sharedReceiveQueues.append(queue)
    }

    func add(_ queue: CompletionQueue) { completionQueues.append(queue) }

    func remove(_ queuePair: QueuePair) { queuePairs[Int(queuePair.number - codec.firstNumber)] = nil }
    func remove(_ queue: SharedReceiveQueue) { sharedReceiveQueues[Int(queue.number - Device.firstNumber)] = nil }
    func remove(_ queue: CompletionQueue) { completionQueues.removeAll { $0 === queue } }

    func queuePair(number: UInt32) -> QueuePair? {
        guard number >= codec.firstNumber, number - codec.firstNumber < queuePairs.count else { return nil }
        return queuePairs[Int(number - codec.firstNumber)]
    }

    func sharedReceiveQueue(number: UInt32) -> SharedReceiveQueue? {
        guard number >= Device.firstNumber, number - Device.firstNumber < sharedReceiveQueues.count else { return nil }
        return sharedReceiveQueues[Int(number - Device.firstNumber)]
    }

    /// An lkey or rkey for a region or window: 24 bits of index, 8 bits of variant.
    func addKey(_ object: Object) -> UInt32 {
        keys.append(object)
        return (Device.firstKey + UInt32(keys.count - 1)) << 8 | UInt32(keys.count & 0xFF)
    }

    func removeKey(_ key: UInt32) { keys[Int(key >> 8 - Device.firstKey)] = nil }

    /// The region or window with the index in this key. The caller compares the whole key.
    func object(key: UInt32) -> Object? {
        guard key >> 8 >= Device.firstKey, key >> 8 - Device.firstKey < keys.count else { return nil }
        return keys[Int(key >> 8 - Device.firstKey)]
    }

    // MARK: - Events

    /// Raises an asynchronous event of an object.
    func raise(_ type: ibv_event_type, _ source: EventSource) {
        source.context.events?.add(source, type: type.rawValue)
    }

    /// The device fails: it raises IBV_EVENT_DEVICE_FATAL on every open context, and each later command fails with EIO.
    func die() {
        guard !isDead else { return }
        for context in contexts {
            context.events?.add(element: 1, type: IBV_EVENT_DEVICE_FATAL.rawValue)
        }
        isDead = true
        manager.remove(self)
        wire?.close()
    }
}
