import CIBVerbs
import Foundation
import TestSupport
import Testing

@Suite("A provider in C, written from the header alone: data transfer")
struct LoopbackTests {
    let opened: OpenedContext

    init() throws { opened = try openDevice() }

    @Test("SEND and SEND with immediate arrive, with all fields of the completion")
    func send() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        memset(a.bytes, 0x5a, 64)
        #expect(b.receive(id: 20) == 0)
        #expect(b.receive(id: 21) == 0)
        #expect(a.post(IBV_WR_SEND, id: 10) == 0)
        #expect(a.post(IBV_WR_SEND_WITH_IMM, id: 11, length: 32) { $0.imm_data = UInt32(77).bigEndian } == 0)
        let sent = a.poll()
        let received = b.poll()
        #expect(sent.map(\.wr_id) == [10, 11])
        #expect(sent.allSatisfy { $0.status == IBV_WC_SUCCESS && $0.opcode == IBV_WC_SEND })
        #expect(received.map(\.wr_id) == [20, 21])
        #expect(received.map(\.byte_len) == [64, 32])
        #expect(received.allSatisfy { $0.status == IBV_WC_SUCCESS && $0.opcode == IBV_WC_RECV })
        #expect(received.allSatisfy { $0.qp_num == b.qp.pointee.qp_num })
        #expect(received[0].wc_flags == 0)
        #expect(received[1].wc_flags == IBV_WC_WITH_IMM.rawValue)
        #expect(received[1].imm_data == UInt32(77).bigEndian)
        #expect(memcmp(a.bytes, b.bytes, 64) == 0)
    }

    @Test("WRITE, WRITE with immediate, READ and both atomics access the peer's memory")
    func remote() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        func aim(_ wr: inout ibv_send_wr) {
            wr.wr.rdma.remote_addr = b.address + 128
            wr.wr.rdma.rkey = b.mr.pointee.rkey
        }
        memset(a.bytes, 1, 64)
        #expect(a.post(IBV_WR_RDMA_WRITE) { aim(&$0) } == 0)
        #expect(memcmp(a.bytes, b.bytes + 128, 64) == 0)
        #expect(b.poll().isEmpty)

        #expect(b.receive(id: 5) == 0)
        #expect(a.post(IBV_WR_RDMA_WRITE_WITH_IMM) { aim(&$0) } == 0)
        #expect(b.poll().map(\.opcode) == [IBV_WC_RECV_RDMA_WITH_IMM])

        memset(b.bytes + 128, 9, 64)
        #expect(a.post(IBV_WR_RDMA_READ) { aim(&$0) } == 0)
        #expect(memcmp(a.bytes, b.bytes + 128, 64) == 0)

        (b.bytes + 128).storeBytes(of: 40, as: UInt64.self)
        func aimAtomic(_ wr: inout ibv_send_wr, _ compareAdd: UInt64, _ swap: UInt64) {
            wr.wr.atomic.remote_addr = b.address + 128
            wr.wr.atomic.rkey = b.mr.pointee.rkey
            wr.wr.atomic.compare_add = compareAdd
            wr.wr.atomic.swap = swap
        }
        #expect(a.post(IBV_WR_ATOMIC_FETCH_AND_ADD, length: 8) { aimAtomic(&$0, 2, 0) } == 0)
        #expect(a.bytes.load(as: UInt64.self) == 40)
        #expect(a.post(IBV_WR_ATOMIC_CMP_AND_SWP, length: 8) { aimAtomic(&$0, 42, 7) } == 0)
        #expect(a.bytes.load(as: UInt64.self) == 42)
        #expect((b.bytes + 128).load(as: UInt64.self) == 7)
        #expect(
            a.poll().map(\.opcode) == [
                IBV_WC_RDMA_WRITE, IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ, IBV_WC_FETCH_ADD, IBV_WC_COMP_SWAP,
            ])
    }

    @Test("A UD datagram arrives after the 40 bytes of the GRH area; one with a wrong Q_Key is dropped silently")
    func datagram() throws {
        let a = try Endpoint(opened, type: IBV_QPT_UD)
        let b = try Endpoint(opened, type: IBV_QPT_UD)
        for side in [a, b] {
            #expect(side.initialize() == 0)
            #expect(side.modify(IBV_QPS_RTR, 0) == 0)
            #expect(side.modify(IBV_QPS_RTS, mask(IBV_QP_SQ_PSN)) == 0)
        }
        var attr = Endpoint.address(try b.gid())
        let handle = try #require(a.ops.create_ah(a.pd, &attr))
        memset(a.bytes, 0x33, 64)
        for key: UInt32 in [0x12, 0x11] {
            #expect(b.receive() == 0)
            let error = a.post(IBV_WR_SEND) {
                $0.wr.ud.ah = handle
                $0.wr.ud.remote_qpn = b.qp.pointee.qp_num
                $0.wr.ud.remote_qkey = key
            }
            #expect(error == 0)
        }
        #expect(a.ops.destroy_ah(handle) == 0)
        #expect(a.poll().map(\.status) == [IBV_WC_SUCCESS, IBV_WC_SUCCESS])
        let received = b.poll()
        #expect(received.map(\.byte_len) == [104])
        #expect(received.map(\.wc_flags) == [IBV_WC_GRH.rawValue])
        #expect(received.map(\.src_qp) == [a.qp.pointee.qp_num])
        #expect(memcmp(b.bytes + 40, a.bytes, 64) == 0)
        #expect((b.bytes + 20).load(as: UInt8.self) == 0x45)
    }

    @Test("A send waits for a receive, and continues when one is posted, also to a shared receive queue")
    func receiverNotReady() throws {
        for shared in [false, true] {
            let (a, b) = try Endpoint.connectedPair(opened, sharedReceives: shared)
            #expect(a.post(IBV_WR_SEND) == 0)
            #expect(a.poll().isEmpty)
            #expect(b.receive() == 0)
            #expect(a.poll().map(\.status) == [IBV_WC_SUCCESS])
            #expect(b.poll().map(\.status) == [IBV_WC_SUCCESS])
        }
        let (a, _b) = try Endpoint.connectedPair(opened, rnrRetry: 3)
        #expect(a.post(IBV_WR_SEND) == 0)
        #expect(a.poll().map(\.status) == [IBV_WC_RNR_RETRY_EXC_ERR])
        withExtendedLifetime(_b) {}
    }

    @Test("Work requests built with ibv_qp_ex are posted together, with inline data, or aborted")
    func builders() throws {
        let sendOps = UInt64(IBV_QP_EX_WITH_SEND.rawValue | IBV_QP_EX_WITH_RDMA_WRITE.rawValue)
        let (a, b) = try Endpoint.connectedPair(opened, sendOps: sendOps)
        let qp = try #require(a.ops.qp_to_qp_ex(a.qp))
        #expect(b.ops.qp_to_qp_ex(b.qp) == nil)
        #expect(qp.pointee.wr_rdma_read == nil)
        qp.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue

        ibv_wr_start(qp)
        qp.pointee.wr_id = 1
        ibv_wr_rdma_write(qp, b.mr.pointee.rkey, b.address)
        memset(a.bytes, 4, 16)
        ibv_wr_set_inline_data(qp, a.bytes, 16)
        memset(a.bytes, 5, 16)
        qp.pointee.wr_id = 2
        ibv_wr_rdma_write(qp, b.mr.pointee.rkey, b.address + 16)
        ibv_wr_set_sge(qp, a.mr.pointee.lkey, a.address, 16)
        #expect(ibv_wr_complete(qp) == 0)
        #expect(a.poll().map(\.wr_id) == [1, 2])
        #expect(b.bytes.load(as: UInt8.self) == 4)
        #expect((b.bytes + 16).load(as: UInt8.self) == 5)

        ibv_wr_start(qp)
        ibv_wr_send(qp)
        ibv_wr_abort(qp)
        ibv_wr_start(qp)
        ibv_wr_send(qp)
        ibv_wr_set_inline_data(qp, a.bytes, 65)
        #expect(ibv_wr_complete(qp) == EINVAL)
        #expect(a.poll().isEmpty)
    }

    @Test("Extended polling reads the fields of wc_flags, and an unknown flag is refused")
    func extendedPolling() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = 4
        attr.wc_flags = UInt64(IBV_WC_EX_WITH_BYTE_LEN.rawValue)
        let extended = try #require(a.ops.create_cq_ex(opened.context, &attr))
        #expect(extended.pointee.read_imm_data == nil)
        var poll = ibv_poll_cq_attr()
        #expect(ibv_start_poll(extended, &poll) == ENOENT)
        #expect(a.ops.destroy_cq(ibv_cq_ex_to_cq(extended)) == 0)
        attr.wc_flags = UInt64(IBV_WC_EX_WITH_CVLAN.rawValue)
        #expect(a.ops.create_cq_ex(opened.context, &attr) == nil)
        #expect(errno == EOPNOTSUPP)
        withExtendedLifetime(b) {}
    }
}
