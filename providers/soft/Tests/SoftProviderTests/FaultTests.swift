import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc
import RoCETransport
import SoftTestSupport
import Testing

@testable import SoftProvider

/// What opening a device with rules led to: the errno value and the reason.
private struct OpenFailure: Error {
    var errno: Int32
    var reason: String
}

extension OpenDevice {
    /// The device `soft0` as rdma_device. It is never freed.
    private nonisolated(unsafe) static let loopback: UnsafeMutablePointer<rdma_device> = {
        let device = UnsafeMutablePointer<rdma_device>.allocate(capacity: 1)
        device.initialize(to: rdma_device())
        device.pointee.size = UInt32(MemoryLayout<rdma_device>.size)
        device.pointee.kind = RDMA_DEVICE_SOFTWARE.rawValue
        device.pointee.driver_id = UInt32.max
        device.pointee.interface = UnsafePointer(strdup("lo"))
        device.pointee.device = .allocate(capacity: 1)
        device.pointee.device.initialize(to: ibv_device())
        return device
    }()

    /// Opens a device that injects the faults of these rules, as RDMA_SOFT_FAULTS has them.
    static func injecting(_ rules: String) throws -> OpenDevice {
        _ = Provider.builtIn
        var opened = rdma_context()
        opened.size = UInt32(MemoryLayout<rdma_context>.size)
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
        let error = rules.withCString { openDevice(loopback, nil, &opened, &why, faultRules: $0) }
        if error != 0 {
            let reason = withUnsafeBytes(of: why.text) {
                String(cString: $0.baseAddress!.assumingMemoryBound(to: CChar.self))
            }
            throw OpenFailure(errno: error, reason: reason)
        }
        let device = OpenDevice(context: opened.context, table: opened.ops.pointee)
        rdma_adopt_context(&opened)
        return device
    }

    /// How many faults of a kind were injected.
    func injections(_ kind: FaultKind) -> UInt64 {
        let soft = context.soft
        soft.lockForControl()
        defer { soft.unlock() }
        return soft.guarded.pointee.faults!.pointee.plan.pointee.injections(kind)
    }

    fileprivate var nextEvent: ibv_event_type {
        get throws {
            var event = ibv_async_event()
            try check(table.get_async_event(context, &event))
            rdma_ack_async_event(&event)
            return event.event_type
        }
    }

    fileprivate var portState: ibv_port_state {
        get throws {
            var attr = ibv_port_attr()
            try check(table.query_port(context, 1, &attr, MemoryLayout<ibv_port_attr>.size))
            return attr.state
        }
    }
}

extension Endpoint {
    fileprivate var state: ibv_qp_state {
        get throws {
            var found = (ibv_qp_attr(), ibv_qp_init_attr())
            try check(device.table.query_qp(pair, &found.0, Int32(IBV_QP_STATE.rawValue), &found.1))
            return found.0.qp_state
        }
    }

    /// Posts SENDs with the numbers from `first` to `last` as immediate data, in one call.
    fileprivate func sendNumbers(_ first: UInt32, _ last: UInt32, to address: Address? = nil) throws {
        let count = Int(last - first) + 1
        let list = UnsafeMutablePointer<ibv_send_wr>.allocate(capacity: count)
        let element = UnsafeMutablePointer<ibv_sge>.allocate(capacity: 1)
        element.initialize(to: sge(0, 8))
        var handle: UnsafeMutablePointer<ibv_ah>?
        if let address {
            var attr = ahAttr(to: address)
            handle = try created(device.table.create_ah(domain, &attr))
        }
        defer {
            list.deallocate()
            element.deallocate()
            if let handle { _ = device.table.destroy_ah(handle) }
        }
        for index in 0..<count {
            var request = ibv_send_wr()
            request.opcode = IBV_WR_SEND_WITH_IMM
            request.send_flags = IBV_SEND_SIGNALED.rawValue
            request.sg_list = element
            request.num_sge = 1
            request.imm_data = first + UInt32(index)
            request.next = index + 1 < count ? list + index + 1 : nil
            if let address, let handle { request.setDestination(address, handle) }
            (list + index).initialize(to: request)
        }
        var bad: UnsafeMutablePointer<ibv_send_wr>?
        try check(device.context.pointee.ops.post_send(pair, list, &bad))
        _ = try completions(count)
    }

