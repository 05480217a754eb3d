import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import ProviderKit
import Synchronization

/// An open uverbs node (`ibv_context.cmd_fd`), which executes commands by ioctl or write(2).
///
/// Any thread may call any function. A command uses the ioctl (RDMA_VERBS_IOCTL) if the kernel supports it for that
/// command, and write(2) otherwise. A kernel without the ioctl returns ENOTTY; a kernel that lacks the ioctl method for
/// a command returns EPROTONOSUPPORT. The result is remembered, so each is tried once.
public struct KernelDevice: ~Copyable {
    /// The descriptor of the uverbs node (`ibv_context.cmd_fd`). The provider maps queues and UAR pages from it.
    public let descriptor: Int32
    /// The kernel driver (`enum rdma_driver_id`).
    public let driver: UInt32

    /// Whether `deinit` closes the descriptor. False for a descriptor that still belongs to someone else.
    public var closesDescriptor = true

    let calls: SystemCalls
    /// The commands that this kernel accepts by write(2) only (`WriteCommand.bit`).
    private let written = Atomic<UInt64>(0)
    private let writtenExtended = Atomic<UInt64>(0)

    /// Opens the device's uverbs node, and determines whether the kernel accepts commands by ioctl.
    /// - Parameters:
    ///   - device: The core's description of the device (`struct rdma_device`).
    ///   - driver: The kernel driver; the kernel refuses commands for another one.
    ///   - why: Receives the reason if the node cannot be opened.
    public init(
        opening device: UnsafePointer<rdma_device>, driver: rdma_driver_id,
        why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) {
        let descriptor = openNode(device, why)
        if descriptor < 0 { throw KernelError(rawValue: -descriptor) }
        self.init(descriptor: descriptor, driver: driver, calls: .kernel)
    }

    /// Takes ownership of an open descriptor; `deinit` closes it.
    /// - Parameters:
    ///   - descriptor: An open uverbs node.
    ///   - driver: The kernel driver.
    ///   - calls: The system calls, or the functions of a simulated kernel.
    public init(descriptor: Int32, driver: rdma_driver_id, calls: SystemCalls) {
        self.descriptor = descriptor
        self.driver = driver.rawValue
        self.calls = calls
        probe()
    }

    deinit { if closesDescriptor { linux_close(descriptor) } }

    /// Whether the kernel is known to accept this command by write(2) only.
    public func isWritten(_ command: WriteCommand) -> Bool {
        let bits = command.isExtended ? writtenExtended.load(ordering: .relaxed) : written.load(ordering: .relaxed)
        return bits & command.bit != 0
    }

    /// Calls an ioctl method that has no write command as a fallback.
    /// - Throws: The kernel's errno value; EOPNOTSUPP if the kernel lacks the method.
    public func call(_ method: inout Method) throws(KernelError) {
        let error = method.call(descriptor, driver: driver, calls)
        if error == ENOTTY || error == EPROTONOSUPPORT { throw .notSupported }
        try KernelError.check(error)
    }

    /// Calls an ioctl method with attributes as the kernel has them (`struct ib_uverbs_attr`), and writes back what it
    /// returns in them.
    /// - Throws: EINVAL for more than 4,094 attributes; EOPNOTSUPP if the kernel lacks the method.
    public func call(
        object: UInt16, method: UInt16, _ attributes: UnsafeMutableBufferPointer<ib_uverbs_attr>
    ) throws(KernelError) {
        let headerSize = MemoryLayout<ib_uverbs_ioctl_hdr>.size
        let count = headerSize + MemoryLayout<ib_uverbs_attr>.stride * attributes.count
        guard count <= Int(UInt16.max) else { throw .invalidArgument }
        var header = ib_uverbs_ioctl_hdr()
        header.length = UInt16(count)
        header.object_id = object
        header.method_id = method
        header.num_attrs = UInt16(attributes.count)
        header.driver_id = driver
        let request = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 8)
        defer { request.deallocate() }
        request.storeBytes(of: header, as: ib_uverbs_ioctl_hdr.self)
        let list = UnsafeMutableRawBufferPointer(attributes)
        if let base = list.baseAddress { (request + headerSize).copyMemory(from: base, byteCount: list.count) }
        let error = calls.ioctl(descriptor, request)
        if let base = list.baseAddress { base.copyMemory(from: request + headerSize, byteCount: list.count) }
        if error == ENOTTY || error == EPROTONOSUPPORT { throw .notSupported }
        try KernelError.check(error)
    }

    /// Calls an ioctl method, unless the kernel is known to lack it.
    /// - Parameter older: The equivalent write command of an older kernel.
    /// - Returns: False if the kernel lacks the method: the caller must then execute the write command.
    func call(_ method: inout Method, orElse older: WriteCommand) throws(KernelError) -> Bool {
        if isWritten(older) { return false }
        let error = method.call(descriptor, driver: driver, calls)
        if notes(error, of: older) { return false }
        try KernelError.check(error)
        return true
    }

    /// Records that the kernel does not accept the command by ioctl, if `error` means so (ENOTTY, EPROTONOSUPPORT).
    /// Returns whether it does.
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

    /// Invokes QUERY_DEVICE by ioctl without memory for the response: a kernel that accepts the command returns ENOSPC.
    /// Other errors, such as a wrong driver (EINVAL), are reported by `getContext`.
    private func probe() {
        var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
        method.constant(UVERBS_ATTR_WRITE_CMD, UInt64(WriteCommand.queryDevice.rawValue))
        switch method.call(descriptor, driver: driver, calls) {
        case ENOTTY: _ = notes(ENOTTY, of: .queryDevice)
        case EPROTONOSUPPORT: takesOnlyMethods()
        default: break
        }
    }

    /// Records a kernel of versions 4.20 to 5.0, which has some ioctl methods and accepts all other commands by
    /// write(2).
    private func takesOnlyMethods() {
        let methods =
            WriteCommand.createCompletionQueue.bit | WriteCommand.destroyCompletionQueue.bit
            | WriteCommand.createQueuePair.bit | WriteCommand.destroyQueuePair.bit
        written.store(~methods, ordering: .relaxed)
        writtenExtended.store(.max, ordering: .relaxed)
    }
}

/// Opens the device's uverbs node. Returns its descriptor, or a negative errno value with the reason in `why`.
private func openNode(_ device: UnsafePointer<rdma_device>, _ why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    var path = MessageText("/dev/infiniband/")
    withUnsafeBytes(of: device.pointee.device.pointee.dev_name) {
        path.append($0.baseAddress!.assumingMemoryBound(to: CChar.self))
    }
    var descriptor: Int32 = -ENOENT
    path.withCString { descriptor = linux_open_node($0, UInt64(device.pointee.uverbs_dev)) }
    if descriptor >= 0 { return descriptor }

    var reason = MessageText("cannot open ")
    path.withCString { reason.append($0) }
    switch -descriptor {
    case EACCES, EPERM:
        reason.append(": permission denied; give this user read and write access (the udev rules of rdma-core do)")
    case ENOENT:
        reason.append(": no such file; load the kernel module ib_uverbs; in a container, pass /dev/infiniband in")
    case ENXIO:
        reason.append(": the node belongs to another device, because this one was replaced; list the devices again")
    default:
        reason.append(": ")
        reason.append(error: -descriptor)
    }
    reason.store(in: why)
    return descriptor
}
