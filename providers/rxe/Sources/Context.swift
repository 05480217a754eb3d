import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// An open device. Its first member is the public struct; the context that the core knows lies at the end of that.
struct RxeContext: ~Copyable {
    var verbs = verbs_context()
    let kernel: KernelDevice
    let opened: KernelContext

    init(kernel: consuming KernelDevice, opened: KernelContext) {
        self.kernel = kernel
        self.opened = opened
    }

    deinit { linux_close(opened.asyncDescriptor) }
}

typealias ContextPointer = UnsafeMutablePointer<RxeContext>

extension UnsafeMutablePointer<ibv_context> {
    /// The device behind a public context of ours.
    var rxe: ContextPointer {
        let offset = MemoryLayout<verbs_context>.size - MemoryLayout<ibv_context>.size
        return (UnsafeMutableRawPointer(self) - offset).assumingMemoryBound(to: RxeContext.self)
    }
}

/// rxe serves the devices of the kernel's rdma_rxe, as long as the kernel speaks the ABI that is known here.
func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    guard let device, device.pointee.kind == RDMA_DEVICE_KERNEL.rawValue,
        device.pointee.driver_id == RDMA_DRIVER_RXE.rawValue || device.pointee.driver_id == UInt32.max
    else {
        Sentence("rxe serves devices of the kernel's rdma_rxe only").store(in: why)
        return ENODEV
    }
    let isServed = KernelABI.isServed(device, provider: providerName, supported: kernelVersions, why: why)
    return isServed ? 0 : ENODEV
}

func openDevice(
    device: UnsafePointer<rdma_device>?, opened: UnsafeMutablePointer<rdma_context>?,
    why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    guard let device, let opened else { return EINVAL }
    let error = probeDevice(device: device, why: why)
    if error != 0 { return error }
    do {
        let kernel = try KernelDevice(opening: device, driver: RDMA_DRIVER_RXE, why: why)
        let answer = try makeContext(kernel, why)
        let context = ContextPointer.allocate(capacity: 1)
        context.initialize(to: RxeContext(kernel: kernel, opened: answer))
        let verbs = rdma_init_context(
            UnsafeMutableRawPointer(context).assumingMemoryBound(to: verbs_context.self), device.pointee.device,
            context.pointee.kernel.descriptor, answer.asyncDescriptor, answer.completionVectors)!
        fillDataPath(&verbs.pointee.ops)
        opened.pointee.context = verbs
        opened.pointee.ops = UnsafePointer(controlTable)
        return 0
    } catch {
        return error.rawValue
    }
}

private func makeContext(
    _ kernel: borrowing KernelDevice, _ why: UnsafeMutablePointer<rdma_reason>?
) throws(KernelError) -> KernelContext {
    do {
        return try kernel.getContext()
    } catch {
        var reason = Sentence("the kernel opens no context on the device: errno ")
        reason.append(Int(error.rawValue))
        reason.append("; see `dmesg`, and `ulimit -n` for file descriptors")
        reason.store(in: why)
        throw error
    }
}

func closeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let rxe = context.rxe
    rdma_fini_context(context)
    rxe.deinitialize(count: 1)
    rxe.deallocate()
    return 0
}