    /// The immediate data of the next `count` receives.
    fileprivate func numbers(_ count: Int) throws -> [UInt32] { try completions(count).map(\.imm_data) }

    fileprivate func postReceives(_ count: Int) throws {
        for index in 0..<count { try postReceive(id: UInt64(index), [sge(4096 + index * 128, 128)]) }
    }

    /// Posts an 8-byte RDMA WRITE to the peer.
    fileprivate func write(to peer: Endpoint, id: UInt64 = 0) throws {
        try post(IBV_WR_RDMA_WRITE, id: id, [sge(0, 8)]) { request in
            request.wr.rdma.remote_addr = UInt64(UInt(bitPattern: peer.memory))
            request.wr.rdma.rkey = peer.region.pointee.rkey
        }
    }
}

extension Soft {
    @Suite("Faults on request: what the application sees of each rule")
    struct FaultTests {
        /// An endpoint on a device with rules, connected to one on a device without.
        private func connected(
            _ rules: String, _ change: (inout Endpoint.Options) -> Void = { _ in }
        ) throws -> (Endpoint, Endpoint) {
            var options = Endpoint.Options()
            change(&options)
            return try SoftTestSupport.pair(options, on: .injecting(rules), and: OpenDevice())
        }

        private func isUC(_ options: inout Endpoint.Options) { options.type = IBV_QPT_UC }

        // MARK: Packets

        @Test("loss: every second message of UC does not arrive, and RC repairs a loss")
        func loss() throws {
            let (a, b) = try connected("loss every=2 qp_type=UC", isUC)
            try b.postReceives(6)
            try a.sendNumbers(1, 11)
            #expect(try b.numbers(6) == [1, 3, 5, 7, 9, 11])
            #expect(a.device.injections(.loss) == 5)

            let (c, d) = try connected("loss nth=1 operation=send") { $0.timeout = 12 }
            try d.postReceives(1)
            try c.post(IBV_WR_SEND, [c.sge(0, 8)])
            try c.success()
            try d.success()
            #expect(c.device.injections(.loss) == 1)
            #expect(c.device.counters.timeouts + c.device.counters.probes >= 1)
            #expect(c.device.counters.retransmittedPackets >= 1)
        }

        @Test("loss with direction=receive: the device does not receive the first message")
        func lossOfReceived() throws {
            var options = Endpoint.Options()
            options.type = IBV_QPT_UC
            let (a, b) = try pair(options, on: OpenDevice(), and: .injecting("loss nth=1 direction=receive"))
            try b.postReceives(1)
            try a.sendNumbers(1, 2)
            #expect(try b.numbers(1) == [2])
            #expect(b.device.injections(.loss) == 1)
        }

        @Test("duplicate: a datagram arrives twice, and RC delivers a message once")
        func duplicate() throws {
            let (a, b) = try connected("duplicate nth=1") { $0.type = IBV_QPT_UD }
            try b.postReceives(3)
            try a.sendNumbers(1, 2, to: b.address)
            #expect(try b.numbers(3) == [1, 1, 2])
            #expect(a.device.injections(.duplicate) == 1)

            let (c, d) = try connected("duplicate operation=send")
            try d.postReceives(3)
            try c.sendNumbers(1, 3)
            #expect(try d.numbers(3) == [1, 2, 3])
            // More where a packet was sent again meanwhile.
            d.poll { $0.duplicateRequests >= 3 }
        }

        @Test("reorder: the second datagram overtakes the first")
        func reorder() throws {
            let (a, b) = try connected("reorder nth=1") { $0.type = IBV_QPT_UD }
            try b.postReceives(3)
            try a.sendNumbers(1, 3, to: b.address)
            #expect(try b.numbers(3) == [2, 1, 3])
            #expect(a.device.injections(.reorder) == 1)
        }

        @Test("reorder: a packet that nothing overtakes arrives all the same")
        func reorderAlone() throws {
            let (a, b) = try connected("reorder") { $0.type = IBV_QPT_UD }
            try b.postReceives(1)
            try a.sendNumbers(1, 1, to: b.address)
            #expect(try b.numbers(1) == [1])
        }

