import CSimulator
import CSimulatorABI

/// What differs from vendor to vendor: the driver's data beside the kernel's commands, what may be mapped, and how work
/// requests and completions lie in memory. The engine knows nothing of that.
class Codec {
    // A device lives as long as the process: nobody minds that they hold each other.
    let device: Device
    let identity: Identity

    init(_ device: Device, _ identity: Identity) {
        self.device = device
        self.identity = identity
    }

    /// The kernel's driver carries out requests itself, within the command that posts them.
    var runsInCommands: Bool { false }

    // MARK: - Commands

    func open(_ context: Context, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }
    func close(_ context: Context) {}
    func queryDevice(_ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }
    func create(_ domain: ProtectionDomain, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }
    func create(_ handle: AddressHandle, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }

    /// Sets `entries` to what there will be.
    func create(_ queue: CompletionQueue, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has no completion queues")
    }

    func resize(_ queue: CompletionQueue, entries: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device does not resize completion queues")
    }

    /// REQ_NOTIFY_CQ: for devices that have no doorbell for it.
    func notify(_ queue: CompletionQueue, solicitedOnly: Bool) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has a doorbell for that, and no command")
    }

    /// Sets the limits to what there will be.
    func create(_ queue: SharedReceiveQueue, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has no shared receive queues")
    }

    func resize(_ queue: SharedReceiveQueue, requests: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device does not resize shared receive queues")
    }

    /// Sets the limits to what there will be.
    func create(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has no queue pairs")
    }

    /// Before the state changes.
    func modify(_ queuePair: QueuePair, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }

    /// Back to its beginning: nothing is posted.
    func reset(_ queuePair: QueuePair) {}

    func destroy(_ object: Object) {}

    /// POST_SEND, for drivers that have it.
    func post(
        _ context: Context, _ request: UnsafeRawBufferPointer, _ response: UnsafeMutableRawBufferPointer
    ) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has a doorbell for that, and no command")
    }

    /// A method that only this driver has.
    func call(_ context: Context, _ method: inout MethodCall) throws(Refusal) {
        throw Refusal(EPROTONOSUPPORT, "this kernel has no such method", has: Int(method.method))
    }

    /// A mapping: decides whether the kernel would allow it.
    func map(
        _ context: Context, offset: UInt64, length: Int, protection: Int32
    ) throws(Refusal) -> sim_mapping {
        throw Refusal(EINVAL, "nothing can be mapped from this device")
    }

    // MARK: - The data path

    /// Decodes the next send request that has been posted; false when there is none. It stays the next one until
    /// `retireSend`.
    func fetchSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool { false }
    func retireSend(_ queuePair: QueuePair) {}

    /// Takes the next receive request of a queue pair that has its own queue.
    func fetchReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) -> Bool { false }

    /// Takes the next receive request of a shared queue.
    func fetchReceive(_ queue: SharedReceiveQueue, _ request: ReceiveRequest) -> Bool { false }

    /// How many requests wait in a shared queue.
    func waiting(_ queue: SharedReceiveQueue) -> UInt32 { 0 }

    /// Writes a completion; false when there is no room for it.
    func write(_ completion: Completion, to queue: CompletionQueue) -> Bool { false }

    /// Looks at the doorbell by which the program asks for an event, where that lies in memory; true when it asks for
    /// one and completions that it has not seen are there already.
    func looksAtNotification(_ queue: CompletionQueue) -> Bool { false }

    /// Writes an entry as it is; whether it makes an event for those who wait for solicited ones alone. Nil when there
    /// is no room for it.
    func write(_ entry: UnsafeRawPointer, of queuePair: QueuePair, to queue: CompletionQueue) -> Bool? { nil }

    /// Memory that the program shares with the device; nil when there is none.
    func memory(_ queuePair: QueuePair, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? { nil }
    func memory(_ queue: SharedReceiveQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? { nil }
    func memory(_ queue: CompletionQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? { nil }

    /// A store to a doorbell page.
    func stored(page: UInt32, offset: UInt32, size: UInt32, _ bytes: UnsafeRawBufferPointer) {}
}

/// What a device says of itself, in sysfs and in answers.
struct Identity {
    let driver: UInt32
    /// Name of the device, without its number.
    let name: StaticString
    /// The kernel ABI of its driver.
    let abi: Int
    let pciVendor: UInt32
    let pciDevice: UInt32
    /// IEEE company number, as QUERY_DEVICE tells it.
    let company: UInt32
    /// First half of the port's GID of index 0.
    let board: StaticString
    var maximumQueuePairs: UInt32
    var maximumRequests: UInt32
    var maximumElements: UInt32
    var maximumReadElements: UInt32
    var maximumCompletions: UInt32
    var maximumSharedRequests: UInt32
    var maximumSharedElements: UInt32
    var maximumInline: UInt32
    var maximumReads: UInt32
    /// `enum ibv_device_cap_flags`.
    var capabilities: UInt32
}
