import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import Glibc
import KernelOps
import KernelTestSupport
import KernelVerbs
import Synchronization
import TestSupport
import Testing

/// A node of a fake kernel, opened as a provider in C opens one, and the functions of the table.
final class Node {
    let kernel: FakeKernel
    let device = TestDevice("rxe0")
    let handle: OpaquePointer
    let ops = KernelOps.table.pointee
    let verbs = UnsafeMutablePointer<verbs_context>.allocate(capacity: 1)
    /// What get_context has returned.
    private(set) var response = rdma_kernel_context()
    private(set) var context: UnsafeMutablePointer<ibv_context>!

    static let asyncDescriptor: Int32 = 0x5000_0001
    static let vectors: UInt32 = 3

    /// - Parameters:
    ///   - probe: The result of the first command: ENOTTY for a kernel without the ioctl.
    ///   - isOpen: Whether a context is made.
    init(probe: Int32 = ENOSPC, isOpen: Bool = true, mapping: Int = 0) throws {
        kernel = FakeKernel(mapping: mapping)
        let opened = kernel.open(returning: probe)
        handle = OpenNode(kernel: opened, device: device.pointer.pointee.device).makeHandle()
        verbs.initialize(to: verbs_context())
        guard isOpen else { return }
        kernel.answerContext()
        response.size = UInt32(MemoryLayout<rdma_kernel_context>.size)
        var why = emptyReason()
        try #require(ops.get_context(handle, nil, &response, &why) == 0)
        context = rdma_init_context(
            verbs, device.pointer.pointee.device, response.cmd_fd, response.async_fd, response.num_comp_vectors)
        kernel.calls = []
        kernel.writes = []
        kernel.onCall = { _ in 0 }
        kernel.onWrite = { _, _ in 0 }
    }

    deinit {
        ops.close_node(handle)
        verbs.deallocate()
    }

    /// Zeroed memory of a provider for an object: the public struct and the room behind it.
    func object<Object>(_ type: Object.Type) -> UnsafeMutablePointer<Object> {
        zeroed(MemoryLayout<Object>.size + Int(RDMA_OBJECT_ROOM)).assumingMemoryBound(to: Object.self)
    }

    /// A protection domain with a handle.
    func domain(_ handle: UInt32 = 5) -> UnsafeMutablePointer<ibv_pd> {
        let pd = object(ibv_pd.self)
        rdma_init_pd(pd, context, handle)
        return pd
    }
}

/// Zeroed memory that lives as long as the process: the tests are short. It stays reachable, so that it is no leak.
func zeroed(_ count: Int) -> UnsafeMutableRawPointer {
    let memory = calloc(1, count)!
    kept.withLock { $0.append(UInt(bitPattern: memory)) }
    return memory
}

private let kept = Mutex<[UInt]>([])

func emptyReason() -> rdma_reason {
    var why = rdma_reason()
    why.size = UInt32(MemoryLayout<rdma_reason>.size)
    return why
}

func text(_ why: rdma_reason) -> String {
    withUnsafeBytes(of: why.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

/// Runs `body` with the private data of a driver: a request of 8 bytes and room for a response of 8.
func withUdata(_ input: UInt64, _ body: (UnsafePointer<rdma_udata>) -> Int32) -> (error: Int32, output: UInt64) {
    var input = input
    var output: UInt64 = 0
    let error = withUnsafeMutablePointer(to: &output) { output in
        withUnsafePointer(to: &input) { input in
            var udata = rdma_udata_of(input, 8, output, 8)
            return body(&udata)
        }
    }
    return (error, output)
}

extension FakeKernel {
    /// Answers GET_CONTEXT, by ioctl and by write(2), and the allocation of a descriptor for asynchronous events.
    func answerContext() {
        onCall = { call in
            if call.object == UVERBS_OBJECT_ASYNC_EVENT.rawValue {
                call.attributes[0].set(UInt64(Node.asyncDescriptor))
                return 0
            }
            call.attribute(UVERBS_ATTR_GET_CONTEXT_NUM_COMP_VECTORS.rawValue)?.respond(Node.vectors)
            call.attribute(UVERBS_ATTR_GET_CONTEXT_CORE_SUPPORT.rawValue)?.respond(1 as UInt64)
            return 0
        }
        onWrite = { _, response in
            response!.storeBytes(of: Node.asyncDescriptor, as: Int32.self)
            response!.storeBytes(of: Node.vectors, toByteOffset: 4, as: UInt32.self)
            return 0
        }
    }

    /// The address of a response of INVOKE_WRITE.
    static func response(of call: Call) -> UnsafeMutableRawPointer? {
        call.attribute(UVERBS_ATTR_CORE_OUT.rawValue).flatMap { UnsafeMutableRawPointer(bitPattern: UInt($0.data)) }
    }

    /// Answers every write command with these words of the common response, and the driver's response after them.
    func answer(_ words: [UInt32], driver: UInt64? = nil) {
        onCall = { call in
            guard let response = FakeKernel.response(of: call) else { return 0 }
            let room = Int(call.attribute(UVERBS_ATTR_CORE_OUT.rawValue)!.length)
            for (index, word) in words.enumerated() where 4 * index < room {
                response.storeBytes(of: word, toByteOffset: 4 * index, as: UInt32.self)
            }
            if let driver { call.attribute(UVERBS_ATTR_UHW_OUT)?.respond(driver) }
            return 0
        }
        onWrite = { command, response in
            guard let response else { return 0 }
            let room = Int(command.load(6, as: UInt16.self)) * 4
            for (index, word) in words.enumerated() where 4 * index < room {
                response.storeBytes(of: word, toByteOffset: 4 * index, as: UInt32.self)
            }
            if let driver { response.storeBytes(of: driver, toByteOffset: room - 8, as: UInt64.self) }
            return 0
        }
    }
}