        @Test("delay: a message arrives no earlier than that")
        func delay() throws {
            let (a, b) = try connected("delay=30ms operation=send")
            try b.postReceives(1)
            let start = ContinuousClock.now
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            try b.success()
            #expect(ContinuousClock.now - start >= .milliseconds(30))
            try a.success()
            #expect(a.device.injections(.delay) >= 1)
        }

        @Test("bandwidth: messages arrive no faster than the link allows")
        func bandwidth() throws {
            let (a, b) = try connected("bandwidth=1Mbit", isUC)
            try b.postReceives(4)
            let start = ContinuousClock.now
            // Each packet has 12 bytes of BTH, 8 of ImmDt and payload, 4 of each; more than 24 bytes are 192 us.
            try a.sendNumbers(1, 4)
            #expect(try b.numbers(4) == [1, 2, 3, 4])
            #expect(ContinuousClock.now - start >= .microseconds(4 * 24 * 8))
        }

        @Test(
            "corrupt: the receiver drops a packet with a wrong ICRC, over shared memory and over UDP",
            arguments: [false, true])
        func corrupt(overUDP: Bool) throws {
            var options = Endpoint.Options()
            options.type = IBV_QPT_UC
            let devices = (try OpenDevice.injecting("corrupt nth=1"), try OpenDevice())
            if overUDP {
                for device in [devices.0, devices.1] { device.useDatagrams(port: 47_913) }
            }
            let (a, b) = try pair(options, on: devices.0, and: devices.1)
            try b.postReceives(1)
            try a.sendNumbers(1, 2)
            #expect(try b.numbers(1) == [2])
            #expect(a.device.injections(.corrupt) == 1)
            // Of two sockets with one address, the kernel chooses one. The process that receives a packet checks its ICRC.
            let wrong = a.device.linkCounters.badICRC + b.device.linkCounters.badICRC
            #expect(wrong == (overUDP ? 1 : 0))
            #expect(b.device.counters.droppedMalformed == (overUDP ? 0 : 1))
        }

        @Test("corrupt: a FLUSH that is dropped is sent again")
        func corruptFlush() throws {
            var options = Endpoint.Options()
            options.operations = UInt64(RDMA_QP_EX_WITH_FLUSH)
            // IBV_ACCESS_FLUSH_GLOBAL
            options.access |= 1 << 8
            options.pairAccess |= 1 << 8
            let devices = (try OpenDevice.injecting("corrupt nth=1"), try OpenDevice())
            for device in [devices.0, devices.1] { device.useDatagrams(port: 47_914) }
            let (a, b) = try pair(options, on: devices.0, and: devices.1)
            let target = try b.address
            let extended = try #require(a.device.table.qp_to_qp_ex(a.pair))
            let flush = try #require(rdma_wr_flush_place(extended).pointee)
            ibv_wr_start(extended)
            extended.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            flush(extended, target.key, target.memory, 8, 1, 0)
            #expect(ibv_wr_complete(extended) == 0)
            try a.success()
            #expect(a.device.injections(.corrupt) == 1)
            #expect(a.device.counters.retransmittedPackets > 0)
            // Either process receives a packet. One packet was sent at first.
            #expect(a.device.linkCounters.badICRC + b.device.linkCounters.badICRC == 1)
        }

        @Test("corrupt with icrc=valid: a message arrives with one wrong bit")
        func corruptData() throws {
            let (a, b) = try connected("seed=3; corrupt icrc=valid", isUC)
            a.fill(0, 64, seed: 5)
            try b.postReceive([b.sge(0, 64)])
            try a.post(IBV_WR_SEND, [a.sge(0, 64)])
            try b.success()
            let wrong = zip(a.bytes(0, 64), b.bytes(0, 64)).map { ($0 ^ $1).nonzeroBitCount }.reduce(0, +)
            #expect(wrong == 1)
        }

        // MARK: Completions

