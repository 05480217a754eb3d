import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import Synchronization

/// An open device. Its first member is the `verbs_context`, which ends with the `ibv_context` that the core uses.
struct SoftContext: ~Copyable {
    var verbs = verbs_context()
    /// The interface as it was when the device was opened, from which its GUID is derived.
    let interface: linux_interface
    let asyncEvents: EventQueue
    let slot: Slot
    let progressThread: ProgressThread

    /// Guards the engine, the counters and all of `guarded`.
    let lock = Lock()
    /// The number of control verbs that wait for the lock, during which polling threads do not take it.
    let waiting = Atomic<UInt32>(0)
    /// Whether the device has failed (rdma_provider.h, chapter 6), which only a fault rule causes.
    let hasFailed = Atomic<Bool>(false)
    let engine: Engine
    /// In separate memory: changing a field accesses the whole struct around it, and threads without the lock read the
    /// fields above at the same time.
    let guarded: UnsafeMutablePointer<Guarded>
    let counters: UnsafeMutablePointer<LinkCounters>

    init(
        interface: linux_interface, slot: consuming Slot, senders: consuming Senders,
        asyncEvents: consuming EventQueue, progressThread: consuming ProgressThread
    ) {
        self.interface = interface
        self.asyncEvents = asyncEvents
        var configuration = Configuration(seed: (linux_random64(), linux_random64()))
        configuration.qpnPrefix = UInt32(slot.number)
        configuration.qpnPrefixBits = 8
        configuration.maximumQueuePairs = UInt32(DeviceLimits.queuePairNumbers)
        configuration.activeMTU = pathMTU(interfaceMTU: interface.mtu).byteCount ?? 256
        configuration.memoryCheck = isMapped
        engine = Engine(configuration)
        self.slot = slot
        self.progressThread = progressThread
        counters = .allocate(capacity: 1)
        counters.initialize(to: LinkCounters())
        guarded = .allocate(capacity: 1)
        guarded.initialize(to: Guarded(interface, senders: senders, neighbors: engine.neighbors))
    }

    deinit {
        guarded.deinitialize(count: 1)
        guarded.deallocate()
        counters.deallocate()
    }
}

/// The state that the lock of an open device guards: the inputs and outputs of the engine.
struct Guarded: ~Copyable {
    var port: PortInterface
    var gids: GIDTable
    var senders: Senders
    var peers: Peers
    /// What other processes of this host access directly.
    var accessTable = OwnAccessTable()
    var sharedMemory = SharedMemory()
    var management = ManagementPort()
    var sockets: Sockets
    var link = LinkState()
    var times = ProgressTimes()
    /// The bytes of device memory that are allocated.
    var deviceMemory = 0
    /// The last handle of an XRC domain that was opened; the others follow it.
    var xrcDomains: XRCDomainPointer?
    /// The faults that are injected; nil without rules.
    var faults: UnsafeMutablePointer<FaultInjector>?

    init(_ interface: linux_interface, senders: consuming Senders, neighbors: NeighborTable) {
        peers = Peers(neighbors: neighbors)
        port = PortInterface(interface)
        gids = GIDTable(ifindex: interface.index)
        sockets = Sockets()
        self.senders = senders
    }

    deinit {
        link.deallocate()
        if let faults {
            faults.deinitialize(count: 1)
            faults.deallocate()
        }
    }
}

/// The address of an open device.
typealias ContextPointer = UnsafeMutablePointer<SoftContext>

extension UnsafeMutablePointer<ibv_context> {
    /// The open device of a context that soft has made.
    @inline(__always)
    var soft: ContextPointer {
        let offset = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
        return (UnsafeMutableRawPointer(self) - offset).assumingMemoryBound(to: SoftContext.self)
    }
}

extension ContextPointer {
    /// The guarded state. Under the lock.
    @inline(__always)
    var guarded: UnsafeMutablePointer<Guarded> { pointee.guarded }

    /// Takes the lock for a control verb, with priority over polling threads.
    func lockForControl() {
        pointee.waiting.add(1, ordering: .relaxed)
        pointee.lock.lock()
        pointee.waiting.subtract(1, ordering: .relaxed)
        sendHeldAcknowledgement()
    }

    /// Releases the lock. Threads that posted meanwhile found it taken and returned, so their work requests are
    /// processed here.
    func unlock() {
        pointee.lock.unlock()
        if pointee.engine.doorbellIsRung { progressAfterPost() }
    }
}

func openDevice(
    device: UnsafePointer<rdma_device>?, attr: UnsafePointer<rdma_open_attr>?,
    opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    openDevice(device, attr, opened, why, faultRules: faultSetting)
}

