import CSimulator
import CSimulatorABI

/// The vendor's part of a device: the driver data of the kernel's commands, the mappings that it allows, and the
/// formats of WQEs and CQEs. The engine is independent of it.
class Codec {
    // A reference cycle, which is harmless: a device lives as long as the process.
    let device: Device
    let identity: Identity

    init(_ device: Device, _ identity: Identity) {
        self.device = device
        self.identity = identity
    }

    /// Whether the kernel's driver executes work requests itself, within the command that posts them.
    var runsInCommands: Bool { false }

    /// The first QPN.
    var firstNumber: UInt32 { Device.firstNumber }

    /// The QPN of a new queue pair; it was not used before.
    func allocateNumber(_ queuePair: QueuePair) throws(Refusal) -> UInt32 { device.nextNumber }

    // MARK: - Commands

    func open(_ context: Context, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }
    func close(_ context: Context) {}
    func queryDevice(_ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }
    func create(_ domain: ProtectionDomain, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }
    func create(_ handle: AddressHandle, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }

    /// Sets `entries` to the actual capacity.
    func create(_ queue: CompletionQueue, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has no completion queues")
    }

    func resize(_ queue: CompletionQueue, entries: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device does not resize completion queues")
    }

    /// REQ_NOTIFY_CQ: for devices without an arming doorbell.
    func notify(_ queue: CompletionQueue, solicitedOnly: Bool) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has a doorbell for that, and no command")
    }

    /// Sets the limits to their actual values.
    func create(_ queue: SharedReceiveQueue, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has no shared receive queues")
    }

    func resize(_ queue: SharedReceiveQueue, requests: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device does not resize shared receive queues")
    }

    /// Sets the limits to their actual values.
    func create(_ queuePair: QueuePair, flags: UInt32, _ driver: DriverData) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has no queue pairs")
    }

    /// Checks the limits of the receive queue of a queue pair that has a shared one.
    func checkIgnored(_ limits: ibv_qp_cap) throws(Refusal) {}

    /// MODIFY_QP, before the state changes.
    func modify(_ queuePair: QueuePair, _ driver: DriverData) throws(Refusal) { try driver.expectNoInput() }

    /// Empties the queues of a queue pair that enters RESET.
    func reset(_ queuePair: QueuePair) {}

    func destroy(_ object: Object) {}

    /// POST_SEND, for drivers that support it.
    func post(
        _ context: Context, _ request: UnsafeRawBufferPointer, _ response: UnsafeMutableRawBufferPointer
    ) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has a doorbell for that, and no command")
    }

    /// A method that only this driver has.
    func call(_ context: Context, _ method: inout MethodCall) throws(Refusal) {
        throw Refusal(EPROTONOSUPPORT, "this kernel has no such method", has: Int(method.method))
    }

    /// mmap(2): throws if the kernel would not allow the mapping.
    func map(
        _ context: Context, offset: UInt64, length: Int, protection: Int32
    ) throws(Refusal) -> sim_mapping {
        throw Refusal(EINVAL, "nothing can be mapped from this device")
    }

    // MARK: - Limits

    /// CREATE_QP: whether the kernel's driver accepts these limits.
    func check(_ limits: ibv_qp_cap) throws(Refusal) {
        try demand(
            limits.max_send_wr <= identity.maximumRequests && limits.max_recv_wr <= identity.maximumRequests, EINVAL,
            "the device does not support this max_wr", has: Int(max(limits.max_send_wr, limits.max_recv_wr)),
            wants: Int(identity.maximumRequests))
        try demand(
            limits.max_send_sge <= identity.maximumSGEs && limits.max_recv_sge <= identity.maximumSGEs, EINVAL,
            "the device does not support this max_sge", has: Int(max(limits.max_send_sge, limits.max_recv_sge)),
            wants: Int(identity.maximumSGEs))
    }

    /// CREATE_SRQ: whether the kernel's driver accepts these limits.
    func checkShared(requests: UInt32, sges: UInt32) throws(Refusal) {
        try demand(
            requests >= 1 && requests <= identity.maximumSharedRequests, EINVAL,
            "the device does not support this max_wr",
            has: Int(requests), wants: Int(identity.maximumSharedRequests))
        try demand(
            sges <= identity.maximumSharedSGEs, EINVAL, "the device does not support this max_sge",
            has: Int(sges), wants: Int(identity.maximumSharedSGEs))
    }

    /// REG_MR: whether the kernel's driver accepts a region of this length.
    func checkRegion(length: UInt64) throws(Refusal) {}

    /// REREG_MR: throws if the kernel's driver has no such command.
    func checkReregistration() throws(Refusal) {}

    /// ALLOC_MW: whether the kernel's driver has windows of this type.
    func checkWindow(type: UInt8) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device has no memory windows")
    }

    /// QUERY_SRQ: throws if the kernel's driver has no such command.
    func query(_ queue: SharedReceiveQueue) throws(Refusal) {}

    /// Whether the library detects that a shared receive queue has fallen below its limit, and reports it by MODIFY_SRQ
    /// without attributes.
    var hasSoftwareLimit: Bool { false }

    // MARK: - iWARP connections

    /// The queue pair has entered RTS.
    func start(_ queuePair: QueuePair, isInitiator: Bool) {}

    /// Marks the queues of a queue pair whose connection ends: the library refuses further work requests.
    func markError(_ queuePair: QueuePair) {}

    /// Marks the completion queues of a queue pair, and raises completion events: the library completes the work
    /// requests that remain.
    func markFlush(_ queuePair: QueuePair) {}

    /// The peer's Terminate message has arrived.
    func receiveTerminate(_ queuePair: QueuePair) {}

    /// MODIFY_QP with `sq_psn` or `rq_psn`: the kernel rings the doorbell of a queue.
    func ringDoorbell(_ queuePair: QueuePair, isReceive: Bool, slots: UInt32) throws(Refusal) {
        throw Refusal(EINVAL, "this kernel rings no doorbells")
    }

    /// Stops the doorbells, or resumes them.
    func stopDoorbells(_ isStopped: Bool) throws(Refusal) {
        throw Refusal(EOPNOTSUPP, "this device's doorbells do not stop")
    }

    // MARK: - The data path

    /// No more WQEs of the queue pair can be executed in this run.
    func finishRun(_ queuePair: QueuePair) {}

    /// Decodes the WQE at the head of the send queue; false when it is empty. It stays at the head until `retireSend`.
    func fetchSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool { false }
    func retireSend(_ queuePair: QueuePair) {}

    /// Consumes the next receive WQE of a queue pair's own receive queue; false when it is empty.
    func fetchReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) -> Bool { false }

    /// Consumes the next WQE of a shared receive queue; false when it is empty.
    func fetchReceive(_ queue: SharedReceiveQueue, _ request: ReceiveRequest) -> Bool { false }

    /// iWARP: a receive WQE was consumed, and its message is refused.
    func abandonReceive(_ queuePair: QueuePair, _ request: ReceiveRequest) {}

    /// The number of posted WQEs of a shared receive queue.
    func waiting(_ queue: SharedReceiveQueue) -> UInt32 { 0 }

    /// Writes a CQE; false when the queue is full.
    func write(_ completion: Completion, to queue: CompletionQueue) -> Bool { false }

    /// Reads the arming doorbell of a device that has it in memory; true when the queue is armed for any completion and
    /// has CQEs since the doorbell.
    func pollArmDoorbell(_ queue: CompletionQueue) -> Bool { false }

    /// Writes the bytes of a CQE unchanged. Returns whether it raises an event on a queue that is armed for solicited
    /// completions only; nil when the queue is full.
    func write(_ entry: UnsafeRawPointer, of queuePair: QueuePair, to queue: CompletionQueue) -> Bool? { nil }

    /// Memory that program and device share; nil when the object has none.
    func memory(_ queuePair: QueuePair, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? { nil }
    func memory(_ queue: SharedReceiveQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? { nil }
    func memory(_ queue: CompletionQueue, _ area: uverbs_sim_area) -> UnsafeMutableRawBufferPointer? { nil }

    /// A store to a UAR page.
    func stored(page: UInt32, offset: UInt32, size: UInt32, _ bytes: UnsafeRawBufferPointer) {}
}

/// The constants of a device in sysfs and in the kernel's responses.
struct Identity {
    let driver: UInt32
    /// Name of the device, without its number.
    let name: StaticString
    /// The kernel ABI of its driver.
    let abi: Int
    /// `fw_ver` of QUERY_DEVICE, and in sysfs.
    var firmware: (number: UInt64, text: StaticString) = (16 << 32 | 35 << 16 | 1012, "16.35.1012")
    let pciVendor: UInt32
    let pciDevice: UInt32
    /// The vendor's IEEE OUI, QUERY_DEVICE's `vendor_id`.
    let company: UInt32
    /// `board_id` in sysfs.
    let board: StaticString
    var maximumQueuePairs: UInt32
    var maximumRequests: UInt32
    var maximumSGEs: UInt32
    var maximumReadSGEs: UInt32
    var maximumCompletions: UInt32
    var maximumSharedRequests: UInt32
    var maximumSharedSGEs: UInt32
    var maximumInline: UInt32
    var maxReadAtomic: UInt32
    /// `enum ibv_device_cap_flags`.
    var capabilities: UInt32
}
