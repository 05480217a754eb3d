import CIBVerbs
import CProviderABI
import CProviderCore
import Foundation
import SoftTestSupport
import Synchronization
import Testing

@testable import SoftProvider

private func isReadable(_ descriptor: Int32, within milliseconds: Int32 = 0) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, milliseconds) == 1
}

/// A time limit in milliseconds, which only a failing test reaches.
private let limit: Int32 = 300_000

extension Soft {
    @Suite("Events, shared receive queues")
    struct EventTests {
        @Test("A completion in an armed queue raises one completion event, although no thread polls")
        func completionEvents() throws {
            let (first, second) = try Ends.twoDevices.open()
            let channel = try created(second.table.create_comp_channel(second.context))
            var options = Endpoint.Options()
            let a = try Endpoint(first, options)
            options.channel = channel
            do {
                let b = try Endpoint(second, options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                #expect(second.table.destroy_comp_channel(channel) == EBUSY)
                for round in 0..<20 {
                    #expect(second.context.pointee.ops.req_notify_cq(b.queue, 0) == 0)
                    try b.postReceive(id: UInt64(round), [b.sge(0, 64)])
                    try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                    // No thread polls b's queue: the progress thread of the device receives the packet.
                    #expect(isReadable(channel.pointee.fd, within: limit))
                    var queue: UnsafeMutablePointer<ibv_cq>?
                    try check(second.table.get_cq_event(channel, &queue))
                    #expect(queue == b.queue)
                    rdma_ack_cq_events(b.queue, 1)
                    #expect(!isReadable(channel.pointee.fd))
                    #expect(try b.success().wr_id == round)
                    try a.success()
                }
            }
            try check(second.table.destroy_comp_channel(channel))
        }

        @Test("Arming a queue without a channel has no effect; with one, the device leaves the foreground")
        func armingWithoutChannel() throws {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            let a = try Endpoint(first, options)
            let channel = try created(second.table.create_comp_channel(second.context))
            defer { _ = second.table.destroy_comp_channel(channel) }
            options.channel = channel
            let b = try Endpoint(second, options)
            try a.connect(to: b.address)
            try b.connect(to: a.address)
            let armed: (OpenDevice) -> UInt64 = {
                $0.context.soft.pointee.progressThread.lastArm.load(ordering: .relaxed)
            }
            #expect(first.context.pointee.ops.req_notify_cq(a.queue, 0) == 0)
            #expect(second.context.pointee.ops.req_notify_cq(b.queue, 0) == 0)
            #expect(armed(first) == 0 && armed(second) != 0)
            try b.postReceive([b.sge(0, 64)])
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            try a.success()
            #expect(isReadable(channel.pointee.fd, within: limit))
            try b.success()
        }

        @Test("A queue that is armed with solicited_only raises no event for an unsolicited completion")
        func solicitedEvents() throws {
            let (first, second) = try Ends.twoDevices.open()
            let channel = try created(second.table.create_comp_channel(second.context))
            defer { _ = second.table.destroy_comp_channel(channel) }
            var options = Endpoint.Options()
            let a = try Endpoint(first, options)
            options.channel = channel
            let b = try Endpoint(second, options)
            try a.connect(to: b.address)
            try b.connect(to: a.address)
            for _ in 0..<2 { try b.postReceive([b.sge(0, 64)]) }
            _ = second.context.pointee.ops.req_notify_cq(b.queue, 1)
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            try a.success()
            #expect(!isReadable(channel.pointee.fd))
            try a.post(IBV_WR_SEND, [a.sge(0, 8)], flags: IBV_SEND_SOLICITED.rawValue | IBV_SEND_SIGNALED.rawValue)
            try a.success()
            #expect(isReadable(channel.pointee.fd, within: limit))
            // The event is not read; destroying the queue drops it.
        }

        @Test("With O_NONBLOCK and no event, get_cq_event and get_async_event return EAGAIN")
        func nonblocking() throws {
            let device = try OpenDevice()
            let channel = try created(device.table.create_comp_channel(device.context))
            for descriptor in [channel.pointee.fd, device.context.pointee.async_fd] {
                _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
            }
            var queue: UnsafeMutablePointer<ibv_cq>?
            #expect(device.table.get_cq_event(channel, &queue) == EAGAIN)
            var event = ibv_async_event()
            #expect(device.table.get_async_event(device.context, &event) == EAGAIN)
            try check(device.table.destroy_comp_channel(channel))
        }

        @Test("A shared receive queue serves several queue pairs, and raises SRQ_LIMIT_REACHED below its limit")
        func sharedReceives() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            defer { _ = device.table.dealloc_pd(domain) }
            var attr = ibv_srq_init_attr_ex()
            attr.attr.max_wr = 8
            attr.attr.max_sge = 2
            attr.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
            attr.pd = domain
            let shared = try created(device.table.create_srq_ex(device.context, &attr))
            do {
                var options = Endpoint.Options()
                options.domain = domain
                let senders = [try Endpoint(device, options), try Endpoint(device, options)]
                options.shared = shared
                // With a shared receive queue, max_recv_wr is ignored and returned as 0.
                options.receives = .max
                let receivers = [try Endpoint(device, options), try Endpoint(device, options)]
                for (a, b) in zip(senders, receivers) {
                    try a.connect(to: b.address)
                    try b.connect(to: a.address)
                }
                var found = (ibv_qp_attr(), ibv_qp_init_attr())
                try check(
                    device.table.query_qp(receivers[0].pair, &found.0, Int32(IBV_QP_CAP.rawValue), &found.1))
                for cap in [found.0.cap, found.1.cap] { #expect(cap.max_recv_wr == 0 && cap.max_recv_sge == 0) }
                #expect(device.table.destroy_srq(shared) == EBUSY)
                #expect(throws: Refusal(EINVAL)) { try receivers[0].postReceive([receivers[0].sge(0, 8)]) }

                for index in 0..<8 { try post(shared, receivers[0].sge(index * 64, 64), id: UInt64(index)) }
                #expect(throws: Refusal(ENOMEM)) { try post(shared, receivers[0].sge(0, 64), id: 9) }
                var limit = ibv_srq_attr()
                limit.srq_limit = 6
                try check(device.table.modify_srq(shared, &limit, Int32(IBV_SRQ_LIMIT.rawValue)))
                for index in 0..<4 {
                    try senders[index % 2].post(IBV_WR_SEND, [senders[0].sge(0, 8)])
                    try senders[index % 2].success()
                    #expect(try receivers[index % 2].success().wr_id == index)
                }
                #expect(isReadable(device.context.pointee.async_fd))
                var event = ibv_async_event()
                try check(device.table.get_async_event(device.context, &event))
                #expect(event.event_type == IBV_EVENT_SRQ_LIMIT_REACHED)
                #expect(event.element.srq == shared)
                rdma_ack_async_event(&event)
                try check(device.table.query_srq(shared, &limit))
                #expect(limit.srq_limit == 0)
                #expect(limit.max_wr == 8)
            }
            try check(device.table.destroy_srq(shared))
        }

        private func post(_ queue: UnsafeMutablePointer<ibv_srq>, _ sge: ibv_sge, id: UInt64) throws {
            var sge = sge
            try withUnsafeMutablePointer(to: &sge) { list in
                var request = ibv_recv_wr(wr_id: id, next: nil, sg_list: list, num_sge: 1)
                var bad: UnsafeMutablePointer<ibv_recv_wr>?
                try check(queue.pointee.context.pointee.ops.post_srq_recv(queue, &request, &bad))
            }
        }

        @Test("An overrun completion queue raises CQ_ERR and QP_FATAL, and its completions can be polled")
        func overrun() throws {
            let device = try OpenDevice()
            var options = Endpoint.Options()
            let a = try Endpoint(device, options)
            options.completions = 2
            let b = try Endpoint(device, options)
            try a.connect(to: b.address)
            try b.connect(to: a.address)
            for index in 0..<4 { try b.postReceive(id: UInt64(index), [b.sge(0, 64)]) }
            for _ in 0..<4 { try a.post(IBV_WR_SEND, [a.sge(0, 8)]) }
            var seen: Set<UInt32> = []
            while seen.count < 2 {
                #expect(isReadable(device.context.pointee.async_fd, within: limit))
                var event = ibv_async_event()
                try check(device.table.get_async_event(device.context, &event))
                rdma_ack_async_event(&event)
                seen.insert(event.event_type.rawValue)
            }
            #expect(seen == [IBV_EVENT_CQ_ERR.rawValue, IBV_EVENT_QP_FATAL.rawValue])
            #expect(try b.completions(2).map(\.wr_id) == [0, 1])
        }

        @Test("destroy_qp and destroy_cq wait until the events that were read are acknowledged")
        func destroyWaits() throws {
            let device = try OpenDevice()
            var options = Endpoint.Options()
            let a = try Endpoint(device, options)
            options.completions = 1
            var event = ibv_async_event()
            do {
                let b = try Endpoint(device, options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                for _ in 0..<2 { try b.postReceive([b.sge(0, 64)]) }
                for _ in 0..<2 { try a.post(IBV_WR_SEND, [a.sge(0, 8)]) }
                #expect(isReadable(device.context.pointee.async_fd, within: limit))
                try check(device.table.get_async_event(device.context, &event))
                let held = event
                // Acknowledged by another thread, before or after destroy has begun: destroy returns in both cases.
                // A thread of its own: tests that block hold the threads of tasks.
                Thread.detachNewThread { withUnsafePointer(to: held) { rdma_ack_async_event($0) } }
            }
            #expect(event.event_type == IBV_EVENT_CQ_ERR || event.event_type == IBV_EVENT_QP_FATAL)
        }
    }
}
