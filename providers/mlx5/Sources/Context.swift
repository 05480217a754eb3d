import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// The supported driver and its ABI versions (MLX5_IB_UVERBS_ABI_VERSION; the window in mlx5.driver).
let mlx5 = NativeProvider(name: "mlx5", driver: RDMA_DRIVER_MLX5, module: "mlx5_ib", kernelVersions: 1...1)

/// An open device.
struct Mlx5Context: ~Copyable {
    var native: NativeContext
    let limits: DeviceLimits
    /// Whether a CQE has the user index of its queue pair (`cqe_version` 1) or its QPN (0).
    let hasUserIndex: Bool
    /// Whether the kernel resolves the MAC addresses of address handles (MLX5_USER_CMDS_SUPP_UHW_CREATE_AH).
    let resolvesMACAddresses: Bool
    let hasAtomics: Bool
    let hasTimestamps: Bool
    /// Whether the device may scatter data to CQEs (MLX5_QP_FLAG_SCATTER_CQE).
    let scattersToCompletions: Bool
    let uarPages: UARPages
    let doorbellRecords = DoorbellRecords()
    /// The queue pairs, by user index or QPN.
    let queuePairs = IndexTable()
}

typealias Mlx5ContextPointer = UnsafeMutablePointer<Mlx5Context>

extension UnsafeMutablePointer<ibv_context> {
    @inline(__always)
    var mlx5: Mlx5ContextPointer { UnsafeMutableRawPointer(native).assumingMemoryBound(to: Mlx5Context.self) }
}

func probeDevice(device: UnsafePointer<rdma_device>?, why: UnsafeMutablePointer<rdma_reason>?) -> Int32 {
    mlx5.probe(device, why: why)
}

func openDevice(
    device: UnsafePointer<rdma_device>?, attr: UnsafePointer<rdma_open_attr>?,
    opened: UnsafeMutablePointer<rdma_context>?, why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    mlx5.open(
        device, attr, opened, why: why, table: UnsafePointer(controlTable), fill: { fillDataPath(&$0) }
    ) { kernel throws(KernelError) in
        let context = try Mlx5ContextPointer.make(kernel, why: why)
        return UnsafeMutableRawPointer(context).assumingMemoryBound(to: NativeContext.self)
    }
}

extension Mlx5ContextPointer {
    /// Creates the context in the kernel, and maps the UAR pages.
    static func make(
        _ kernel: consuming KernelDevice, why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> Mlx5ContextPointer {
        var response = mlx5_ib_alloc_ucontext_resp()
        let opened = try getContext(kernel, &response, why)
        do throws(KernelError) {
            try check(response, why)
            var attributes = ibv_device_attr_ex()
            _ = try kernel.queryDevice(&attributes)
            let uarPages = try UARPages(of: kernel, response)
            let context = Mlx5ContextPointer.allocate(capacity: 1)
            context.initialize(
                to: Mlx5Context(
                    native: NativeContext(kernel: kernel, opened: opened), limits: DeviceLimits(response),
                    hasUserIndex: response.cqe_version == 1,
                    resolvesMACAddresses:
                        UInt32(response.cmds_supp_uhw) & MLX5_USER_CMDS_SUPP_UHW_CREATE_AH.rawValue != 0,
                    hasAtomics: attributes.orig_attr.atomic_cap != IBV_ATOMIC_NONE,
                    hasTimestamps: attributes.completion_timestamp_mask != 0,
                    scattersToCompletions: !isZero(linux_getenv("MLX5_SCATTER_TO_CQE")), uarPages: uarPages))
            return context
        } catch {
            linux_close(opened.asyncDescriptor)
            throw error
        }
    }
}

private func isZero(_ text: UnsafePointer<CChar>?) -> Bool {
    guard let text else { return false }
    return text[0] == 48 && text[1] == 0
}

private func getContext(
    _ kernel: borrowing KernelDevice, _ response: inout mlx5_ib_alloc_ucontext_resp,
    _ why: UnsafeMutablePointer<rdma_reason>?
) throws(KernelError) -> KernelContext {
    var request = mlx5_ib_alloc_ucontext_req_v2()
    request.total_num_bfregs = 16
    request.num_low_latency_bfregs = 4
    request.max_cqe_version = 1
    request.lib_caps = UInt64(MLX5_LIB_CAP_4K_UAR.rawValue | MLX5_LIB_CAP_DYN_UAR.rawValue)
    let inputCount = MemoryLayout<mlx5_ib_alloc_ucontext_req_v2>.size
    return try withUnsafePointer(to: &request) { request throws(KernelError) in
        try DriverData.response(&response) { driver throws(KernelError) in
            var both = driver
            both.input = UnsafeRawBufferPointer(start: request, count: inputCount)
            return try kernel.getContext(driver: both, why: why)
        }
    }
}

/// Refuses a response of the kernel with unsupported values (EPROTO).
private func check(
    _ response: mlx5_ib_alloc_ucontext_resp, _ why: UnsafeMutablePointer<rdma_reason>?
) throws(KernelError) {
    let bfRegSize = response.bf_reg_size
    if response.cqe_version <= 1, bfRegSize >= 128, bfRegSize <= 2048, bfRegSize & (bfRegSize - 1) == 0,
        response.max_sq_desc_sz >= 64, response.max_send_wqebb > 0
    {
        return
    }
    var reason = MessageText(
        "the kernel reports an mlx5 device that this provider does not support: cqe_version ")
    reason.append(Int(response.cqe_version))
    reason.append(", bf_reg_size ")
    reason.append(Int(bfRegSize))
    reason.append("; update the provider, or use the distribution's library with RDMA_PROVIDER=libibverbs")
    reason.store(in: why)
    throw KernelError(rawValue: EPROTO)
}

extension DeviceLimits {
    init(_ response: mlx5_ib_alloc_ucontext_resp) {
        self.init(
            sendDescriptor: UInt32(response.max_sq_desc_sz), receiveDescriptor: UInt32(response.max_rq_desc_sz),
            sendWQEBBs: response.max_send_wqebb, receives: response.max_recv_wr,
            sharedReceives: response.max_srq_recv_wr)
    }
}

func closeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let mlx5 = context.mlx5
    mlx5.pointee.uarPages.release(mlx5.pointee.native.kernel)
    rdma_fini_context(context)
    mlx5.deinitialize(count: 1)
    mlx5.deallocate()
    return 0
}

func queryDevice(
    context: UnsafeMutablePointer<ibv_context>?, input: UnsafePointer<ibv_query_device_ex_input>?,
    attr: UnsafeMutablePointer<ibv_device_attr_ex>?, size: Int
) -> Int32 {
    queryNativeDevice(context: context, input: input, attr: attr, size: size, versionDigits: 4)
}
