import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// An open uverbs node of a provider in another language: what an opaque `struct rdma_kernel` is.
package struct OpenNode: ~Copyable {
    /// Executes the commands.
    var kernel: KernelDevice
    /// The device; the core keeps it as long as the process.
    let device: UnsafeMutablePointer<ibv_device>
    /// Whether the provider was given the descriptor (`rdma_open_attr.cmd_fd`), which has a context already.
    let isImported: Bool
    /// The kernel's response to creating the context; nil before that.
    var context: KernelContext?

    /// A node without a context.
    package init(kernel: consuming KernelDevice, device: UnsafeMutablePointer<ibv_device>, isImported: Bool = false) {
        self.kernel = kernel
        self.device = device
        self.isImported = isImported
        // Until the context is open, an imported descriptor belongs to the caller.
        self.kernel.closesDescriptor = !isImported
    }

    deinit { if let context { linux_close(context.asyncDescriptor) } }

    /// Moves the node to memory, where close_node frees it.
    package consuming func makeHandle() -> OpaquePointer {
        let pointer = UnsafeMutablePointer<OpenNode>.allocate(capacity: 1)
        pointer.initialize(to: self)
        return OpaquePointer(pointer)
    }
}

/// The node of a `struct rdma_kernel *`.
typealias OpenNodePointer = UnsafeMutablePointer<OpenNode>

extension OpenNodePointer {
    /// The descriptor of the asynchronous events.
    /// - Throws: EINVAL before get_context has succeeded.
    func asyncDescriptor() throws(KernelError) -> Int32 {
        guard let context = pointee.context else { throw .invalidArgument }
        return context.asyncDescriptor
    }

    /// The access flags that the kernel gets: without IBV_ACCESS_OPTIONAL_RANGE where it does not know them.
    func access(_ flags: UInt32) -> UInt32 {
        pointee.context?.takesOptionalAccess == true ? flags : flags & ~IB_UVERBS_ACCESS_OPTIONAL_RANGE.rawValue
    }
}

// MARK: - Opening and closing

/// `open_node`.
func openNode(
    device: UnsafePointer<rdma_device>?, attr: UnsafePointer<rdma_open_attr>?, driver: UInt32,
    opened: UnsafeMutablePointer<OpaquePointer?>?, why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    guard let device, let opened else { return EINVAL }
    guard device.pointee.kind == RDMA_DEVICE_KERNEL.rawValue else {
        let reason = MessageText("a software device has no uverbs node")
        reason.store(in: why)
        return ENODEV
    }
    guard KernelABI.uverbs.contains(device.pointee.uverbs_abi) else {
        var reason = MessageText("the kernel's uverbs has ABI version ")
        reason.append(Int(device.pointee.uverbs_abi))
        reason.append("; this core serves version ")
        reason.append(Int(KernelABI.uverbs.upperBound))
        reason.append(": update it, or use the distribution's library with RDMA_PROVIDER=libibverbs")
        reason.store(in: why)
        return ENODEV
    }
    let imported = attr.map { $0.pointee.cmd_fd } ?? -1
    do throws(KernelError) {
        let driver = rdma_driver_id(rawValue: driver)
        let kernel =
            imported < 0
            ? try KernelDevice(opening: device, driver: driver, why: why)
            : try importNode(imported, of: device, driver: driver, why: why)
        opened.pointee = OpenNode(kernel: kernel, device: device.pointee.device, isImported: imported >= 0).makeHandle()
        return 0
    } catch {
        return error.rawValue
    }
}

/// The device of a descriptor that has a context already.
/// - Throws: ENXIO if it is not the device's node.
private func importNode(
    _ descriptor: Int32, of device: UnsafePointer<rdma_device>, driver: rdma_driver_id,
    why: UnsafeMutablePointer<rdma_reason>?
) throws(KernelError) -> KernelDevice {
    let error = linux_check_node(descriptor, UInt64(device.pointee.uverbs_dev))
    guard error == 0 else {
        var reason = MessageText("the descriptor ")
        reason.append(Int(descriptor))
        reason.append(" cannot be imported: ")
        if error == ENXIO {
            reason.append("it is not the uverbs node of this device")
        } else {
            reason.append(error: error)
        }
        reason.store(in: why)
        throw KernelError(rawValue: error)
    }
    return KernelDevice(descriptor: descriptor, driver: driver, calls: .kernel)
}

/// `get_context`.
func getContext(
    kernel: OpaquePointer?, udata: UnsafePointer<rdma_udata>?, context: UnsafeMutablePointer<rdma_kernel_context>?,
    why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    // The fields of the first version, which every provider has: a later one may have more.
    let first = MemoryLayout<rdma_kernel_context>.offset(of: \.core_support)! + MemoryLayout<UInt64>.size
    guard let node = node(kernel), let context, context.pointee.size >= first, node.pointee.context == nil
    else { return EINVAL }
    return errno { () throws(KernelError) in
        let driver = try driverData(udata)
        let opened: KernelContext
        if node.pointee.isImported {
            guard driver.input.count == 0 else { throw .invalidArgument }
            opened = try node.pointee.kernel.queryContext(driver: driver, why: why)
            node.pointee.kernel.closesDescriptor = true
        } else {
            opened = try node.pointee.kernel.getContext(driver: driver, why: why)
        }
        node.pointee.context = opened
        context.pointee.cmd_fd = node.pointee.kernel.descriptor
        context.pointee.async_fd = opened.asyncDescriptor
        context.pointee.num_comp_vectors = opened.completionVectors
        context.pointee.core_support =
            opened.takesOptionalAccess ? UInt64(IB_UVERBS_CORE_SUPPORT_OPTIONAL_MR_ACCESS.rawValue) : 0
    }
}

extension KernelDevice {
    /// Queries the context of an imported descriptor. Stores the reason in `why` on failure.
    fileprivate func queryContext(
        driver: DriverData, why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> KernelContext {
        do throws(KernelError) {
            return try queryContext(driver: driver)
        } catch {
            var reason = MessageText("the kernel does not describe the context of the imported descriptor: ")
            reason.append(error: error.rawValue)
            if error == .notSupported { reason.append("; the kernel's driver has no QUERY_CONTEXT") }
            reason.store(in: why)
            throw error
        }
    }
}

/// `close_node`.
func closeNode(kernel: OpaquePointer?) {
    guard let node = node(kernel) else { return }
    node.deinitialize(count: 1)
    node.deallocate()
}

// MARK: - Mapping

/// `map`.
func mapNode(kernel: OpaquePointer?, offset: UInt64, length: Int, protection: Int32) -> UnsafeMutableRawPointer? {
    guard let node = node(kernel) else {
        linux_set_errno(EINVAL)
        return nil
    }
    return linux_map_node(node.pointee.kernel.descriptor, offset, length, protection)
}

/// `unmap`.
func unmapNode(address: UnsafeMutableRawPointer?, length: Int) {
    if let address { linux_unmap(address, length) }
}
