import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import ProviderKit
import Synchronization

/// An open device of the kernel's RDMA subsystem: its uverbs node, and how commands reach it.
///
/// Any thread may call any function. The commands take an ioctl where the kernel has it for them, and write(2) else: a
/// kernel without the ioctl answers ENOTTY, one that has it not for a command EPROTONOSUPPORT, and both are asked once.
public struct KernelDevice: ~Copyable {
    /// The open uverbs node: `ibv_context.cmd_fd`. Queues and doorbells of the device are mapped from it.
    public let descriptor: Int32
    /// The kernel's number for the driver: `enum rdma_driver_id`.
    public let driver: UInt32

    let calls: SystemCalls
    /// Commands that only write(2) brings to this kernel, by their bits.
    private let written = Atomic<UInt64>(0)
    private let writtenExtended = Atomic<UInt64>(0)

    /// Opens the device's node and finds out how this kernel takes commands.
    /// - Parameters:
    ///   - device: as the core describes it.
    ///   - driver: the driver's number, for the kernel checks that both mean the same one.
    ///   - why: gets a sentence when the node cannot be opened.
    public init(
        opening device: UnsafePointer<rdma_device>, driver: rdma_driver_id,
        why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) {
        let descriptor = openNode(device, why)
        if descriptor < 0 { throw KernelError(rawValue: -descriptor) }
        self.init(descriptor: descriptor, driver: driver, calls: .kernel)
    }

    /// Takes over a descriptor that is open, and closes it at its end.
    /// - Parameters:
    ///   - descriptor: a uverbs node.
    ///   - driver: number of its driver.
    ///   - calls: the way into the kernel, or into what a test has in its place.
    public init(descriptor: Int32, driver: rdma_driver_id, calls: SystemCalls) {
        self.descriptor = descriptor
        self.driver = driver.rawValue
        self.calls = calls
        probe()
    }

    deinit { linux_close(descriptor) }

    /// Whether the kernel is known to take this command by write(2) alone.
    public func isWritten(_ command: WriteCommand) -> Bool {
        let bits = command.isExtended ? writtenExtended.load(ordering: .relaxed) : written.load(ordering: .relaxed)
        return bits & command.bit != 0
    }

    /// Calls a method of the ioctl that no older command does as well.
    /// - Throws: what the kernel answers; EOPNOTSUPP where it has no such method.
    public func call(_ method: inout Method) throws(KernelError) {
        let error = method.call(descriptor, driver: driver, calls)
        if error == ENOTTY || error == EPROTONOSUPPORT { throw .notSupported }
        try KernelError.check(error)
    }

    /// Calls a method of the ioctl, unless this kernel is known not to have it.
    /// - Parameter older: the command that does the same on an older kernel.
    /// - Returns: false when the older command must do it.
    func call(_ method: inout Method, orElse older: WriteCommand) throws(KernelError) -> Bool {
        if isWritten(older) { return false }
        let error = method.call(descriptor, driver: driver, calls)
        if notes(error, of: older) { return false }
        try KernelError.check(error)
        return true
    }

    /// Takes note of a kernel that does not take the command by ioctl. True when the error means that.
    func notes(_ error: Int32, of command: WriteCommand) -> Bool {
        switch error {
        case ENOTTY:
            written.store(.max, ordering: .relaxed)
            writtenExtended.store(.max, ordering: .relaxed)
            return true
        case EPROTONOSUPPORT:
            if command.isExtended {
                writtenExtended.bitwiseOr(command.bit, ordering: .relaxed)
            } else {
                written.bitwiseOr(command.bit, ordering: .relaxed)
            }
            return true
        default: return false
        }
    }

    /// Asks for a command without giving it room for its answer: a kernel that would take it says ENOSPC. What else is in
    /// the way, such as another driver (EINVAL), says the command that makes the context.
    private func probe() {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
        method.constant(UVERBS_ATTR_WRITE_CMD, UInt64(WriteCommand.queryDevice.rawValue))
        switch method.call(descriptor, driver: driver, calls) {
        case ENOTTY: _ = notes(ENOTTY, of: .queryDevice)
        case EPROTONOSUPPORT: takesOnlyMethods()
        default: break
        }
    }

    /// A kernel between 4.20 and 5.0: it has methods, and takes what is not a method by write(2).
    private func takesOnlyMethods() {
        let methods =
            WriteCommand.createCompletionQueue.bit | WriteCommand.destroyCompletionQueue.bit
            | WriteCommand.createQueuePair.bit | WriteCommand.destroyQueuePair.bit
        written.store(~methods, ordering: .relaxed)
        writtenExtended.store(.max, ordering: .relaxed)
    }
}

/// The open node of the device, or a negative errno value and a sentence.
private func openNode(_ device: UnsafePointer<rdma_device>, _ why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    var path = Sentence("/dev/infiniband/")
    withUnsafeBytes(of: device.pointee.device.pointee.dev_name) {
        path.append($0.baseAddress!.assumingMemoryBound(to: CChar.self))
    }
    var descriptor: Int32 = -ENOENT
    path.withCString { descriptor = linux_open_node($0, UInt64(device.pointee.uverbs_dev)) }
    if descriptor >= 0 { return descriptor }

    var reason = Sentence("cannot open ")
    path.withCString { reason.append($0) }
    switch -descriptor {
    case EACCES, EPERM:
        reason.append(": permission denied; let this user read and write it (udev's rdma rules give it to everybody)")
    case ENOENT:
        reason.append(": there is no such file; load ib_uverbs, and give a container the devices of /dev/infiniband")
    case ENXIO:
        reason.append(": it is not the node of this device; the device was replaced, so look for devices again")
    case EMFILE, ENFILE:
        reason.append(": no file descriptor is left; see `ulimit -n`")
    default:
        reason.append(": errno ")
        reason.append(Int(-descriptor))
    }
    reason.store(in: why)
    return descriptor
}
