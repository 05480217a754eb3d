import CIBVerbs
import CProviderABI
import Glibc
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Attributes of queue pairs and shared receive queues")
    struct QueueAttributeTests {
        private func query(_ endpoint: Endpoint) throws -> ibv_qp_attr {
            var attr = ibv_qp_attr()
            var initial = ibv_qp_init_attr()
            try check(endpoint.device.table.query_qp(endpoint.pair, &attr, 0, &initial))
            return attr
        }

        private func event(_ device: OpenDevice) throws -> ibv_async_event {
            var event = ibv_async_event()
            try check(device.table.get_async_event(device.context, &event))
            ibv_ack_async_event(&event)
            return event
        }

        @Test("SQD: the work requests that were begun complete, SQ_DRAINED is reported, and RTS sends the later ones")
        func drains() throws {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            options.rnrTimer = 1
            let (a, b) = try pair(options, on: first, and: second)
            // Without a receive, the first send waits for the RNR timer again and again.
            try a.post(IBV_WR_SEND, id: 1, [a.sge(0, 8)])
            a.poll { $0.rnrNAKsReceived > 0 }
            try a.modify([IBV_QP_STATE, IBV_QP_EN_SQD_ASYNC_NOTIFY]) { attr in
                attr.qp_state = IBV_QPS_SQD
                attr.en_sqd_async_notify = 1
            }
            #expect(try query(a).sq_draining == 1)
            try a.post(IBV_WR_SEND, id: 2, [a.sge(0, 8)])
            for id in 1...2 { try b.postReceive(id: UInt64(id), [b.sge(0, 64)]) }
            #expect(try a.success().wr_id == 1)
            let drained = try event(first)
            #expect(drained.event_type == IBV_EVENT_SQ_DRAINED && drained.element.qp == a.pair)
            #expect(try query(a).sq_draining == 0)
            #expect(try query(a).qp_state == IBV_QPS_SQD)
            // Attributes that can be changed in SQD only.
            try a.modify([IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_MAX_QP_RD_ATOMIC]) { attr in
                attr.timeout = 17
                attr.retry_cnt = 3
                attr.max_rd_atomic = 2
            }
            try a.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RTS }
            #expect(try a.success().wr_id == 2)
            let attr = try query(a)
            #expect(attr.timeout == 17 && attr.retry_cnt == 3 && attr.max_rd_atomic == 2)
            #expect(throws: Refusal(EINVAL)) { try a.modify([IBV_QP_TIMEOUT]) { $0.timeout = 9 } }
        }

        @Test("A queue pair with a rate limit sends what it should, no faster")
        func paces() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            // 80 Mbit/s: 10 bytes per microsecond.
            var limit = ibv_qp_rate_limit_attr(rate_limit: 80_000, max_burst_sz: 1024, typical_pkt_sz: 0, comp_mask: 0)
            try check(first.table.modify_qp_rate_limit(a.pair, &limit))
            #expect(try query(a).rate_limit == 80_000)
            a.fill(0, 100_000, seed: 3)
            let target = try b.address
            let start = ContinuousClock.now
            try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 100_000)]) { request in
                request.wr.rdma.remote_addr = target.memory
                request.wr.rdma.rkey = target.key
            }
            try a.success()
            // 10 ms for 100,000 bytes, less the burst.
            #expect(ContinuousClock.now - start > .milliseconds(9))
            #expect(b.bytes(0, 100_000) == a.bytes(0, 100_000))
            limit.rate_limit = UInt32.max
            #expect(first.table.modify_qp_rate_limit(a.pair, &limit) == EINVAL)
            limit.rate_limit = 0
            try check(first.table.modify_qp_rate_limit(a.pair, &limit))
            var attr = ibv_device_attr_ex()
            try check(first.table.query_device_ex(first.context, nil, &attr, MemoryLayout<ibv_device_attr_ex>.size))
            #expect(attr.packet_pacing_caps.qp_rate_limit_max == 1_000_000_000)
        }

        @Test("Enhanced connection establishment: no options are offered, and none are accepted")
        func options() throws {
            let a = try Endpoint(OpenDevice())
            let table = a.device.table
            var ece = ibv_ece(vendor_id: 1, options: 2, comp_mask: 3)
            let size = MemoryLayout<ibv_ece>.size
            try check(table.query_ece(a.pair, &ece, size))
            #expect(ece.vendor_id == 0 && ece.options == 0 && ece.comp_mask == 0)
            ece = ibv_ece(vendor_id: 0x15B3, options: 0x3F, comp_mask: 0)
            try check(table.set_ece(a.pair, &ece, size))
            #expect(ece.options == 0)
            ece.comp_mask = 1
            #expect(table.set_ece(a.pair, &ece, size) == EINVAL)
        }

        @Test("Two connected queue pairs arm, and modify to MIGRATED moves both to the alternate path")
        func migrates() throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            for (one, other) in [(a, b), (b, a)] {
                let peer = try other.address
                try one.modify([IBV_QP_ALT_PATH, IBV_QP_PATH_MIG_STATE]) { attr in
                    attr.alt_ah_attr = one.ahAttr(to: peer)
                    attr.alt_ah_attr.grh.traffic_class = 8
                    attr.alt_port_num = 1
                    attr.alt_timeout = 16
                    attr.path_mig_state = IBV_MIG_REARM
                }
                #expect(try query(one).path_mig_state == IBV_MIG_REARM)
                #expect(try query(one).alt_ah_attr.grh.traffic_class == 8)
                #expect(try query(one).alt_timeout == 16)
            }
            func send(_ from: Endpoint, _ to: Endpoint) throws {
                try to.postReceive([to.sge(0, 64)])
                try from.post(IBV_WR_SEND, [from.sge(0, 8)])
                try from.success()
                try to.success()
            }
            try send(a, b)
            #expect(try query(a).path_mig_state == IBV_MIG_ARMED)
            #expect(try query(b).path_mig_state == IBV_MIG_ARMED)
            try a.modify([IBV_QP_PATH_MIG_STATE]) { $0.path_mig_state = IBV_MIG_MIGRATED }
            #expect(try event(first).event_type == IBV_EVENT_PATH_MIG)
            try send(a, b)
            #expect(try event(second).event_type == IBV_EVENT_PATH_MIG)
            for end in [a, b] {
                #expect(try query(end).path_mig_state == IBV_MIG_MIGRATED)
                #expect(try query(end).ah_attr.grh.traffic_class == 8)
                #expect(try query(end).timeout == 16)
            }
            try send(b, a)
            #expect(throws: Refusal(EINVAL)) {
                try a.modify([IBV_QP_PATH_MIG_STATE]) { $0.path_mig_state = IBV_MIG_REARM }
            }
        }

        @Test("A resized shared receive queue keeps its receives, and holds as many as it should")
        func resizes() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            var attr = ibv_srq_init_attr_ex()
            attr.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
            attr.pd = domain
            attr.attr = ibv_srq_attr(max_wr: 4, max_sge: 1, srq_limit: 0)
            let shared = try created(device.table.create_srq_ex(device.context, &attr))
            do {
                var options = Endpoint.Options()
                options.domain = domain
                let a = try Endpoint(device, options)
                options.shared = shared
                let b = try Endpoint(device, options)
                try a.connect(to: b.address)
                try b.connect(to: a.address)
                var next: UInt64 = 0
                func post() -> Int32 {
                    var sge = b.sge(Int(next) * 64, 64)
                    return withUnsafeMutablePointer(to: &sge) { sge in
                        var request = ibv_recv_wr(wr_id: next, next: nil, sg_list: sge, num_sge: 1)
                        var bad: UnsafeMutablePointer<ibv_recv_wr>?
                        let error = device.context.pointee.ops.post_srq_recv(shared, &request, &bad)
                        if error == 0 { next += 1 }
                        return error
                    }
                }
                func modify(_ maxWR: UInt32, limit: UInt32? = nil) -> Int32 {
                    var wanted = ibv_srq_attr(max_wr: maxWR, max_sge: 0, srq_limit: limit ?? 0)
                    let mask = IBV_SRQ_MAX_WR.rawValue | (limit == nil ? 0 : IBV_SRQ_LIMIT.rawValue)
                    return device.table.modify_srq(shared, &wanted, Int32(mask))
                }
                while post() == 0 {}
                #expect(next == 4)
                // The ring wraps: some are consumed before.
                for _ in 0..<2 {
                    try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                    try a.success()
                }
                #expect(try b.completions(2).map(\.wr_id) == [0, 1])
                while post() == 0 {}
                #expect(next == 6)
                #expect(modify(3) == EINVAL)
                #expect(modify(0) == EINVAL)
                #expect(modify(1 << 20) == EINVAL)
                #expect(modify(6, limit: 7) == EINVAL)
                #expect(modify(6, limit: 5) == 0)
                while post() == 0 {}
                #expect(next == 8)
                var now = ibv_srq_attr()
                try check(device.table.query_srq(shared, &now))
                #expect(now.max_wr == 6 && now.srq_limit == 5)
                for _ in 0..<4 {
                    try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                    try a.success()
                }
                #expect(try b.completions(4).map(\.wr_id) == [2, 3, 4, 5])
                #expect(try event(device).event_type == IBV_EVENT_SRQ_LIMIT_REACHED)
                #expect(modify(2) == 0)
                #expect(post() == ENOMEM)
                for _ in 0..<2 {
                    try a.post(IBV_WR_SEND, [a.sge(0, 8)])
                    try a.success()
                }
                #expect(try b.completions(2).map(\.wr_id) == [6, 7])
            }
            try check(device.table.destroy_srq(shared))
            try check(device.table.dealloc_pd(domain))
        }
    }
}
