import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import ProviderKit

/// An open device of a provider that talks to the kernel itself. A provider with more to keep makes a struct of its own
/// whose first member this is.
public struct NativeContext: ~Copyable {
    /// The public struct; the context that the core knows lies at the end of it.
    public var verbs = verbs_context()
    /// The device, and how commands reach it.
    public let kernel: KernelDevice
    /// What the kernel answered when the context was made.
    public let opened: KernelContext
    let extendedQueues = ExtendedQueues()

    /// An open device. `initialize(_:)` makes its public struct.
    public init(kernel: consuming KernelDevice, opened: KernelContext) {
        self.kernel = kernel
        self.opened = opened
    }

    deinit { linux_close(opened.asyncDescriptor) }
}

/// Where an open device lies.
public typealias NativeContextPointer = UnsafeMutablePointer<NativeContext>

extension UnsafeMutablePointer<ibv_context> {
    /// The open device around a public context.
    @inline(__always)
    public var native: NativeContextPointer {
        let offset = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
        return (UnsafeMutableRawPointer(self) - offset).assumingMemoryBound(to: NativeContext.self)
    }
}

extension NativeContextPointer {
    /// Makes the public struct of an open device, and answers the context in it.
    public func initialize(_ device: UnsafeMutablePointer<ibv_device>) -> UnsafeMutablePointer<ibv_context> {
        rdma_init_context(
            UnsafeMutableRawPointer(self).assumingMemoryBound(to: verbs_context.self), device,
            pointee.kernel.descriptor, pointee.opened.asyncDescriptor, pointee.opened.completionVectors)
    }
}

// MARK: - Opening and closing

/// A provider that talks to the kernel itself: which devices it serves, and what it is called.
public struct NativeProvider: Sendable {
    /// As in its driver file.
    public let name: StaticString
    /// The kernel's driver, whose devices it serves.
    public let driver: rdma_driver_id
    /// That driver's name, as in `modinfo`.
    public let module: StaticString
    /// Versions of the driver's ABI that are served.
    public let kernelVersions: ClosedRange<UInt32>

    /// A provider of these properties.
    public init(
        name: StaticString, driver: rdma_driver_id, module: StaticString, kernelVersions: ClosedRange<UInt32>
    ) {
        self.name = name
        self.driver = driver
        self.module = module
        self.kernelVersions = kernelVersions
    }

    /// `probe_device`: 0 for a device of the driver, as long as the kernel speaks an ABI that is known here.
    public func probe(_ device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
        guard let device, device.pointee.kind == RDMA_DEVICE_KERNEL.rawValue,
            device.pointee.driver_id == driver.rawValue || device.pointee.driver_id == UInt32.max
        else {
            var reason = Sentence(name)
            reason.append(" serves devices of the kernel's ")
            reason.append(module)
            reason.append(" only")
            reason.store(in: why)
            return ENODEV
        }
        return KernelABI.isServed(device, provider: name, supported: kernelVersions, why: why) ? 0 : ENODEV
    }

    /// The device's node, opened; nil, an errno value and a sentence when that cannot be, or the device is not served.
    public func openNode(
        of device: UnsafePointer<rdma_device>, why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> KernelDevice {
        let refusal = probe(device, why: why)
        if refusal != 0 { throw KernelError(rawValue: refusal) }
        return try KernelDevice(opening: device, driver: driver, why: why)
    }

    /// `open_device` of a provider whose context is a `NativeContext` and no more.
    /// - Parameters:
    ///   - table: the control table.
    ///   - fill: sets the functions of the data path.
    public func open(
        _ device: UnsafePointer<rdma_device>?, _ opened: UnsafeMutablePointer<rdma_context>?,
        why: UnsafeMutablePointer<rdma_reason>?, table: UnsafePointer<rdma_context_ops>,
        fill: (inout ibv_context_ops) -> Void
    ) -> Int32 {
        guard let device, let opened else { return EINVAL }
        do throws(KernelError) {
            let kernel = try openNode(of: device, why: why)
            let answer = try kernel.getContext(why: why)
            let context = NativeContextPointer.allocate(capacity: 1)
            context.initialize(to: NativeContext(kernel: kernel, opened: answer))
            let verbs = context.initialize(device.pointee.device)
            fill(&verbs.pointee.ops)
            opened.pointee.context = verbs
            opened.pointee.ops = table
            return 0
        } catch {
            return error.rawValue
        }
    }
}

/// `close_context` of a provider whose context is a `NativeContext` and no more.
public func closeNativeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let native = context.native
    rdma_fini_context(context)
    native.deinitialize(count: 1)
    native.deallocate()
    return 0
}

extension KernelDevice {
    /// Makes the context in the kernel; `why` gets a sentence when it does not.
    public func getContext(
        driver: DriverData = .none, why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> KernelContext {
        do throws(KernelError) {
            return try getContext(driver: driver)
        } catch {
            var reason = Sentence("the kernel opens no context on the device: errno ")
            reason.append(Int(error.rawValue))
            reason.append("; see `dmesg`, and `ulimit -n` for file descriptors")
            reason.store(in: why)
            throw error
        }
    }
}