/// Opens a device that injects the faults of these rules, or none.
func openDevice(
    _ device: UnsafePointer<rdma_device>?, _ attr: UnsafePointer<rdma_open_attr>?,
    _ opened: UnsafeMutablePointer<rdma_context>?, _ why: UnsafeMutablePointer<rdma_reason>?,
    faultRules: UnsafePointer<CChar>?
) -> Int32 {
    guard let device, let opened else { return EINVAL }
    if refusesImport(attr, why: why) { return EOPNOTSUPP }
    linux_mark_process()
    let error = probeDevice(device: device, why: why)
    if error != 0 { return error }
    var faults: UnsafeMutablePointer<FaultInjector>?
    let fault = readFaultRules(faultRules, &faults, why: why)
    if fault != 0 { return fault }
    defer { discard(faults) }
    var interface = linux_interface()
    let missing = linux_find_interface(device.pointee.interface, &interface)
    if missing != 0 {
        explainAbsence(of: device.pointee.interface, missing).store(in: why)
        return missing
    }
    let known = linux_interface_addresses(nil, 0)
    if known < 0 {
        var reason = MessageText("the addresses of network interfaces cannot be read (netdevice(7)): ")
        reason.append(error: -known)
        reason.store(in: why)
        return -known
    }
    linux_set_errno(0)
    guard let context = makeContext(interface) else {
        let error = linux_errno() == 0 ? ENOMEM : linux_errno()
        var reason = MessageText("no descriptor or memory for events, timers or packets between processes: ")
        reason.append(error: error)
        reason.store(in: why)
        return error
    }
    if let injector = faults {
        context.inject(injector)
        faults = nil
    }
    let raw = UnsafeMutableRawPointer(context).assumingMemoryBound(to: verbs_context.self)
    let verbs = rdma_init_context(
        raw, device.pointee.device, -1, context.pointee.asyncEvents.descriptor, Int32(DeviceLimits.completionVectors))!
    fillDataPath(&verbs.pointee.ops)
    if context.hasFaultRules { fillFaultDataPath(&verbs.pointee.ops) }
    guard context.startProgressThread() else {
        let error = linux_errno() == 0 ? EAGAIN : linux_errno()
        var reason = MessageText("the progress thread of the device cannot be started: ")
        reason.append(error: error)
        // pthread_create(3) returns EAGAIN also where there is no address space for the stack.
        if error == EAGAIN { reason.append("; see `ulimit -u`, `ulimit -v` and pids.max of the control group") }
        reason.store(in: why)
        rdma_fini_context(verbs)
        freeContext(context)
        return error
    }
    let isKept = linux_call_at_exit(
        { $0!.assumingMemoryBound(to: SoftContext.self).sendHeldAcknowledgementNow() }, context)
    assert(isKept, "a user has a slot for each open device")
    opened.pointee.context = verbs
    opened.pointee.ops = UnsafePointer(context.hasFaultRules ? faultControlTable : controlTable)
    return 0
}

private func makeContext(_ interface: linux_interface) -> ContextPointer? {
    let slot = Slot()
    guard let senders = Senders(slot), let asyncEvents = EventQueue(), let progressThread = ProgressThread()
    else { return nil }
    let context = ContextPointer.allocate(capacity: 1)
    context.initialize(
        to: SoftContext(
            interface: interface, slot: slot, senders: senders, asyncEvents: asyncEvents,
            progressThread: progressThread))
    // "0": packets to this host are sent over UDP too, so that they can be captured.
    if let setting = linux_getenv("RDMA_SOFT_SHM"), setting[0] == 48, setting[1] == 0 {
        context.guarded.pointee.link.usesSharedMemory = false
    }
    // "0": each packet is sent as a single datagram.
    if let setting = linux_getenv("RDMA_SOFT_UDP_SEGMENTS"), setting[0] == 48, setting[1] == 0 {
        context.guarded.pointee.sockets.segmentation.disable()
    }
    context.pointee.lock.lock()
    _ = context.guarded.pointee.sockets.follow(context.guarded.pointee.gids, ifindex: interface.index)
    context.pointee.lock.unlock()
    return context
}

private func freeContext(_ context: ContextPointer) {
    context.deinitialize(count: 1)
    context.deallocate()
}

func closeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let soft = context.soft
    soft.stopProgressThread()
    if soft.hasFaultRules { soft.logFaultSummary() }
    linux_forget_at_exit(soft)
    soft.lockForControl()
    soft.leaveNetwork()
    soft.unlock()
    // Memory regions that are still registered, whose memory the application frees now.
    soft.endAllAccess()
    rdma_fini_context(context)
    freeContext(soft)
    return 0
}
