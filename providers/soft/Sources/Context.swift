import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

/// An open device. Its first member is the public struct; the context that the core knows lies at the end of it.
struct SoftContext: ~Copyable {
    var verbs = verbs_context()
    let interface: linux_interface
    /// Guards the engine and all that is reached from it.
    let lock = Lock()
    /// The GID table; under `lock`.
    var gids: GIDTable
    var asyncEvents: EventQueue

    init(interface: linux_interface, asyncEvents: consuming EventQueue) {
        self.interface = interface
        self.asyncEvents = asyncEvents
        gids = GIDTable(ifindex: interface.index)
    }
}

/// Where an open device lies.
typealias Context = UnsafeMutablePointer<SoftContext>

extension UnsafeMutablePointer<ibv_context> {
    /// The device behind a public context of ours.
    var soft: Context {
        let offset = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
        return (UnsafeMutableRawPointer(self) - offset).assumingMemoryBound(to: SoftContext.self)
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
    guard let asyncEvents = EventQueue() else {
        let error = linux_errno()
        Sentence("no file descriptor left for asynchronous events: raise `ulimit -n`").store(in: why)
        return error
    }
    let context = Context.allocate(capacity: 1)
    context.initialize(to: SoftContext(interface: interface, asyncEvents: asyncEvents))
    let raw = UnsafeMutableRawPointer(context).assumingMemoryBound(to: verbs_context.self)
    opened.pointee.context = rdma_init_context(
        raw, device.pointee.device, -1, context.pointee.asyncEvents.descriptor, Int32(Limits.completionVectors))
    opened.pointee.ops = UnsafePointer(controlTable)
    return 0
}

func closeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let soft = context.soft
    rdma_fini_context(context)
    soft.deinitialize(count: 1)
    soft.deallocate()
    return 0
}
