import CIBVerbs
import CProviderABI
import CProviderCore
import Foundation
import TestSupport
import Testing

private func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) == 1
}

private func makeNonblocking(_ descriptor: Int32) {
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
}

/// Passes an endpoint to another thread.
private struct Carried: @unchecked Sendable {
    // Unchecked: the provider ABI allows calls from any thread, and no other part of the endpoint is accessed.
    let endpoint: Endpoint
}

@Suite("A provider in C: events")
struct EventTests {
    let opened: OpenedContext

    init() throws { opened = try openDevice() }

    @Test("An armed completion queue raises one event with its pointer; a queue that is not armed raises none")
    func completionEvent() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        makeNonblocking(b.channel.pointee.fd)
        var cq: UnsafeMutablePointer<ibv_cq>?
        for id in 0..<4 as Range<UInt64> { #expect(b.receive(id: id) == 0) }
        #expect(a.post(IBV_WR_SEND) == 0)
        #expect(b.ops.get_cq_event(b.channel, &cq) == EAGAIN)
        #expect(ibv_req_notify_cq(b.cq, 0) == 0)
        #expect(!isReadable(b.channel.pointee.fd))
        #expect(a.post(IBV_WR_SEND) == 0)
        #expect(a.post(IBV_WR_SEND) == 0)
        #expect(isReadable(b.channel.pointee.fd))
        #expect(b.ops.get_cq_event(b.channel, &cq) == 0)
        #expect(cq == b.cq)
        #expect(b.ops.get_cq_event(b.channel, &cq) == EAGAIN)
        rdma_ack_cq_events(b.cq, 1)
    }

    @Test("A completion queue armed for solicited completions raises an event for those and for errors only")
    func solicited() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        for id in 0..<2 as Range<UInt64> { #expect(b.receive(id: id) == 0) }
        #expect(ibv_req_notify_cq(b.cq, 1) == 0)
        #expect(a.post(IBV_WR_SEND) == 0)
        #expect(!isReadable(b.channel.pointee.fd))
        let flags = ibv_send_flags(IBV_SEND_SIGNALED.rawValue | IBV_SEND_SOLICITED.rawValue)
        #expect(a.post(IBV_WR_SEND, flags: flags) == 0)
        #expect(isReadable(b.channel.pointee.fd))
    }