        @Test(
            "completion: the second request fails with RETRY_EXC_ERR, later ones are flushed, and the queue pair is in ERR"
        )
        func retryExceeded() throws {
            let (a, b) = try connected("completion=IBV_WC_RETRY_EXC_ERR nth=2")
            for id in 1...3 { try a.write(to: b, id: UInt64(id)) }
            let completions = try a.completions(3)
            #expect(completions.map(\.wr_id) == [1, 2, 3])
            #expect(completions.map(\.status) == [IBV_WC_SUCCESS, IBV_WC_RETRY_EXC_ERR, IBV_WC_WR_FLUSH_ERR])
            #expect(try a.state == IBV_QPS_ERR)
            #expect(try b.state == IBV_QPS_RTS)
            #expect(a.device.injections(.completion) == 1)
        }

        @Test(
            "completion: for a status that the peer reports, the peer is in ERR and has its event",
            arguments: [
                (IBV_WC_REM_ACCESS_ERR, IBV_EVENT_QP_ACCESS_ERR), (IBV_WC_REM_INV_REQ_ERR, IBV_EVENT_QP_REQ_ERR),
            ].map { [$0.0.rawValue, $0.1.rawValue] })
        func refusedByPeer(_ values: [UInt32]) throws {
            let name = values[0] == IBV_WC_REM_ACCESS_ERR.rawValue ? "REM_ACCESS_ERR" : "REM_INV_REQ_ERR"
            let (a, b) = try connected("completion=\(name) nth=2")
            for id in 1...3 { try a.write(to: b, id: UInt64(id)) }
            let statuses = try a.completions(3).map(\.status.rawValue)
            #expect(statuses == [IBV_WC_SUCCESS.rawValue, values[0], IBV_WC_WR_FLUSH_ERR.rawValue])
            #expect(try a.state == IBV_QPS_ERR)
            #expect(try b.state == IBV_QPS_ERR)
            var found = try b.device.nextEvent
            if found == IBV_EVENT_COMM_EST { found = try b.device.nextEvent }
            #expect(found.rawValue == values[1])
        }

        @Test("completion with direction=receive: the receive fails, and so does the peer's send")
        func failedReceive() throws {
            let (a, b) = try connected("completion=LOC_PROT_ERR direction=receive nth=2")
            try a.postReceives(3)
            for _ in 0..<2 { try b.post(IBV_WR_SEND, [b.sge(0, 8)]) }
            #expect(try b.completions(2).map(\.status) == [IBV_WC_SUCCESS, IBV_WC_REM_OP_ERR])
            #expect(
                try a.completions(3).map(\.status) == [IBV_WC_SUCCESS, IBV_WC_LOC_PROT_ERR, IBV_WC_WR_FLUSH_ERR])
            #expect(try b.state == IBV_QPS_ERR)
        }

        @Test("completion on UD: the queue pair is in SQE")
        func failedDatagram() throws {
            let (a, b) = try connected("completion=LOC_QP_OP_ERR nth=1 qp_type=UD") { $0.type = IBV_QPT_UD }
            let peer = try b.address
            var attr = a.ahAttr(to: peer)
            let handle = try created(a.device.table.create_ah(a.domain, &attr))
            defer { _ = a.device.table.destroy_ah(handle) }
            try a.post(IBV_WR_SEND, [a.sge(0, 8)]) { $0.setDestination(peer, handle) }
            #expect(try a.completions()[0].status == IBV_WC_LOC_QP_OP_ERR)
            #expect(try a.state == IBV_QPS_SQE)
        }

        @Test("rnr: a send is repeated although a receive is posted, or fails without retries", arguments: [7, 0])
        func rnr(retries: Int) throws {
            var options = Endpoint.Options()
            options.rnrRetries = UInt8(retries)
            options.rnrTimer = 1
            let (a, b) = try pair(options, on: OpenDevice(), and: .injecting("rnr count=1"))
            try b.postReceives(1)
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            let status = try a.completions()[0].status
            #expect(status == (retries == 0 ? IBV_WC_RNR_RETRY_EXC_ERR : IBV_WC_SUCCESS))
            #expect(a.device.counters.rnrNAKsReceived == 1)
            #expect(b.device.injections(.rnr) == 1)
        }

        // MARK: Verbs

