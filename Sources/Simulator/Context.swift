import CSimulator

/// A device that a program has open (`struct ib_uverbs_file`): one descriptor of its node, and the objects that were
/// created through it.
final class Context {
    let device: Device
    let descriptor: Int32
    /// GET_CONTEXT was called; before that, the kernel refuses every other command.
    var isReady = false
    /// Asynchronous events.
    var events: EventFile?
    /// By handle; nil for a destroyed object. A handle is never reused, so that the use of a stale one is detected.
    private var objects: [Object?] = []
    var vendor = VendorState()

    init(_ device: Device, descriptor: Int32) {
        self.device = device
        self.descriptor = descriptor
    }

    func add(_ object: Object) {
        object.handle = UInt32(objects.count)
        objects.append(object)
    }

    func remove(_ object: Object) { objects[Int(object.handle)] = nil }

    /// The remaining objects, newest first: the order in which close(2) destroys them.
    var remaining: [Object] { objects.reversed().compactMap { $0 } }

    private func find(_ handle: UInt32, _ kind: Kind, _ errno: Int32) throws(Refusal) -> Object {
        let index = Int(handle)
        guard index < objects.count, let object = objects[index] else {
            throw Refusal(errno, "there is no object of this handle", has: index)
        }
        try demand(object.kind == kind, errno, "the handle is that of another kind of object", has: index)
        return object
    }

    /// - Parameter errno: The error for an invalid handle: ENOENT by ioctl(2), EINVAL in a command's struct.
    func object(_ handle: UInt32, _ kind: Kind, errno: Int32 = EINVAL) throws(Refusal) -> Object {
        try find(handle, kind, errno)
    }

    func domain(_ handle: UInt32) throws(Refusal) -> ProtectionDomain {
        unsafeDowncast(try find(handle, .domain, EINVAL), to: ProtectionDomain.self)
    }

    func region(_ handle: UInt32) throws(Refusal) -> MemoryRegion {
        unsafeDowncast(try find(handle, .region, EINVAL), to: MemoryRegion.self)
    }

    func addressHandle(_ handle: UInt32) throws(Refusal) -> AddressHandle {
        unsafeDowncast(try find(handle, .addressHandle, EINVAL), to: AddressHandle.self)
    }

    func completionQueue(_ handle: UInt32) throws(Refusal) -> CompletionQueue {
        unsafeDowncast(try find(handle, .completionQueue, EINVAL), to: CompletionQueue.self)
    }

    func queuePair(_ handle: UInt32) throws(Refusal) -> QueuePair {
        unsafeDowncast(try find(handle, .queuePair, EINVAL), to: QueuePair.self)
    }

    func sharedReceiveQueue(_ handle: UInt32) throws(Refusal) -> SharedReceiveQueue {
        unsafeDowncast(try find(handle, .sharedReceiveQueue, EINVAL), to: SharedReceiveQueue.self)
    }
}
