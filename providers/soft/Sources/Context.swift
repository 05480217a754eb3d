import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import Synchronization

/// An open device. Its first member is the public struct; the context that the core knows lies at the end of that.
struct SoftContext: ~Copyable {
    var verbs = verbs_context()
    let interface: linux_interface
    let asyncEvents: EventQueue
    let registry: Registry
    /// What others see of the mailbox, and the bell that they ring.
    let mailbox: MailboxHeader
    let bell: Int32
    let watch: Watch

    /// Guards the engine, the counters and all of `guarded`.
    let lock = Lock()
    /// Control verbs that wait for the lock: pollers stand back for them.
    let waiting = Atomic<UInt32>(0)
    let engine: Engine
    /// In memory of its own: to change a field is to access the struct around it, and those who have not got the lock
    /// look at the fields above meanwhile.
    let guarded: UnsafeMutablePointer<Guarded>
    let counters: UnsafeMutablePointer<LinkCounters>

    init(
        interface: linux_interface, registry: consuming Registry, mailbox: consuming Mailbox,
        asyncEvents: consuming EventQueue, watch: consuming Watch
    ) {
        self.interface = interface
        self.asyncEvents = asyncEvents
        var configuration = Configuration(seed: (linux_random64(), linux_random64()))
        configuration.queuePairPrefix = UInt32(registry.slot)
        configuration.queuePairPrefixBits = 8
        configuration.activeMTU = pathMTU(interfaceMTU: interface.mtu).byteCount ?? 256
        engine = Engine(configuration)
        self.registry = registry
        self.watch = watch
        self.mailbox = mailbox.header
        bell = mailbox.bell
        counters = .allocate(capacity: 1)
        counters.initialize(to: LinkCounters())
        guarded = .allocate(capacity: 1)
        guarded.initialize(to: Guarded(ifindex: interface.index, mailbox: mailbox))
    }

    deinit {
        guarded.deinitialize(count: 1)
        guarded.deallocate()
        counters.deallocate()
    }
}

/// What the lock of an open device guards: the ways in and out of the engine.
struct Guarded: ~Copyable {
    var gids: GIDTable
    var mailbox: Mailbox
    var peers = Peers()
    var sockets: Sockets
    var link = LinkState()
    var times = WatchTimes()

    init(ifindex: UInt32, mailbox: consuming Mailbox) {
        gids = GIDTable(ifindex: ifindex)
        sockets = Sockets(ifindex: ifindex)
        self.mailbox = mailbox
    }

    deinit { link.deallocate() }
}

/// Where an open device lies.
typealias ContextPointer = UnsafeMutablePointer<SoftContext>

extension UnsafeMutablePointer<ibv_context> {
    /// The device behind a public context of ours.
    @inline(__always)
    var soft: ContextPointer {
        let offset = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
        return (UnsafeMutableRawPointer(self) - offset).assumingMemoryBound(to: SoftContext.self)
    }
}

extension ContextPointer {
    /// What the lock guards. Under the lock.
    @inline(__always)
    var guarded: UnsafeMutablePointer<Guarded> { pointee.guarded }

    /// Takes the lock for a control verb, before those who poll.
    func lockForControl() {
        pointee.waiting.add(1, ordering: .relaxed)
        pointee.lock.lock()
        pointee.waiting.subtract(1, ordering: .relaxed)
    }

    /// Gives the lock back. Who posted meanwhile found it taken and went away: their work is done here, since nobody
    /// else may ever come.
    func unlock() {
        pointee.lock.unlock()
        if pointee.engine.doorbellIsRung { progressAfterPost() }
    }

    /// Reads the addresses of the interface again, and opens and closes sockets accordingly. Under the lock.
    func refreshAddresses() {
        guarded.pointee.gids.refresh()
        guarded.pointee.sockets.follow(guarded.pointee.gids)
        pointee.watch.wake()
    }
}

func openDevice(
    device: UnsafePointer<rdma_device>?, opened: UnsafeMutablePointer<rdma_context>?,
    why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    guard let device, let opened else { return EINVAL }
    let error = probeDevice(device: device, why: why)
    if error != 0 { return error }
    var interface = linux_interface()
    let missing = linux_find_interface(device.pointee.interface, &interface)
    if missing != 0 { return missing }
    guard let context = makeContext(interface) else {
        let error = linux_errno()
        Sentence("no memory or no file descriptor left for the device: see `ulimit -n` and `df /dev/shm`").store(
            in: why)
        return error == 0 ? ENOMEM : error
    }
    let raw = UnsafeMutableRawPointer(context).assumingMemoryBound(to: verbs_context.self)
    let verbs = rdma_init_context(
        raw, device.pointee.device, -1, context.pointee.asyncEvents.descriptor, Int32(DeviceLimits.completionVectors))!
    fillDataPath(&verbs.pointee.ops)
    guard context.startWatch() else {
        let error = linux_errno()
        Sentence("no thread can be started for the device: see `ulimit -u`").store(in: why)
        rdma_fini_context(verbs)
        freeContext(context)
        return error
    }
    opened.pointee.context = verbs
    opened.pointee.ops = UnsafePointer(controlTable)
    return 0
}

private func makeContext(_ interface: linux_interface) -> ContextPointer? {
    let registry = Registry()
    guard let mailbox = Mailbox(registry), let asyncEvents = EventQueue(), let watch = Watch() else { return nil }
    let context = ContextPointer.allocate(capacity: 1)
    context.initialize(
        to: SoftContext(
            interface: interface, registry: registry, mailbox: mailbox, asyncEvents: asyncEvents, watch: watch))
    // "0": packets to this host go over UDP as well, so that they can be looked at.
    if let setting = linux_getenv("RDMA_SOFT_SHM"), setting[0] == 48, setting[1] == 0 {
        context.guarded.pointee.link.usesSharedMemory = false
    }
    // "0": each packet is a datagram of its own.
    if let setting = linux_getenv("RDMA_SOFT_UDP_SEGMENTS"), setting[0] == 48, setting[1] == 0 {
        context.guarded.pointee.sockets.trains.switchOff()
    }
    context.pointee.lock.lock()
    context.guarded.pointee.sockets.follow(context.guarded.pointee.gids)
    context.pointee.lock.unlock()
    return context
}

private func freeContext(_ context: ContextPointer) {
    context.pointee.registry.withdraw()
    context.deinitialize(count: 1)
    context.deallocate()
}

func closeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let soft = context.soft
    soft.stopWatch()
    soft.lockForControl()
    soft.leaveNetwork()
    soft.unlock()
    rdma_fini_context(context)
    freeContext(soft)
    return 0
}
