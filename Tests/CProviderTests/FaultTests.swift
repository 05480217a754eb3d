import CIBVerbs
import CProviderABI
import CProviderCore
import Foundation
import TestSupport
import Testing

@Suite("A provider in C: invalid requests and failures")
struct FaultTests {
    let opened: OpenedContext

    init() throws { opened = try openDevice() }

    @Test("Posting in the wrong state is EINVAL with bad_wr; in the error state the request is flushed")
    func states() throws {
        let endpoint = try Endpoint(opened)
        #expect(endpoint.post(IBV_WR_SEND) == EINVAL)
        #expect(endpoint.receive() == EINVAL)
        #expect(endpoint.initialize() == 0)
        #expect(endpoint.receive(id: 8) == 0)
        #expect(endpoint.post(IBV_WR_SEND) == EINVAL)
        #expect(endpoint.modify(IBV_QPS_ERR, 0) == 0)
        #expect(endpoint.post(IBV_WR_SEND, id: 9) == 0)
        let flushed = endpoint.poll()
        #expect(flushed.map(\.wr_id) == [8, 9])
        #expect(flushed.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR })
    }

    @Test("A wrong L_Key, a length beyond the region and a wrong R_Key each complete with their status")
    func keys() throws {
        for (fault, status) in [
            ({ a, _ in a.post(IBV_WR_SEND, key: 0x666) }, IBV_WC_LOC_PROT_ERR),
            ({ a, _ in a.post(IBV_WR_SEND, length: Endpoint.length + 1) }, IBV_WC_LOC_PROT_ERR),
            ({ a, b in a.post(IBV_WR_RDMA_WRITE) { $0.wr.rdma.remote_addr = b.address } }, IBV_WC_REM_ACCESS_ERR),
        ] as [((Endpoint, Endpoint) -> Int32, ibv_wc_status)] {
            let (a, b) = try Endpoint.connectedPair(opened)
            #expect(b.receive() == 0)
            #expect(fault(a, b) == 0)
            #expect(a.poll().map(\.status) == [status])
            #expect(a.qp.pointee.state == IBV_QPS_ERR)
        }
    }

    @Test("A message longer than the receive moves both queue pairs to the error state, each with its own status")
    func tooLong() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        #expect(b.receive(length: 63) == 0)
        #expect(a.post(IBV_WR_SEND) == 0)
        #expect(a.poll().map(\.status) == [IBV_WC_REM_INV_REQ_ERR])
        #expect(b.poll().map(\.status) == [IBV_WC_LOC_LEN_ERR])
        #expect(b.qp.pointee.state == IBV_QPS_ERR)
    }

    @Test("An opcode that the queue pair does not support, an unknown flag, too many SGEs and a full queue are refused")
    func refusals() throws {
        let (a, _b) = try Endpoint.connectedPair(opened)
        #expect(a.post(IBV_WR_LOCAL_INV) == EOPNOTSUPP)
        #expect(a.post(IBV_WR_SEND, flags: IBV_SEND_IP_CSUM) == EOPNOTSUPP)
        #expect(a.post(IBV_WR_SEND) { $0.num_sge = 3 } == EINVAL)
        #expect(a.post(IBV_WR_SEND, length: 65, flags: IBV_SEND_INLINE) == EINVAL)
        for id in 0..<16 as Range<UInt64> { #expect(a.post(IBV_WR_SEND, id: id) == 0) }
        #expect(a.post(IBV_WR_SEND, id: 16) == ENOMEM)
        withExtendedLifetime(_b) {}
    }

    @Test("An overrun completion queue keeps its completions, raises CQ_ERR once, and then returns EIO")
    func overrun() throws {
        let endpoint = try Endpoint(opened, cqe: 2)
        #expect(endpoint.initialize() == 0)
        for id in 0..<4 as Range<UInt64> { #expect(endpoint.receive(id: id) == 0) }
        #expect(endpoint.modify(IBV_QPS_ERR, 0) == 0)
        #expect(endpoint.poll().map(\.wr_id) == [0, 1])
        var wc = ibv_wc()
        #expect(opened.context.pointee.ops.poll_cq(endpoint.cq, 1, &wc) == -EIO)
        var event = ibv_async_event()
        #expect(endpoint.ops.get_async_event(opened.context, &event) == 0)
        #expect(event.event_type == IBV_EVENT_CQ_ERR && event.element.cq == endpoint.cq)
        rdma_ack_async_event(&event)
    }

    @Test("A test command sets any completion status, even one that verbs.h does not define")
    func commandedStatus() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        #expect(a.execute(.complete(status: 200)) == 0)
        #expect(a.post(IBV_WR_SEND) == 0)
        #expect(a.poll().map(\.status.rawValue) == [200])
        withExtendedLifetime(b) {}
    }

    @Test("When the device fails, posted requests are flushed, calls return EIO, and objects can be destroyed")
    func deviceFatal() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        #expect(a.post(IBV_WR_SEND, id: 1) == 0)
        #expect(a.execute(.raise(event: UInt8(IBV_EVENT_DEVICE_FATAL.rawValue))) == 0)
        var event = ibv_async_event()
        #expect(a.ops.get_async_event(opened.context, &event) == 0)
        #expect(event.event_type == IBV_EVENT_DEVICE_FATAL)
        #expect(a.ops.get_async_event(opened.context, &event) == EIO)
        #expect(a.poll().map(\.status) == [IBV_WC_WR_FLUSH_ERR])
        var wc = ibv_wc()
        #expect(opened.context.pointee.ops.poll_cq(a.cq, 1, &wc) == -EIO)
        #expect(opened.context.pointee.ops.req_notify_cq(a.cq, 0) == EIO)
        #expect(a.post(IBV_WR_SEND) == EIO)
        #expect(a.receive() == EIO)
        #expect(a.modify(IBV_QPS_RESET, 0) == EIO)
        errno = 0
        #expect(a.ops.alloc_pd(opened.context) == nil)
        #expect(errno == EIO)
        var cq: UnsafeMutablePointer<ibv_cq>?
        #expect(a.ops.get_cq_event(a.channel, &cq) == EIO)
        withExtendedLifetime(b) {}
    }
}
