import CIBVerbs
import CKernelABI
import CProviderABI
import Glibc
import KernelVerbs
import TestSupport
import Testing

@testable import Cxgb4Provider

@Suite("cxgb4: objects, on a fake kernel")
struct ControlTests {
    @Test("Limits are those of the kernel's response and of the work requests")
    func limits() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        let pair = try FakePair(device, completions)
        #expect(completions.queue.pointee.cqe == 31 && pair.pair.pointee.qp_num == 0x410)
        #expect(pair.limits.max_send_wr == 15 && pair.limits.max_recv_wr == 15)
        #expect(pair.limits.max_send_sge == 17 && pair.limits.max_recv_sge == 4 && pair.limits.max_inline_data == 280)
        var attr = ibv_device_attr_ex()
        let table = controlTable.pointee
        #expect(table.query_device_ex(device.context, nil, &attr, MemoryLayout<ibv_device_attr_ex>.size) == 0)
        let version = withUnsafeBytes(of: attr.orig_attr.fw_ver) {
            String(cString: $0.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
        #expect(version == "1.27.2.3")
        pair.destroy()
        completions.destroy()
        #expect(Array(device.destroyed.prefix(3)) == [31, 0, 21])
        device.close()
    }

    @Test("What iWARP does not have is EOPNOTSUPP, what the device does not take EINVAL")
    func refusals() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        let table = controlTable.pointee
        let domain = try #require(table.alloc_pd(device.context))
        func create(_ change: (inout ibv_qp_init_attr_ex) -> Void) -> Int32 {
            var attr = ibv_qp_init_attr_ex()
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = domain
            attr.send_cq = completions.queue
            attr.recv_cq = completions.queue
            attr.qp_type = IBV_QPT_RC
            attr.cap = ibv_qp_cap(max_send_wr: 1, max_recv_wr: 1, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0)
            change(&attr)
            errno = 0
            return table.create_qp_ex(device.context, &attr) == nil ? errno : 0
        }
        #expect(create { $0.qp_type = IBV_QPT_UD } == EOPNOTSUPP && create { $0.qp_type = IBV_QPT_UC } == EOPNOTSUPP)
        for operations in [IBV_QP_EX_WITH_SEND_WITH_IMM, IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD] {
            #expect(
                create {
                    $0.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
                    $0.send_ops_flags = UInt64(operations.rawValue)
                } == EOPNOTSUPP)
        }
        device.queuePairFlags = 0
        #expect(
            create {
                $0.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
                $0.send_ops_flags = UInt64(IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM.rawValue)
            } == EOPNOTSUPP)
        // The queue pair that was made to find that out is destroyed.
        #expect(device.destroyed == [31])
        #expect(create { $0.cap.max_send_sge = 18 } == EINVAL && create { $0.cap.max_recv_sge = 5 } == EINVAL)
        #expect(create { $0.cap.max_inline_data = 281 } == EINVAL)
        var address = ibv_ah_attr()
        #expect(table.create_ah(domain, &address) == nil && errno == EOPNOTSUPP)
        #expect(table.resize_cq(completions.queue, 100) == EOPNOTSUPP)
        #expect(table.attach_mcast(nil, nil, 0) == EOPNOTSUPP && table.detach_mcast(nil, nil, 0) == EOPNOTSUPP)
        var srq = ibv_srq_init_attr_ex()
        srq.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        srq.pd = domain
        srq.attr.max_wr = 1
        // T5 has no shared receive queues.
        #expect(table.create_srq_ex(device.context, &srq) == nil && errno == EOPNOTSUPP)
        #expect(table.dealloc_pd(domain) == 0)
        completions.destroy()
        device.close()
    }

    @Test("A response of the kernel with impossible sizes, or without memory, is refused, and the object destroyed")
    func responses() throws {
        let device = try FakeDevice(chip: 6)
        let table = controlTable.pointee
        let completions = try FakeCompletions(device)
        let domain = try #require(table.alloc_pd(device.context))
        func createPair() -> Int32 {
            var attr = ibv_qp_init_attr_ex()
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = domain
            attr.send_cq = completions.queue
            attr.recv_cq = completions.queue
            attr.qp_type = IBV_QPT_RC
            return table.create_qp_ex(device.context, &attr) == nil ? errno : 0
        }
        device.nextQueuePair = 1 << 20
        #expect(createPair() == EPROTO)
        device.nextQueuePair = 0x410
        device.sendEntries = 1
        #expect(createPair() == EPROTO)
        device.sendEntries = 0
        // Offsets that are no multiple of a page cannot be mapped.
        device.memoryIsMissing = true
        #expect(createPair() == EINVAL)
        #expect(table.create_cq(device.context, 31, nil, nil, 0) == nil && errno == EINVAL)
        var srq = ibv_srq_init_attr_ex()
        srq.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
        srq.pd = domain
        srq.attr.max_wr = 1
        #expect(table.create_srq_ex(device.context, &srq) == nil && errno == EINVAL)
        device.memoryIsMissing = false
        device.completionEntries = 8
        #expect(table.create_cq(device.context, 31, nil, nil, 0) == nil && errno == EPROTO)
        #expect(device.destroyed == [31, 31, 31, 21, 41, 21])
        #expect(table.dealloc_pd(domain) == 0)
        completions.destroy()
        device.close()
    }

    @Test("Two queue pairs of one QPN cannot exist: the second is refused")
    func duplicates() throws {
        let device = try FakeDevice()
        let completions = try FakeCompletions(device)
        let pair = try FakePair(device, completions)
        var attr = ibv_qp_init_attr_ex()
        attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attr.pd = pair.pair.pointee.pd
        attr.send_cq = completions.queue
        attr.recv_cq = completions.queue
        attr.qp_type = IBV_QPT_RC
        #expect(controlTable.pointee.create_qp_ex(device.context, &attr) == nil && errno == EPROTO)
        #expect(device.destroyed == [31])
        pair.destroy()
        completions.destroy()
        device.close()
    }

    @Test(
        "A device of another generation, or without a status page, is refused with a reason",
        arguments: [3, 7, 5] as [UInt32])
    func generations(chip: UInt32) throws {
        #expect(throws: KernelError(rawValue: EPROTO)) {
            try FakeDevice(chip: chip, statusPageSize: chip == 5 ? 0 : 4096)
        }
    }
}