        @Test(
            "fail: the third registration, every creation of a queue pair, and a post fail with the errno of the rule")
        func verbs() throws {
            let device = try OpenDevice.injecting(
                "fail=reg_mr errno=ENOMEM nth=3; fail=ibv_create_qp errno=EAGAIN after=1completions; fail=post_send errno=EFAULT nth=2"
            )
            let (a, b) = try pair(on: device, and: OpenDevice())
            // The endpoint has registered memory once.
            var results: [Int32] = []
            for _ in 0..<3 {
                errno = 0
                let region = device.table.reg_mr(a.domain, a.memory, 4096, 0, IBV_ACCESS_LOCAL_WRITE.rawValue)
                results.append(region == nil ? errno : 0)
                if let region { _ = device.table.dereg_mr(region) }
            }
            #expect(results == [0, ENOMEM, 0])
            try a.write(to: b)
            #expect(throws: Refusal(EFAULT)) { try a.write(to: b) }
            try a.success()
            #expect(throws: Refusal(EAGAIN)) { try Endpoint(device) }
            #expect(device.injections(.fail) == 3)
        }

        @Test("fail: memory windows, device memory, moderation and multicast fail too, and then work")
        func furtherVerbs() throws {
            let device = try OpenDevice.injecting(
                """
                fail=alloc_mw errno=ENOMEM nth=1; fail=bind_mw errno=EINVAL nth=1; fail=alloc_dm errno=ENOSPC nth=1
                fail=modify_cq errno=EBUSY nth=1; fail=alloc_null_mr errno=EAGAIN nth=1; fail=attach_mcast errno=EPERM nth=1
                """)
            let domain = try created(device.table.alloc_pd(device.context))
            defer { _ = device.table.dealloc_pd(domain) }
            errno = 0
            #expect(device.context.pointee.ops.alloc_mw(domain, IBV_MW_TYPE_1) == nil && errno == ENOMEM)
            let window = try created(device.context.pointee.ops.alloc_mw(domain, IBV_MW_TYPE_1))
            #expect(device.context.pointee.ops.dealloc_mw(window) == 0)
            var attr = ibv_alloc_dm_attr()
            attr.length = 64
            errno = 0
            #expect(device.table.alloc_dm(device.context, &attr) == nil && errno == ENOSPC)
            let memory = try created(device.table.alloc_dm(device.context, &attr))
            #expect(device.table.free_dm(memory) == 0)
            errno = 0
            #expect(device.table.alloc_null_mr(domain) == nil && errno == EAGAIN)
            let region = try created(device.table.alloc_null_mr(domain))
            #expect(device.table.dereg_mr(region) == 0)
            #expect(device.injections(.fail) == 3)
        }

        @Test("A device with rules has its own function for each verb but those that destroy, read events or convert")
        func wholeTable() {
            func slots(_ table: UnsafePointer<rdma_context_ops>) -> [UInt] {
                let words = (MemoryLayout<rdma_context_ops>.size - 8) / 8
                return (UnsafeRawPointer(table) + 8).withMemoryRebound(to: UInt.self, capacity: words) {
                    Array(UnsafeBufferPointer(start: $0, count: words))
                }
            }
            let plain = slots(controlTable)
            let shared = zip(plain, slots(faultControlTable)).filter { $0 == $1 && $0 != 0 }.map(\.0)
            var unchanged = rdma_context_ops()
            let table = controlTable.pointee
            unchanged.close_context = table.close_context
            unchanged.query_extension = table.query_extension
            unchanged.dealloc_pd = table.dealloc_pd
            unchanged.dealloc_td = table.dealloc_td
            unchanged.dereg_mr = table.dereg_mr
            unchanged.free_dm = table.free_dm
            unchanged.get_cq_event = table.get_cq_event
            unchanged.get_async_event = table.get_async_event
            unchanged.destroy_cq = table.destroy_cq
            unchanged.destroy_srq = table.destroy_srq
            unchanged.close_xrcd = table.close_xrcd
            unchanged.destroy_qp = table.destroy_qp
            unchanged.destroy_ah = table.destroy_ah
            unchanged.qp_to_qp_ex = table.qp_to_qp_ex
            unchanged.query_qp_data_in_order = table.query_qp_data_in_order
            unchanged.detach_mcast = table.detach_mcast
            #expect(Set(shared) == Set(slots(&unchanged).filter { $0 != 0 }))
        }

        // MARK: Events

