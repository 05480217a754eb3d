import CIBVerbs
import CLinux
import CProviderABI
import Foundation
import Testing

@testable import LibibverbsProvider

@Suite("libibverbs: the control table")
struct ControlTableTests {
    @Test(
        "Every entry of the control table is set, except query_extension, the hooks cq_event and async_event, and verbs newer than rdma-core 44"
    )
    func complete() throws {
        let table = UnsafeRawPointer(controlTable)
        // The extensions of a C provider have libraries of their own, such as libmlx5.
        let absent = [
            try #require(MemoryLayout<rdma_context_ops>.offset(of: \.query_extension)),
            try #require(MemoryLayout<rdma_context_ops>.offset(of: \.cq_event)),
            try #require(MemoryLayout<rdma_context_ops>.offset(of: \.async_event)),
        ]
        let entries = stride(
            from: MemoryLayout<Int>.size, to: MemoryLayout<rdma_context_ops>.size, by: MemoryLayout<Int>.size)
        let newer = try #require(MemoryLayout<rdma_context_ops>.offset(of: \.reg_mr_ex))
        let missing = entries.prefix { $0 < newer }.filter { table.load(fromByteOffset: $0, as: UInt.self) == 0 }
        #expect(missing == absent)
        #expect(controlTable.pointee.size == MemoryLayout<rdma_context_ops>.size)
    }

    @Test(
        "Each form of error result of libibverbs becomes a positive errno value",
        arguments: [
            (result: 0, errno: EBADF, expected: 0),
            (result: EBUSY, errno: 0, expected: EBUSY),
            (result: -1, errno: EAGAIN, expected: EAGAIN),
            (result: -1, errno: 0, expected: EIO),
            (result: -EINVAL, errno: 0, expected: EINVAL),
            (result: ENOSYS, errno: 0, expected: EOPNOTSUPP),
            (result: -1, errno: ENOSYS, expected: EOPNOTSUPP),
        ] as [(result: Int32, errno: Int32, expected: Int32)])
    func results(result: Int32, errno: Int32, expected: Int32) {
        let converted = status {
            linux_set_errno(errno)
            return result
        }
        #expect(converted == expected)
    }

    @Test(
        "errno is set whenever an object is not created",
        arguments: [(ENOMEM, ENOMEM), (0, EINVAL), (ENOSYS, EOPNOTSUPP)] as [(Int32, Int32)])
    func refusals(left: Int32, expected: Int32) {
        linux_set_errno(EPERM)
        let created: UnsafeMutablePointer<Int>? = object {
            if left != 0 { linux_set_errno(left) }
            return nil
        }
        #expect(created == nil)
        #expect(linux_errno() == expected)
    }

    @Test("The error codes of ibv_rereg_mr map to the errno values of the provider ABI")
    func reregister() {
        func mapped(_ code: ibv_rereg_mr_err_code, _ error: Int32) -> Int32 {
            reregistration(code: code.rawValue, error: error)
        }
        #expect(reregistration(code: 0, error: 0) == 0)
        #expect(mapped(IBV_REREG_MR_ERR_INPUT, EINVAL) == EINVAL)
        #expect(mapped(IBV_REREG_MR_ERR_DONT_FORK_NEW, ENOMEM) == EINVAL)
        #expect(mapped(IBV_REREG_MR_ERR_DO_FORK_OLD, ENOMEM) == 0)
        #expect(mapped(IBV_REREG_MR_ERR_CMD, EOPNOTSUPP) == EOPNOTSUPP)
        #expect(mapped(IBV_REREG_MR_ERR_CMD, EINVAL) == EIO)
        #expect(mapped(IBV_REREG_MR_ERR_CMD, 0) == EIO)
        #expect(mapped(IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW, ENOMEM) == ENOMEM)
    }

    @Test("copyOut truncates a struct to the caller's size, or zeroes the remaining bytes")
    func sizes() {
        let port = ibv_ece(vendor_id: 1, options: 2, comp_mask: 3)
        var buffer = [UInt8](repeating: 0xff, count: 32)
        buffer.withUnsafeMutableBytes { copyOut(port, to: $0.baseAddress, size: 6) }
        #expect(buffer[0..<8].elementsEqual([1, 0, 0, 0, 2, 0, 0xff, 0xff]))
        buffer.withUnsafeMutableBytes { copyOut(port, to: $0.baseAddress, size: 20) }
        #expect(buffer[8..<24].elementsEqual([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]))
    }

    @Test("An unknown bit is EOPNOTSUPP, without a call of libibverbs")
    func unknownBits() throws {
        var input = ibv_query_device_ex_input(comp_mask: 1)
        var attr = ibv_device_attr_ex()
        let size = MemoryLayout<ibv_device_attr_ex>.size
        #expect(controlTable.pointee.query_device_ex(nil, &input, &attr, size) == EOPNOTSUPP)
        #expect(controlTable.pointee.rereg_mr(nil, 1 << 3, nil, nil, 0, 0) == EOPNOTSUPP)
    }
}
