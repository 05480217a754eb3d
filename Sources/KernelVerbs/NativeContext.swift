import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import ProviderKit

/// An open device (`verbs_context`, `ibv_context`) of a provider that executes uverbs commands itself. A provider with
/// more state declares a struct whose first member is a `NativeContext`.
public struct NativeContext: ~Copyable {
    /// The `verbs_context`, which ends with the `ibv_context`.
    public var verbs = verbs_context()
    /// The open uverbs node.
    public let kernel: KernelDevice
    /// The kernel's response to creating the context.
    public let opened: KernelContext
    let extendedQueues = ExtendedQueues()

    /// Creates an open device. The caller then calls `initialize(_:)`, which sets up the `verbs_context`.
    public init(kernel: consuming KernelDevice, opened: KernelContext) {
        self.kernel = kernel
        self.opened = opened
    }

    deinit { linux_close(opened.asyncDescriptor) }
}

/// A pointer to an open device.
public typealias NativeContextPointer = UnsafeMutablePointer<NativeContext>

extension UnsafeMutablePointer<ibv_context> {
    /// The open device that contains this `ibv_context`.
    @inline(__always)
    public var native: NativeContextPointer {
        let offset = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
        return (UnsafeMutableRawPointer(self) - offset).assumingMemoryBound(to: NativeContext.self)
    }
}

extension NativeContextPointer {
    /// Initialises the `verbs_context` (`rdma_init_context`). Returns the `ibv_context` in it.
    public func initialize(_ device: UnsafeMutablePointer<ibv_device>) -> UnsafeMutablePointer<ibv_context> {
        rdma_init_context(
            UnsafeMutableRawPointer(self).assumingMemoryBound(to: verbs_context.self), device,
            pointee.kernel.descriptor, pointee.opened.asyncDescriptor, pointee.opened.completionVectors)
    }
}

// MARK: - Opening and closing

/// The properties of a provider that executes uverbs commands itself: its name, and the kernel driver that it supports.
public struct NativeProvider: Sendable {
    /// The name in the driver file (`rdma_provider.name`).
    public let name: StaticString
    /// The kernel driver of the supported devices (`enum rdma_driver_id`).
    public let driver: rdma_driver_id
    /// The name of the kernel module, as in modinfo(8).
    public let module: StaticString
    /// The supported versions of the driver's ABI (`rdma_provider.kernel_abi_min`, `kernel_abi_max`).
    public let kernelVersions: ClosedRange<UInt32>

    /// A provider with these properties.
    public init(
        name: StaticString, driver: rdma_driver_id, module: StaticString, kernelVersions: ClosedRange<UInt32>
    ) {
        self.name = name
        self.driver = driver
        self.module = module
        self.kernelVersions = kernelVersions
    }

    /// `rdma_provider.probe_device`: returns 0 for a device of the driver if both ABI versions are supported; otherwise
    /// ENODEV, and the reason in `why`.
    public func probe(_ device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
        guard let device, device.pointee.kind == RDMA_DEVICE_KERNEL.rawValue,
            device.pointee.driver_id == driver.rawValue || device.pointee.driver_id == UInt32.max
        else {
            var reason = MessageText(name)
            reason.append(" supports devices of the kernel driver ")
            reason.append(module)
            reason.append(" only")
            reason.store(in: why)
            return ENODEV
        }
        return KernelABI.isServed(device, provider: name, supported: kernelVersions, why: why) ? 0 : ENODEV
    }

    /// Probes the device and opens its uverbs node. Throws an errno value, and stores the reason in `why`, if the node
    /// cannot be opened or the device is not supported.
    public func openNode(
        of device: UnsafePointer<rdma_device>, _ attr: UnsafePointer<rdma_open_attr>?,
        why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> KernelDevice {
        if refusesImport(attr, why: why) { throw .notSupported }
        let refusal = probe(device, why: why)
        if refusal != 0 { throw KernelError(rawValue: refusal) }
        return try KernelDevice(opening: device, driver: driver, why: why)
    }

    /// `rdma_provider.open_device` of a provider without state beyond `NativeContext`.
    /// - Parameters:
    ///   - table: The control table (`rdma_context_ops`).
    ///   - fill: Sets the functions of the data path (`ibv_context_ops`).
    public func open(
        _ device: UnsafePointer<rdma_device>?, _ attr: UnsafePointer<rdma_open_attr>?,
        _ opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?,
        table: UnsafePointer<rdma_context_ops>,
        fill: (inout ibv_context_ops) -> Void
    ) -> Int32 {
        open(device, attr, opened, why: why, table: table, fill: fill) { kernel throws(KernelError) in
            let response = try kernel.getContext(why: why)
            let context = NativeContextPointer.allocate(capacity: 1)
            context.initialize(to: NativeContext(kernel: kernel, opened: response))
            return context
        }
    }

    /// `rdma_provider.open_device` of a provider with a context of its own.
    /// - Parameters:
    ///   - table: The control table (`rdma_context_ops`).
    ///   - fill: Sets the functions of the data path (`ibv_context_ops`).
    ///   - make: Creates the context in the kernel and allocates its struct, whose first member is a `NativeContext`.
    public func open(
        _ device: UnsafePointer<rdma_device>?, _ attr: UnsafePointer<rdma_open_attr>?,
        _ opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?,
        table: UnsafePointer<rdma_context_ops>,
        fill: (inout ibv_context_ops) -> Void,
        make: (consuming KernelDevice) throws(KernelError) -> NativeContextPointer
    ) -> Int32 {
        guard let device, let opened else { return EINVAL }
        return errno { () throws(KernelError) in
            let context = try make(try openNode(of: device, attr, why: why))
            let verbs = context.initialize(device.pointee.device)
            fill(&verbs.pointee.ops)
            opened.pointee.context = verbs
            opened.pointee.ops = table
        }
    }
}

/// `close_context` of a provider without state beyond `NativeContext` (`ibv_close_device`).
public func closeNativeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let native = context.native
    rdma_fini_context(context)
    native.deinitialize(count: 1)
    native.deallocate()
    return 0
}

extension KernelDevice {
    /// Creates the context in the kernel. Stores the reason in `why` on failure.
    public func getContext(
        driver: DriverData = .none, why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> KernelContext {
        do throws(KernelError) {
            return try getContext(driver: driver)
        } catch {
            var reason = MessageText("the kernel created no context on the device: ")
            reason.append(error: error.rawValue)
            reason.append("; see `dmesg`")
            reason.store(in: why)
            throw error
        }
    }
}