        @Test("event=PORT_ERR: the port is down and packets are lost, until event=PORT_ACTIVE")
        func port() throws {
            let (a, b) = try connected("event=PORT_ERR after=1completions; event=PORT_ACTIVE after=2completions")
            let (c, d) = try impatient(a.device, b.device)
            #expect(try a.device.portState == IBV_PORT_ACTIVE)
            try a.write(to: b)
            try a.success()
            #expect(try a.device.nextEvent == IBV_EVENT_PORT_ERR)
            #expect(try a.device.portState == IBV_PORT_DOWN)
            try c.write(to: d)
            #expect(try c.completions()[0].status == IBV_WC_RETRY_EXC_ERR)
            #expect(try a.device.nextEvent == IBV_EVENT_PORT_ACTIVE)
            #expect(try a.device.portState == IBV_PORT_ACTIVE)
            try a.write(to: b)
            try a.success()
        }

        /// Connected endpoints whose requests fail soon without an answer, for requests that must get none.
        private func impatient(_ first: OpenDevice, _ second: OpenDevice) throws -> (Endpoint, Endpoint) {
            var options = Endpoint.Options()
            options.timeout = 8
            options.retries = 1
            return try pair(options, on: first, and: second)
        }

        @Test("event=GID_CHANGE after a time: the event is reported without a call of the application")
        func gidChange() throws {
            let device = try OpenDevice.injecting("event=GID_CHANGE after=5ms")
            #expect(try device.nextEvent == IBV_EVENT_GID_CHANGE)
            #expect(device.injections(.event) == 1)
        }

        @Test("event=QP_FATAL: the queue pair of the counted completion is in ERR, another one is not")
        func queuePairFatal() throws {
            let (a, b) = try connected("event=IBV_EVENT_QP_FATAL after=2completions")
            let (c, d) = try pair(on: a.device, and: b.device)
            try c.write(to: d)
            try c.success()
            try a.postReceives(1)
            try a.write(to: b)
            try a.success()
            #expect(try a.device.nextEvent == IBV_EVENT_QP_FATAL)
            #expect(try a.state == IBV_QPS_ERR)
            #expect(try c.state == IBV_QPS_RTS)
            #expect(try a.completions()[0].status == IBV_WC_WR_FLUSH_ERR)
        }

        @Test("event=DEVICE_FATAL: work requests are flushed, then everything but destroying returns EIO")
        func deviceFatal() throws {
            let (a, b) = try connected("event=DEVICE_FATAL after=1completions")
            let device = a.device
            let channel = try created(device.table.create_comp_channel(device.context))
            try a.postReceives(2)
            try a.write(to: b)
            try a.success()
            #expect(try device.nextEvent == IBV_EVENT_DEVICE_FATAL)
            var event = ibv_async_event()
            #expect(device.table.get_async_event(device.context, &event) == EIO)
            var queue: UnsafeMutablePointer<ibv_cq>?
            #expect(device.table.get_cq_event(channel, &queue) == EIO)
            for descriptor in [device.context.pointee.async_fd, channel.pointee.fd] {
                var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                #expect(Glibc.poll(&entry, 1, 0) == 1)
            }
            #expect(try a.completions(2).map(\.status) == [IBV_WC_WR_FLUSH_ERR, IBV_WC_WR_FLUSH_ERR])
            var wc = ibv_wc()
            #expect(device.context.pointee.ops.poll_cq(a.queue, 1, &wc) == -EIO)
            #expect(device.context.pointee.ops.req_notify_cq(a.queue, 0) == EIO)
            #expect(throws: Refusal(EIO)) { try a.write(to: b) }
            #expect(throws: Refusal(EIO)) { try a.postReceives(1) }
            #expect(throws: Refusal(EIO)) { try device.portState }
            #expect(throws: Refusal(EIO)) { try created(device.table.alloc_pd(device.context)) }
            #expect(device.table.destroy_comp_channel(channel) == 0)
        }

        @Test("stop: the device neither sends nor answers, and its peer's requests fail")
        func stop() throws {
            let (a, b) = try pair(on: .injecting("stop after=1completions"), and: OpenDevice())
            let (c, d) = try impatient(a.device, b.device)
            try a.write(to: b)
            try a.success()
            try c.write(to: d)
            #expect(try c.completions()[0].status == IBV_WC_RETRY_EXC_ERR)
            try d.write(to: c)
            #expect(try d.completions()[0].status == IBV_WC_RETRY_EXC_ERR)
            #expect(a.device.injections(.stop) == 1)
        }

