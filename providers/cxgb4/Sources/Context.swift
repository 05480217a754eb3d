import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// The supported driver and its ABI versions (C4IW_UVERBS_ABI_VERSION; the window in cxgb4.driver).
let cxgb4 = NativeProvider(name: "cxgb4", driver: RDMA_DRIVER_CXGB4, module: "iw_cxgb4", kernelVersions: 3...3)

/// An open device.
struct Cxgb4Context: ~Copyable {
    var native: NativeContext
    /// The generation of the adapter: 4, 5 or 6.
    let chip: UInt32
    /// The device's status page (`DeviceStatusPage`).
    let statusPage: Mapping
    let hasSharedReceiveQueues: Bool
    /// Whether single slots may be written to the doorbell of a T5 or T6 (T5_ENABLE_WC).
    let combinesWrites: Bool
    /// Whether the doorbell of an on-chip queue is preceded by 16 writes instead of one (CXGB4_MA_WR).
    let flushesByMany: Bool
    /// The queue pairs, by QPN. The table belongs to the context and not to the device: the CQEs of a completion queue
    /// are those of queue pairs of the same context.
    let queuePairs = IndexTable()

    var isT4: Bool { chip == 4 }
}

typealias Cxgb4ContextPointer = UnsafeMutablePointer<Cxgb4Context>

extension UnsafeMutablePointer<ibv_context> {
    @inline(__always)
    var cxgb4: Cxgb4ContextPointer { UnsafeMutableRawPointer(native).assumingMemoryBound(to: Cxgb4Context.self) }
}

func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    cxgb4.probe(device, why: why)
}

func openDevice(
    device: UnsafePointer<rdma_device>?, attr: UnsafePointer<rdma_open_attr>?,
    opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    cxgb4.open(
        device, attr, opened, why: why, table: UnsafePointer(controlTable), fill: { fillDataPath(&$0) }
    ) { kernel throws(KernelError) in
        let context = try Cxgb4ContextPointer.make(kernel, why: why)
        return UnsafeMutableRawPointer(context).assumingMemoryBound(to: NativeContext.self)
    }
}

extension Cxgb4ContextPointer {
    /// Creates the context in the kernel, and maps the device's status page.
    static func make(
        _ kernel: consuming KernelDevice, why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> Cxgb4ContextPointer {
        var response = c4iw_alloc_ucontext_resp()
        let opened = try DriverData.response(&response) { driver throws(KernelError) in
            try kernel.getContext(driver: driver, why: why)
        }
        do throws(KernelError) {
            var attributes = ibv_device_attr_ex()
            _ = try kernel.queryDevice(&attributes)
            // Chelsio numbers its devices by generation: 0x4…, 0x5…, 0x6….
            let chip = attributes.orig_attr.vendor_part_id >> 12 & 0xF
            try check(chip, statusPageSize: response.status_page_size, why)
            let statusPage = try Mapping(
                statusPageAt: response.status_page_key, byteCount: Int(response.status_page_size), kernel)
            let context = Cxgb4ContextPointer.allocate(capacity: 1)
            context.initialize(
                to: Cxgb4Context(
                    native: NativeContext(kernel: kernel, opened: opened), chip: chip, statusPage: statusPage,
                    hasSharedReceiveQueues: attributes.orig_attr.max_srq > 0,
                    combinesWrites: isUnsetOrOne(linux_getenv("T5_ENABLE_WC")),
                    flushesByMany: isOne(linux_getenv("CXGB4_MA_WR"))))
            return context
        } catch {
            linux_close(opened.asyncDescriptor)
            throw error
        }
    }

    /// Whether the firmware has `WriteSendRequest`.
    var pairsWriteAndSend: Bool {
        pointee.chip >= 5 && DeviceStatusPage.pairsWriteAndSend.get(pointee.statusPage.start) != 0
    }
}

private func isOne(_ text: UnsafePointer<CChar>?) -> Bool {
    guard let text else { return false }
    return text[0] == 49 && text[1] == 0
}

private func isUnsetOrOne(_ text: UnsafePointer<CChar>?) -> Bool { text == nil || isOne(text) }

/// Refuses a device of another generation, or without a status page (EPROTO).
private func check(
    _ chip: UInt32, statusPageSize: UInt32, _ why: UnsafeMutablePointer<rdma_reason>?
) throws(KernelError) {
    if chip >= 4, chip <= 6, Int(statusPageSize) >= Int(linux_page_size()) { return }
    var reason = MessageText("cxgb4 supports the generations T4, T5 and T6; the kernel reports generation ")
    reason.append(Int(chip))
    reason.append(" with a status page of ")
    reason.append(Int(statusPageSize))
    reason.append(" bytes; update the provider, or use the distribution's library with RDMA_PROVIDER=libibverbs")
    reason.store(in: why)
    throw KernelError(rawValue: EPROTO)
}

func closeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let cxgb4 = context.cxgb4
    cxgb4.pointee.statusPage.unmap()
    rdma_fini_context(context)
    cxgb4.deinitialize(count: 1)
    cxgb4.deallocate()
    return 0
}

/// `query_device_ex`. The firmware version has four numbers of 8 bits.
func queryDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int
) -> Int32 {
    guard let context, let attr, size >= MemoryLayout<ibv_device_attr>.size else { return EINVAL }
    if let input, input.pointee.comp_mask != 0 { return EOPNOTSUPP }
    return errno { () throws(KernelError) in
        var response = ibv_device_attr_ex()
        let version = try context.native.pointee.kernel.queryDevice(&response)
        var text = MessageText()
        for place in 0..<4 {
            if place != 0 { text.append(".") }
            text.append(Int(version >> UInt64(24 - 8 * place) & 0xFF))
        }
        text.withCString { text in
            withUnsafeMutableBytes(of: &response.orig_attr.fw_ver) { bytes in
                var index = 0
                while text[index] != 0 {
                    bytes[index] = UInt8(bitPattern: text[index])
                    index += 1
                }
            }
        }
        store(response, to: attr, size: size)
    }
}
