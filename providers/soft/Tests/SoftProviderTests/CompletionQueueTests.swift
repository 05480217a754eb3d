import CIBVerbs
import CLinux
import CProviderABI
import Glibc
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Attributes of completion queues")
    struct CompletionQueueTests {
        private func queue(
            _ device: OpenDevice, fields: UInt64 = UInt64(IBV_WC_STANDARD_FLAGS), flags: UInt32 = 0,
            entries: UInt32 = 16
        ) throws -> UnsafeMutablePointer<ibv_cq_ex> {
            var attr = ibv_cq_init_attr_ex()
            attr.cqe = entries
            attr.wc_flags = fields
            attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue
            attr.flags = flags
            return try created(device.table.create_cq_ex(device.context, &attr))
        }

        /// The queue as `ibv_cq`.
        private func plain(_ queue: UnsafeMutablePointer<ibv_cq_ex>) -> UnsafeMutablePointer<ibv_cq> {
            UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq.self)
        }

        private func rawClock(_ device: OpenDevice) throws -> UInt64 {
            var values = ibv_values_ex()
            values.comp_mask = IBV_VALUES_MASK_RAW_CLOCK.rawValue
            try check(device.table.query_rt_values(device.context, &values))
            #expect(values.comp_mask == IBV_VALUES_MASK_RAW_CLOCK.rawValue)
            return UInt64(values.raw_clock.tv_sec) * 1_000_000_000 + UInt64(values.raw_clock.tv_nsec)
        }

        @Test("A timestamp lies between two readings of the raw clock around its completion, also after a resize")
        func timestamps() throws {
            let device = try OpenDevice()
            let both =
                IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK.rawValue
            let queue = try queue(device, fields: UInt64(IBV_WC_STANDARD_FLAGS) | UInt64(both))
            do {
                var options = Endpoint.Options()
                let a = try Endpoint(device, options)
                options.queue = plain(queue)
                let b = try Endpoint(device, options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                var bounds = [try rawClock(device)]
                let wall = linux_realtime_ns()
                for index in 0..<3 {
                    try b.postReceive(id: UInt64(index), [b.sge(0, 64)])
                    try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                    try a.success()
                    bounds.append(try rawClock(device))
                }
                let end = linux_realtime_ns()
                try check(device.table.resize_cq(plain(queue), 100))
                var poll = ibv_poll_cq_attr()
                #expect(ibv_start_poll(queue, &poll) == 0)
                for index in 0..<3 {
                    #expect(queue.pointee.wr_id == index)
                    #expect((bounds[index]...bounds[index + 1]).contains(ibv_wc_read_completion_ts(queue)))
                    // The difference between the clocks is that at the time of the call; adjtime(3) may change it.
                    let time = ibv_wc_read_completion_wallclock_ns(queue)
                    #expect((wall - 100_000_000...end + 100_000_000).contains(time))
                    #expect(ibv_next_poll(queue) == (index < 2 ? 0 : ENOENT))
                }
                ibv_end_poll(queue)
            }
            try check(device.table.destroy_cq(plain(queue)))
        }

        @Test("Removing the completions of a queue pair keeps the timestamps of the others")
        func removal() throws {
            let device = try OpenDevice()
            let queue = try queue(device, fields: UInt64(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP.rawValue))
            do {
                var options = Endpoint.Options()
                let (a, c) = (try Endpoint(device, options), try Endpoint(device, options))
                options.queue = plain(queue)
                let (b, d) = (try Endpoint(device, options), try Endpoint(device, options))
                for (one, other) in [(a, b), (c, d)] {
                    try one.connect(to: other.address)
                    try other.connect(to: one.address)
                    try other.postReceive(id: 7, [other.sge(0, 64)])
                }
                try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                try a.success()
                let before = try rawClock(device)
                try c.post(IBV_WR_SEND, [c.sge(0, 8)])
                try c.success()
                try b.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RESET }
                var poll = ibv_poll_cq_attr()
                #expect(ibv_start_poll(queue, &poll) == 0)
                #expect(ibv_wc_read_qp_num(queue) == d.pair.pointee.qp_num)
                #expect(ibv_wc_read_completion_ts(queue) >= before)
                #expect(ibv_next_poll(queue) == ENOENT)
                ibv_end_poll(queue)
            }
            try check(device.table.destroy_cq(plain(queue)))
        }

        @Test("A queue that ignores overruns drops what does not fit, and its queue pair goes on")
        func ignoresOverrun() throws {
            let device = try OpenDevice()
            let queue = try queue(device, flags: IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN.rawValue, entries: 2)
            do {
                var options = Endpoint.Options()
                let a = try Endpoint(device, options)
                options.queue = plain(queue)
                let b = try Endpoint(device, options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                for id in 0..<5 { try b.postReceive(id: UInt64(id), [b.sge(0, 64)]) }
                for _ in 0..<4 { try a.post(IBV_WR_SEND, [a.sge(0, 8)]) }
                _ = try a.completions(4)
                #expect(try b.completions(2).map(\.wr_id) == [0, 1])
                try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                try a.success()
                #expect(try b.success().wr_id == 4)
            }
            try check(device.table.destroy_cq(plain(queue)))
        }

        @Test("A moderated queue raises one event for cq_count completions, and one for fewer after cq_period")
        func moderates() throws {
            let device = try OpenDevice()
            let channel = try created(device.table.create_comp_channel(device.context))
            do {
                var options = Endpoint.Options()
                let a = try Endpoint(device, options)
                options.channel = channel
                let b = try Endpoint(device, options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                let request = device.context.pointee.ops.req_notify_cq!
                func isReadable() -> Bool {
                    // Completions can be polled a moment before the event is raised, by the same holder of the lock. A
                    // control verb waits for the lock.
                    var attr = ibv_qp_attr()
                    var initial = ibv_qp_init_attr()
                    #expect(device.table.query_qp(a.pair, &attr, 0, &initial) == 0)
                    var descriptor = pollfd(fd: channel.pointee.fd, events: Int16(POLLIN), revents: 0)
                    return Glibc.poll(&descriptor, 1, 0) == 1
                }
                func send() throws {
                    try b.postReceive([b.sge(0, 64)])
                    try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                    try a.success()
                }
                func takeEvent() throws {
                    var queue: UnsafeMutablePointer<ibv_cq>?
                    try check(device.table.get_cq_event(channel, &queue))
                    #expect(queue == b.queue)
                    ibv_ack_cq_events(b.queue, 1)
                }
                // 65 ms: the period does not end before two messages are sent, or the test proves less.
                var attr = ibv_modify_cq_attr()
                attr.attr_mask = IBV_CQ_ATTR_MODERATE.rawValue
                attr.moderate = ibv_moderate_cq(cq_count: 3, cq_period: UInt16.max)
                try check(device.table.modify_cq(b.queue, &attr))
                #expect(request(b.queue, 0) == 0)
                for _ in 0..<3 { try send() }
                #expect(isReadable())
                try takeEvent()
                #expect(request(b.queue, 0) == 0)
                try send()
                // Blocks until the period is over: no further completion arrives.
                try takeEvent()

                // Ending the moderation raises the event that waits.
                #expect(request(b.queue, 0) == 0)
                try send()
                attr.moderate = ibv_moderate_cq(cq_count: 0, cq_period: 0)
                try check(device.table.modify_cq(b.queue, &attr))
                #expect(isReadable())
                try takeEvent()
                #expect(request(b.queue, 0) == 0)
                try send()
                #expect(isReadable())
                try takeEvent()

                attr.attr_mask = 1 << 5
                #expect(device.table.modify_cq(b.queue, &attr) == EINVAL)
            }
            try check(device.table.destroy_comp_channel(channel))
        }
    }
}