        // MARK: Reproducible

        /// What a single-threaded program sees: failed creations, datagrams in the order of their arrival, and which of
        /// its RDMA WRITEs fails.
        private func history(seed: Int) throws -> [UInt32] {
            let rules = """
                seed=\(seed)
                loss=20% qp_type=UD
                duplicate=10% qp_type=UD
                reorder=10% qp_type=UD
                fail=alloc_td errno=ENOMEM probability=30%
                completion=LOC_PROT_ERR operation=write probability=5%
                """
            let devices = (try OpenDevice.injecting(rules), try OpenDevice())
            var seen: [UInt32] = []
            for _ in 0..<20 {
                var attr = ibv_td_init_attr()
                let domain = devices.0.table.alloc_td(devices.0.context, &attr)
                seen.append(domain == nil ? 1 : 0)
                if let domain { _ = devices.0.table.dealloc_td(domain) }
            }
            var options = Endpoint.Options()
            options.sends = 256
            options.receives = 512
            options.completions = 1024
            let (c, d) = try pair(options, on: devices.0, and: devices.1)
            options.type = IBV_QPT_UD
            let (a, b) = try pair(options, on: devices.0, and: devices.1)
            for index in 0..<400 { try b.postReceive([b.sge(4096 + index * 64, 64)]) }
            // All in one call, so that each packet that is held for reordering has a successor.
            try a.sendNumbers(0, 199, to: b.address)
            // Two messages without faults follow: the first one releases a packet that is still held.
            try d.postReceives(2)
            try c.sendNumbers(1, 2)
            _ = try d.numbers(2)
            var wc = ibv_wc()
            while b.device.context.pointee.ops.poll_cq(b.queue, 1, &wc) == 1 { seen.append(wc.imm_data) }
            for id in 0..<200 {
                try c.write(to: d, id: UInt64(id))
                if try c.completions()[0].status != IBV_WC_SUCCESS {
                    seen.append(UInt32(id))
                    break
                }
            }
            return seen
        }

        @Test("The same seed gives the same history, and another seed another")
        func seeds() throws {
            let first = try history(seed: 7)
            #expect(try history(seed: 7) == first)
            #expect(try history(seed: 8) != first)
        }

        // MARK: Settings

        @Test("Rules that do not parse: opening fails with the variable or file, line, column and what is allowed")
        func badRules() throws {
            let failure = try #require(throws: OpenFailure.self) { _ = try OpenDevice.injecting("seed=1; los=1%") }
            #expect(failure.errno == EINVAL)
            #expect(
                failure.reason.hasPrefix(
                    "RDMA_SOFT_FAULTS: line 1, column 9: \"los\" is not a rule; allowed: seed, loss"))

            var path = Array("/tmp/faults-XXXXXX".utf8CString)
            let descriptor = mkstemp(&path)
            defer {
                close(descriptor)
                unlink(path)
            }
            let name = path.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            _ = try OpenDevice.injecting("@\(name)")
            let text = "# comment\nseed=1\nfail=reg_mr errno=E\u{7}2BIG\n"
            _ = write(descriptor, text, text.utf8.count)
            let inFile = try #require(throws: OpenFailure.self) { _ = try OpenDevice.injecting("@\(name)") }
            #expect(inFile.reason.hasPrefix("\(name): line 3, column 19: \"E?2BIG\" is not an errno value"))
            for (wrong, problem) in [("@/nowhere/faults", "ENOENT"), ("@/dev/zero", "not a regular file")] {
                let failure = try #require(throws: OpenFailure.self) { _ = try OpenDevice.injecting(wrong) }
                #expect(failure.reason.contains(problem) && failure.reason.contains(String(wrong.dropFirst())))
            }
        }

        @Test("Without rules, a device has the functions of a device without faults")
        func without() throws {
            let device = try OpenDevice.injecting(" # nothing")
            #expect(!device.context.soft.hasFaultRules)
            let plain = unsafeBitCast(controlTable.pointee.reg_mr, to: UInt.self)
            #expect(unsafeBitCast(device.table.reg_mr, to: UInt.self) == plain)
        }
    }
}
