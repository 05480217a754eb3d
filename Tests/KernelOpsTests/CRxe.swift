import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import CProviderCore
import Foundation
import Glibc
import KernelOps
import KernelTestSupport
import KernelVerbs
import TestSupport
import Testing

/// The node that the next open_device of crxe gets in place of one in /dev.
private nonisolated(unsafe) var nextNode: OpaquePointer?

/// The provider crxe over a fake kernel, with one open device: queues lie in a file in memory, and doorbells are written to
/// its beginning.
final class CRxe {
    /// One of the queues: where it lies in the file, and what an entry and the whole have in bytes.
    struct Place {
        let offset: UInt64
        let log2EntrySize: UInt32
        let mask: UInt32 = 15
        let size = 1 << 16
    }

    static let completions = Place(offset: 1 << 16, log2EntrySize: 6)
    static let sends = Place(offset: 2 << 16, log2EntrySize: 9)
    static let receives = Place(offset: 3 << 16, log2EntrySize: 7)
    static let limits = ibv_qp_cap(
        max_send_wr: 15, max_recv_wr: 15, max_send_sge: 4, max_recv_sge: 5, max_inline_data: 64)

    /// The core that crxe gets: its table opens nodes of fake kernels.
    private nonisolated(unsafe) static let core: UnsafeMutablePointer<rdma_core> = {
        let table = UnsafeMutablePointer<rdma_kernel_ops>.allocate(capacity: 1)
        table.initialize(to: KernelOps.table.pointee)
        table.pointee.open_node = { _, _, driver, opened, _ in
            opened!.pointee = nextNode
            return driver == RDMA_DRIVER_RXE.rawValue && nextNode != nil ? 0 : ENODEV
        }
        let core = UnsafeMutablePointer<rdma_core>.allocate(capacity: 1)
        core.initialize(to: OpenedContext.core.pointee)
        core.pointee.kernel = UnsafePointer(table)
        return core
    }()

    private static let entry = Result { try load(try CRxeProvider.library()) }

    private static func load(_ library: String) throws -> OpenedContext.EntryPoint {
        let handle = try #require(dlopen(library, RTLD_NOW | RTLD_LOCAL))
        return unsafeBitCast(try #require(dlsym(handle, RDMA_PROVIDER_ENTRY_SYMBOL)), to: OpenedContext.EntryPoint.self)
    }

    /// The entry point of a copy of the library, which no core has entered.
    static func freshEntry() throws -> OpenedContext.EntryPoint {
        let directory = try TemporaryDirectory()
        let copy = directory.path("copy.so")
        try FileManager.default.copyItem(atPath: try CRxeProvider.library(), toPath: copy)
        return try load(copy)
    }

    /// What an entry point says to a core that is changed by `change`: the provider, or the reason.
    static func enter(
        _ entry: OpenedContext.EntryPoint, _ change: (inout rdma_core) -> Void = { _ in }
    ) -> (provider: UnsafePointer<rdma_provider>?, reason: String) {
        // Never freed: a provider keeps the core that it accepts.
        let changed = zeroed(MemoryLayout<rdma_core>.size).assumingMemoryBound(to: rdma_core.self)
        changed.pointee = core.pointee
        change(&changed.pointee)
        var why = emptyReason()
        let provider = entry(changed, &why)
        return (provider, text(why))
    }

    let kernel = FakeKernel(mapping: 4 << 16)
    let device = TestDevice("rxe0")
    let context: UnsafeMutablePointer<ibv_context>
    let ops: rdma_context_ops
    /// The file of the queues.
    let memory: UnsafeMutableRawPointer

    init() throws {
        let provider = try #require(Self.enter(try Self.entry.get()).provider)
        let opened = kernel.open()
        memory = try #require(linux_map_file(kernel.descriptor, 0, 4 << 16))
        nextNode = OpenNode(kernel: opened, device: device.pointer.pointee.device).makeHandle()
        kernel.answerContext()
        var result = rdma_context()
        result.size = UInt32(MemoryLayout<rdma_context>.size)
        var why = emptyReason()
        var attr = rdma_open_attr()
        attr.size = UInt32(MemoryLayout<rdma_open_attr>.size)
        attr.cmd_fd = -1
        let error = provider.pointee.open_device(device.pointer, &attr, &result, &why)
        nextNode = nil
        try #require(error == 0, "\(text(why))")
        rdma_adopt_context(&result)
        context = result.context
        ops = result.ops.pointee
        kernel.calls = []
        kernel.answerCRxe()
        for place in [Self.completions, Self.sends, Self.receives] { prepare(place) }
    }

    deinit {
        _ = ops.close_context(context)
        linux_unmap(memory, 4 << 16)
    }

    /// Writes the head of a queue, as the kernel does.
    func prepare(_ place: Place, mask: UInt32? = nil) {
        let head = memory + Int(place.offset)
        head.storeBytes(of: place.log2EntrySize, toByteOffset: 0, as: UInt32.self)
        head.storeBytes(of: mask ?? place.mask, toByteOffset: 4, as: UInt32.self)
    }

    /// An index of a queue: the producer's, or the consumer's.
    func index(_ place: Place, producer: Bool) -> UInt32 {
        (memory + Int(place.offset)).load(fromByteOffset: producer ? 128 : 256, as: UInt32.self)
    }

    func setIndex(_ place: Place, producer: Bool, _ value: UInt32) {
        (memory + Int(place.offset)).storeBytes(of: value, toByteOffset: producer ? 128 : 256, as: UInt32.self)
    }

    /// An entry of a queue.
    func entry(_ place: Place, _ index: Int) -> UnsafeMutableRawPointer {
        memory + Int(place.offset) + 384 + index << place.log2EntrySize
    }

    /// The commands that ended objects, as object and method.
    var ended: [UInt32] {
        kernel.calls.filter { $0.command == nil && $0.attributes.count <= 2 }.map { $0.object }
    }
}

extension FakeKernel {
    /// Answers the creation of objects as rdma_rxe does: with the places of their queues.
    func answerCRxe() {
        func info(_ place: CRxe.Place) -> mminfo { mminfo(offset: place.offset, size: UInt32(place.size), pad: 0) }
        onCall = { call in
            switch (call.object, call.method) {
            case (UVERBS_OBJECT_CQ.rawValue, UVERBS_METHOD_CQ_CREATE.rawValue):
                call.attribute(UVERBS_ATTR_CREATE_CQ_HANDLE.rawValue)!.set(41)
                call.attribute(UVERBS_ATTR_CREATE_CQ_RESP_CQE.rawValue)!.respond(15 as UInt32)
                call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(info(CRxe.completions))
            case (UVERBS_OBJECT_QP.rawValue, UVERBS_METHOD_QP_CREATE.rawValue):
                call.attribute(UVERBS_ATTR_CREATE_QP_HANDLE.rawValue)!.set(43)
                call.attribute(UVERBS_ATTR_CREATE_QP_RESP_QP_NUM.rawValue)!.respond(17 as UInt32)
                call.attribute(UVERBS_ATTR_CREATE_QP_RESP_CAP.rawValue)!.respond(CRxe.limits)
                call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(
                    rxe_create_qp_resp(rq_mi: info(CRxe.receives), sq_mi: info(CRxe.sends)))
            default:
                if call.command == UInt64(IB_USER_VERBS_CMD_CREATE_AH.rawValue) {
                    FakeKernel.response(of: call)!.storeBytes(of: 9, as: UInt32.self)
                    call.attribute(UVERBS_ATTR_UHW_OUT)!.respond(0x77 as UInt64)
                }
            }
            return 0
        }
    }
}