    @Test("destroy_cq drops unread events and waits for events that are not acknowledged")
    func destroyWaits() async throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        #expect(b.receive() == 0)
        #expect(ibv_req_notify_cq(b.cq, 0) == 0)
        #expect(a.post(IBV_WR_SEND) == 0)
        var cq: UnsafeMutablePointer<ibv_cq>?
        #expect(b.ops.get_cq_event(b.channel, &cq) == 0)
        #expect(b.receive() == 0)
        #expect(ibv_req_notify_cq(b.cq, 0) == 0)
        #expect(a.post(IBV_WR_SEND) == 0)  // a second event, which stays unread
        let carried = Carried(endpoint: b)
        let acknowledging = Task.detached { rdma_ack_cq_events(carried.endpoint.cq, 1) }
        await acknowledging.value
        // Destroying the endpoints would hang if the unread event had been counted.
    }

    @Test("get_cq_event of a waiting thread returns EIO when the device fails")
    func woken() async throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        let carried = Carried(endpoint: b)
        let waiting = Task.detached {
            var cq: UnsafeMutablePointer<ibv_cq>?
            return carried.endpoint.ops.get_cq_event(carried.endpoint.channel, &cq)
        }
        #expect(a.execute(.raise(event: UInt8(IBV_EVENT_DEVICE_FATAL.rawValue))) == 0)
        #expect(await waiting.value == EIO)
    }

    @Test(
        "An asynchronous event has its object as element",
        arguments: [
            IBV_EVENT_QP_FATAL, IBV_EVENT_CQ_ERR, IBV_EVENT_SRQ_LIMIT_REACHED, IBV_EVENT_PORT_ACTIVE,
            IBV_EVENT_COMM_EST,
        ] as [ibv_event_type])
    func asynchronous(type: ibv_event_type) throws {
        let endpoint = try Endpoint(opened, sharedReceives: true)
        #expect(endpoint.execute(.raise(event: UInt8(type.rawValue))) == 0)
        #expect(isReadable(opened.context.pointee.async_fd))
        var event = ibv_async_event()
        #expect(rdma_get_async_event(opened.ops, opened.context, &event) == 0)
        #expect(event.event_type == type)
        switch type {
        case IBV_EVENT_CQ_ERR: #expect(event.element.cq == endpoint.cq)
        case IBV_EVENT_SRQ_LIMIT_REACHED: #expect(event.element.srq == endpoint.srq)
        case IBV_EVENT_PORT_ACTIVE: #expect(event.element.port_num == 1)
        default: #expect(event.element.qp == endpoint.qp)
        }
        rdma_ack_async_event(&event)
        #expect(!isReadable(opened.context.pointee.async_fd))
    }

    @Test("A wrong R_Key raises QP_ACCESS_ERR at the peer; unread events are dropped with their object")
    func accessError() throws {
        let (a, b) = try Endpoint.connectedPair(opened)
        #expect(a.post(IBV_WR_RDMA_READ) { $0.wr.rdma.remote_addr = b.address } == 0)
        var event = ibv_async_event()
        #expect(b.ops.get_async_event(opened.context, &event) == 0)
        #expect(event.event_type == IBV_EVENT_QP_ACCESS_ERR && event.element.qp == b.qp)
        rdma_ack_async_event(&event)
        do {
            let other = try Endpoint(opened)
            #expect(other.execute(.raise(event: UInt8(IBV_EVENT_QP_FATAL.rawValue))) == 0)
            #expect(isReadable(opened.context.pointee.async_fd))
        }
        #expect(!isReadable(opened.context.pointee.async_fd))
    }

    @Test("A shared receive queue raises SRQ_LIMIT_REACHED once")
    func limit() throws {
        let (a, b) = try Endpoint.connectedPair(opened, sharedReceives: true)
        for id in 0..<3 as Range<UInt64> { #expect(b.receive(id: id) == 0) }
        var attr = ibv_srq_attr(max_wr: 0, max_sge: 0, srq_limit: 2)
        #expect(b.ops.modify_srq(b.srq, &attr, Int32(IBV_SRQ_LIMIT.rawValue)) == 0)
        for _ in 0..<3 { #expect(a.post(IBV_WR_SEND) == 0) }
        makeNonblocking(opened.context.pointee.async_fd)
        var event = ibv_async_event()
        #expect(b.ops.get_async_event(opened.context, &event) == 0)
        #expect(event.event_type == IBV_EVENT_SRQ_LIMIT_REACHED)
        rdma_ack_async_event(&event)
        #expect(b.ops.get_async_event(opened.context, &event) == EAGAIN)
        #expect(b.ops.query_srq(b.srq, &attr) == 0)
        #expect(attr.srq_limit == 0 && attr.max_wr == 16)
    }
}

@Suite("A provider in C: threads")
struct ThreadTests {
    @Test("Several threads post to one queue pair and poll one queue; every work request completes once")
    func posting() async throws {
        let opened = try openDevice()
        let (a, b) = try Endpoint.connectedPair(opened)
        let sender = Carried(endpoint: a)
        let receiver = Carried(endpoint: b)
        let each: UInt64 = 500
        let completed = await withTaskGroup(of: [UInt64].self) { group in
            for lane in 0..<4 as Range<UInt64> {
                group.addTask {
                    var seen: [UInt64] = []
                    for index in 0..<each {
                        let key = receiver.endpoint.mr.pointee.rkey
                        let address = receiver.endpoint.address + lane * 64
                        let error = sender.endpoint.post(IBV_WR_RDMA_WRITE, id: lane * each + index) {
                            $0.wr.rdma.remote_addr = address
                            $0.wr.rdma.rkey = key
                        }
                        if error == 0 { seen += sender.endpoint.poll().map(\.wr_id) }
                    }
                    return seen
                }
            }
            return await group.reduce(into: []) { $0 += $1 }
        }
        #expect((completed + a.poll().map(\.wr_id)).sorted() == Array(0..<4 * each))
    }
}
