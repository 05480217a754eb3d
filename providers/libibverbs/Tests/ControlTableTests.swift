import CIBVerbs
import CLinux
import CProviderABI
import Foundation
import Testing

@testable import LibibverbsProvider

@Suite("libibverbs: the control table")
struct ControlTableTests {
    @Test("No entry of the table is missing but the two hooks, which libibverbs calls itself")
    func complete() throws {
        let table = UnsafeRawPointer(controlTable)
        let hooks = [
            try #require(MemoryLayout<rdma_context_ops>.offset(of: \.cq_event)),
            try #require(MemoryLayout<rdma_context_ops>.offset(of: \.async_event)),
        ]
        let entries = stride(
            from: MemoryLayout<Int>.size, to: MemoryLayout<rdma_context_ops>.size, by: MemoryLayout<Int>.size)
        let missing = entries.filter { table.load(fromByteOffset: $0, as: UInt.self) == 0 }
        #expect(missing == hooks)
        #expect(controlTable.pointee.size == MemoryLayout<rdma_context_ops>.size)
    }

    @Test(
        "Every way in which libibverbs reports an error becomes a positive errno value",
        arguments: [
            (answer: 0, errno: EBADF, expected: 0),
            (answer: EBUSY, errno: 0, expected: EBUSY),
            (answer: -1, errno: EAGAIN, expected: EAGAIN),
            (answer: -1, errno: 0, expected: EIO),
            (answer: -EINVAL, errno: 0, expected: EINVAL),
            (answer: ENOSYS, errno: 0, expected: EOPNOTSUPP),
            (answer: -1, errno: ENOSYS, expected: EOPNOTSUPP),
        ] as [(answer: Int32, errno: Int32, expected: Int32)])
    func results(answer: Int32, errno: Int32, expected: Int32) {
        let result = status {
            linux_set_errno(errno)
            return answer
        }
        #expect(result == expected)
    }

    @Test(
        "A refused object always comes with an errno value",
        arguments: [(ENOMEM, ENOMEM), (0, EINVAL), (ENOSYS, EOPNOTSUPP)] as [(Int32, Int32)])
    func refusals(left: Int32, expected: Int32) {
        linux_set_errno(EPERM)
        let made: UnsafeMutablePointer<Int>? = object {
            if left != 0 { linux_set_errno(left) }
            return nil
        }
        #expect(made == nil)
        #expect(linux_errno() == expected)
    }

    @Test("The codes of ibv_rereg_mr say which registration is left")
    func reregister() {
        func answer(_ code: ibv_rereg_mr_err_code, _ error: Int32) -> Int32 {
            reregistration(code: code.rawValue, error: error)
        }
        #expect(reregistration(code: 0, error: 0) == 0)
        #expect(answer(IBV_REREG_MR_ERR_INPUT, EINVAL) == EINVAL)
        #expect(answer(IBV_REREG_MR_ERR_DONT_FORK_NEW, ENOMEM) == EINVAL)
        #expect(answer(IBV_REREG_MR_ERR_DO_FORK_OLD, ENOMEM) == 0)
        #expect(answer(IBV_REREG_MR_ERR_CMD, EOPNOTSUPP) == EOPNOTSUPP)
        #expect(answer(IBV_REREG_MR_ERR_CMD, EINVAL) == EIO)
        #expect(answer(IBV_REREG_MR_ERR_CMD, 0) == EIO)
        #expect(answer(IBV_REREG_MR_ERR_CMD_AND_DO_FORK_NEW, ENOMEM) == ENOMEM)
    }

    @Test("Structs cross by their size: what fits is copied, what the caller knows beyond it is zeroed")
    func sizes() {
        let port = ibv_ece(vendor_id: 1, options: 2, comp_mask: 3)
        var room = [UInt8](repeating: 0xff, count: 32)
        room.withUnsafeMutableBytes { copyOut(port, to: $0.baseAddress, size: 6) }
        #expect(room[0..<8].elementsEqual([1, 0, 0, 0, 2, 0, 0xff, 0xff]))
        room.withUnsafeMutableBytes { copyOut(port, to: $0.baseAddress, size: 20) }
        #expect(room[8..<24].elementsEqual([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]))
    }

    @Test("An unknown bit is refused before libibverbs sees it")
    func unknownBits() throws {
        var input = ibv_query_device_ex_input(comp_mask: 1)
        var attr = ibv_device_attr_ex()
        let size = MemoryLayout<ibv_device_attr_ex>.size
        #expect(controlTable.pointee.query_device_ex(nil, &input, &attr, size) == EOPNOTSUPP)
        #expect(controlTable.pointee.rereg_mr(nil, 1 << 3, nil, nil, 0, 0) == EOPNOTSUPP)
    }
}
