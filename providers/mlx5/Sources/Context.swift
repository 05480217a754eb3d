import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// Which devices this provider serves, and on which kernels (MLX5_IB_UVERBS_ABI_VERSION; the window in mlx5.driver).
let mlx5 = NativeProvider(name: "mlx5", driver: RDMA_DRIVER_MLX5, module: "mlx5_ib", kernelVersions: 1...1)

/// An open device.
struct Mlx5Context: ~Copyable {
    var native: NativeContext
    let limits: DeviceLimits
    /// How completions name their queue pair: by a number that we have given it, or by its own.
    let hasUserIndex: Bool
    /// Whether the kernel finds MAC addresses for address handles.
    let findsAddresses: Bool
    let hasAtomics: Bool
    let hasTimestamps: Bool
    /// Whether the device may write data into completions.
    let scattersToCompletions: Bool
    let registers: Registers
    let records = DoorbellRecords()
    /// Queue pairs by the number that completions have.
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
    device: UnsafePointer<rdma_device>?, opened: UnsafeMutablePointer<rdma_context>?,
    why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    guard let device, let opened else { return EINVAL }
    return errno { () throws(KernelError) in
        let kernel = try mlx5.openNode(of: device, why: why)
        let context = try Mlx5ContextPointer.make(kernel, why: why)
        let native = UnsafeMutableRawPointer(context).assumingMemoryBound(to: NativeContext.self)
        let verbs = native.initialize(device.pointee.device)
        fillDataPath(&verbs.pointee.ops)
        opened.pointee.context = verbs
        opened.pointee.ops = UnsafePointer(controlTable)
    }
}

extension Mlx5ContextPointer {
    /// Makes the context in the kernel, and maps the registers.
    static func make(
        _ kernel: consuming KernelDevice, why: UnsafeMutablePointer<rdma_reason>?
    ) throws(KernelError) -> Mlx5ContextPointer {
        var answer = mlx5_ib_alloc_ucontext_resp()
        let opened = try getContext(kernel, &answer, why)
        do throws(KernelError) {
            try check(answer, why)
            var attributes = ibv_device_attr_ex()
            _ = try kernel.queryDevice(&attributes)
            let registers = try Registers(of: kernel, answer)
            let context = Mlx5ContextPointer.allocate(capacity: 1)
            context.initialize(
                to: Mlx5Context(
                    native: NativeContext(kernel: kernel, opened: opened), limits: DeviceLimits(answer),
                    hasUserIndex: answer.cqe_version == 1,
                    findsAddresses: UInt32(answer.cmds_supp_uhw) & MLX5_USER_CMDS_SUPP_UHW_CREATE_AH.rawValue != 0,
                    hasAtomics: attributes.orig_attr.atomic_cap != IBV_ATOMIC_NONE,
                    hasTimestamps: attributes.completion_timestamp_mask != 0,
                    scattersToCompletions: !isZero(linux_getenv("MLX5_SCATTER_TO_CQE")), registers: registers))
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
    _ kernel: borrowing KernelDevice, _ answer: inout mlx5_ib_alloc_ucontext_resp,
    _ why: UnsafeMutablePointer<rdma_reason>?
) throws(KernelError) -> KernelContext {
    var request = mlx5_ib_alloc_ucontext_req_v2()
    request.total_num_bfregs = 16
    request.num_low_latency_bfregs = 4
    request.max_cqe_version = 1
    request.lib_caps = UInt64(MLX5_LIB_CAP_4K_UAR.rawValue | MLX5_LIB_CAP_DYN_UAR.rawValue)
    let inputCount = MemoryLayout<mlx5_ib_alloc_ucontext_req_v2>.size
    return try withUnsafePointer(to: &request) { request throws(KernelError) in
        try DriverData.answer(&answer) { driver throws(KernelError) in
            var both = driver
            both.input = UnsafeRawBufferPointer(start: request, count: inputCount)
            return try kernel.getContext(driver: both, why: why)
        }
    }
}

/// A kernel that answers what cannot be is refused.
private func check(
    _ answer: mlx5_ib_alloc_ucontext_resp, _ why: UnsafeMutablePointer<rdma_reason>?
) throws(KernelError) {
    let register = answer.bf_reg_size
    if answer.cqe_version <= 1, register >= 128, register <= 2048, register & (register - 1) == 0,
        answer.max_sq_desc_sz >= 64, answer.max_send_wqebb > 0
    {
        return
    }
    var reason = Sentence(
        "the kernel describes an mlx5 device that this provider does not know: completions of version ")
    reason.append(Int(answer.cqe_version))
    reason.append(", registers of ")
    reason.append(Int(register))
    reason.append(" bytes; update the provider, or use the distribution's library with RDMA_PROVIDER=libibverbs")
    reason.store(in: why)
    throw KernelError(rawValue: EPROTO)
}

extension DeviceLimits {
    init(_ answer: mlx5_ib_alloc_ucontext_resp) {
        self.init(
            sendDescriptor: UInt32(answer.max_sq_desc_sz), receiveDescriptor: UInt32(answer.max_rq_desc_sz),
            sendBlocks: answer.max_send_wqebb, receives: answer.max_recv_wr, sharedReceives: answer.max_srq_recv_wr)
    }
}

func closeContext(context: UnsafeMutablePointer<ibv_context>?) -> Int32 {
    guard let context else { return EINVAL }
    let mlx5 = context.mlx5
    mlx5.pointee.registers.release(mlx5.pointee.native.kernel)
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
