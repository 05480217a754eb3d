import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc
import RoCEWire
import SoftTestSupport
import TestSupport
import Testing

@testable import SoftProvider

/// An XRC domain with a shared receive queue and an XRC_RECV queue pair, over the memory and the completion queue of an
/// endpoint.
private final class Receiver {
    let base: Endpoint
    let xrcDomain: UnsafeMutablePointer<ibv_xrcd>
    let queue: UnsafeMutablePointer<ibv_srq>
    let pair: UnsafeMutablePointer<ibv_qp>
    let number: UInt32
    var table: rdma_context_ops { base.device.table }
    var context: UnsafeMutablePointer<ibv_context> { base.device.context }

    init(_ device: OpenDevice, file: Int32 = -1) throws {
        base = try Endpoint(device)
        xrcDomain = try Self.openDomain(device, file: file)
        queue = try Self.makeQueue(base, xrcDomain)
        var attr = ibv_qp_init_attr_ex()
        attr.qp_type = IBV_QPT_XRC_RECV
        attr.comp_mask = IBV_QP_INIT_ATTR_XRCD.rawValue
        attr.xrcd = xrcDomain
        pair = try created(device.table.create_qp_ex(device.context, &attr))
        var number: UInt32 = 0
        try check(device.table.get_srq_num(queue, &number))
        self.number = number
    }

    deinit {
        _ = table.destroy_qp(pair)
        _ = table.destroy_srq(queue)
        _ = table.close_xrcd(xrcDomain)
    }

    static func openDomain(
        _ device: OpenDevice, file: Int32 = -1, mask: UInt32 = 3, flags: Int32 = O_CREAT
    ) throws -> UnsafeMutablePointer<ibv_xrcd> {
        var attr = ibv_xrcd_init_attr(comp_mask: mask, fd: file, oflags: flags)
        return try created(device.table.open_xrcd(device.context, &attr))
    }

    static func makeQueue(
        _ endpoint: Endpoint, _ domain: UnsafeMutablePointer<ibv_xrcd>,
        set: (inout ibv_srq_init_attr_ex) -> Void = { _ in }
    ) throws -> UnsafeMutablePointer<ibv_srq> {
        var attr = ibv_srq_init_attr_ex()
        attr.comp_mask =
            IBV_SRQ_INIT_ATTR_TYPE.rawValue | IBV_SRQ_INIT_ATTR_PD.rawValue | IBV_SRQ_INIT_ATTR_XRCD.rawValue
            | IBV_SRQ_INIT_ATTR_CQ.rawValue
        attr.srq_type = IBV_SRQT_XRC
        attr.pd = endpoint.domain
        attr.xrcd = domain
        attr.cq = endpoint.queue
        attr.attr.max_wr = 32
        attr.attr.max_sge = 2
        set(&attr)
        return try created(endpoint.device.table.create_srq_ex(endpoint.device.context, &attr))
    }

    func modify(_ mask: [ibv_qp_attr_mask], _ set: (inout ibv_qp_attr) -> Void) throws {
        var attr = ibv_qp_attr()
        set(&attr)
        try check(table.modify_qp(pair, &attr, Int32(mask.reduce(0) { $0 | $1.rawValue })))
    }

    /// The address that a sender connects to.
    var address: Address {
        get throws {
            var address = try base.address
            address.queuePair = pair.pointee.qp_num
            return address
        }
    }

    /// - Parameter others: Attributes that are given besides when the queue pair moves to RTS.
    func connect(to peer: Address, others: [ibv_qp_attr_mask] = []) throws {
        try modify([IBV_QP_STATE, IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_ACCESS_FLAGS]) { attr in
            attr.qp_state = IBV_QPS_INIT
            attr.port_num = 1
            attr.qp_access_flags = base.options.pairAccess
        }
        try modify([
            IBV_QP_STATE, IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN, IBV_QP_MAX_DEST_RD_ATOMIC,
            IBV_QP_MIN_RNR_TIMER,
        ]) { attr in
            attr.qp_state = IBV_QPS_RTR
            attr.ah_attr = base.ahAttr(to: peer)
            attr.path_mtu = base.options.pathMTU
            attr.dest_qp_num = peer.queuePair
            attr.rq_psn = peer.psn
            attr.max_dest_rd_atomic = 16
            attr.min_rnr_timer = 12
        }
        try modify([IBV_QP_STATE, IBV_QP_SQ_PSN, IBV_QP_TIMEOUT] + others) { attr in
            attr.qp_state = IBV_QPS_RTS
            attr.timeout = 18
        }
    }

    func postReceive(id: UInt64, _ offset: Int, _ length: Int) throws {
        var sge = base.sge(offset, length)
        var request = ibv_recv_wr(wr_id: id, next: nil, sg_list: nil, num_sge: 1)
        var bad: UnsafeMutablePointer<ibv_recv_wr>?
        try withUnsafeMutablePointer(to: &sge) { list in
            request.sg_list = list
            try check(context.pointee.ops.post_srq_recv(queue, &request, &bad))
        }
    }

    /// Reads the events of the device up to one of this type, and returns the queue pair that it is for.
    func event(_ type: ibv_event_type) throws -> UnsafeMutablePointer<ibv_qp>? {
        while true {
            var event = ibv_async_event()
            try check(table.get_async_event(context, &event))
            rdma_ack_async_event(&event)
            if event.event_type == type { return event.element.qp }
        }
    }
}

private func sender(_ device: OpenDevice, operations: UInt64? = nil) throws -> Endpoint {
    var options = Endpoint.Options()
    options.type = IBV_QPT_XRC_SEND
    options.operations = operations
    return try Endpoint(device, options)
}

private func connected(
    _ ends: Ends = .twoDevices, operations: UInt64? = nil, file: Int32 = -1
) throws -> (Endpoint, Receiver) {
    let (first, second) = try ends.open()
    let a = try sender(first, operations: operations)
    let b = try Receiver(second, file: file)
    try a.connect(to: b.address)
    try b.connect(to: a.address)
    return (a, b)
}

/// The errno value with which a call throws a `Refusal`; 0 if it throws none.
private func refused(_ body: () throws -> Void) -> Int32 {
    do { try body() } catch let refusal as Refusal { return refusal.errno } catch { return -1 }
    return 0
}

extension Soft {
    @Suite("XRC")
    struct XRCTests {
        @Test("Attributes of the side that an XRC queue pair does not have are ignored, as by the kernel")
        func attributesOfBothSides() throws {
            let (first, second) = try Ends.twoDevices.open()
            let a = try sender(first)
            let b = try Receiver(second)
            let peer = try b.address
            try a.modifyToInit()
            try a.modify([
                IBV_QP_STATE, IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN, IBV_QP_MAX_DEST_RD_ATOMIC,
                IBV_QP_MIN_RNR_TIMER,
            ]) { attr in
                attr.qp_state = IBV_QPS_RTR
                attr.ah_attr = a.ahAttr(to: peer)
                attr.path_mtu = a.options.pathMTU
                attr.dest_qp_num = peer.queuePair
                attr.rq_psn = peer.psn
                // Out of range.
                attr.max_dest_rd_atomic = 255
                attr.min_rnr_timer = 255
            }
            try a.modifyToRTS()
            try b.connect(to: a.address, others: [IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_MAX_QP_RD_ATOMIC])
            try b.postReceive(id: 7, 0, 64)
            try a.post(IBV_WR_SEND, [a.sge(0, 8)]) { $0.qp_type.xrc.remote_srqn = b.number }
            try a.success()
            #expect(try b.base.success().wr_id == 7)
        }

        @Test("Every operation of ibv_post_send reaches the shared receive queue that its work request names")
        func operations() throws {
            let (a, b) = try connected()
            let target = try b.address
            for id in 0..<3 { try b.postReceive(id: UInt64(id), id * 4000, 4000) }
            a.fill(0, 3000, seed: 3)
            func post(_ opcode: ibv_wr_opcode, _ sge: ibv_sge, _ set: (inout ibv_send_wr) -> Void = { _ in }) throws {
                try a.post(opcode, [sge]) { request in
                    request.qp_type.xrc.remote_srqn = b.number
                    request.wr.rdma.remote_addr = target.memory + 20_000
                    request.wr.rdma.rkey = target.key
                    set(&request)
                }
                try a.success()
            }
            try post(IBV_WR_SEND, a.sge(0, 3000))
            try post(IBV_WR_SEND_WITH_IMM, a.sge(0, 10)) { $0.imm_data = 9 }
            try post(IBV_WR_RDMA_WRITE_WITH_IMM, a.sge(0, 2000)) { $0.imm_data = 10 }
            try post(IBV_WR_RDMA_WRITE, a.sge(100, 8)) { $0.wr.rdma.remote_addr = target.memory + 30_000 }
            try post(IBV_WR_RDMA_READ, a.sge(5000, 2000))
            try post(IBV_WR_ATOMIC_FETCH_AND_ADD, a.sge(8000, 8)) { request in
                request.wr.atomic.remote_addr = target.memory + 30_000
                request.wr.atomic.rkey = target.key
                request.wr.atomic.compare_add = 1
            }
            let received = try b.base.completions(3)
            #expect(received.map(\.wr_id) == [0, 1, 2] && received.map(\.byte_len) == [3000, 10, 2000])
            #expect(received.allSatisfy { $0.status == IBV_WC_SUCCESS && $0.qp_num == b.pair.pointee.qp_num })
            #expect(received[1].imm_data == 9 && received[2].imm_data == 10)
            #expect(b.base.bytes(0, 3000) == a.bytes(0, 3000) && a.bytes(5000, 2000) == a.bytes(0, 2000))
            #expect(a.bytes(8000, 8) == a.bytes(100, 8))
            var sum = a.bytes(100, 8)
            sum[0] &+= 1
            #expect(b.base.bytes(30_000, 8) == sum)
        }

        @Test(
            "The wr_ functions with wr_set_xrc_srqn do the same; a request without a number is refused by the receiver")
        func builders() throws {
            let operations = UInt64(
                IBV_QP_EX_WITH_SEND.rawValue | IBV_QP_EX_WITH_RDMA_WRITE.rawValue | IBV_QP_EX_WITH_RDMA_READ.rawValue)
            let (a, b) = try connected(operations: operations)
            let target = try b.address
            let builder = try #require(a.device.table.qp_to_qp_ex(a.pair))
            try b.postReceive(id: 4, 0, 100)
            a.fill(0, 64, seed: 9)
            ibv_wr_start(builder)
            builder.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            ibv_wr_send(builder)
            ibv_wr_set_xrc_srqn(builder, b.number)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(0, 1).addr, 64)
            ibv_wr_rdma_read(builder, target.key, target.memory)
            ibv_wr_set_xrc_srqn(builder, b.number)
            ibv_wr_set_sge(builder, a.region.pointee.lkey, a.sge(1000, 1).addr, 64)
            #expect(ibv_wr_complete(builder) == 0)
            #expect(try a.completions(2).map(\.status) == [IBV_WC_SUCCESS, IBV_WC_SUCCESS])
            #expect(try b.base.success().wr_id == 4)
            #expect(a.bytes(1000, 64) == a.bytes(0, 64))
            ibv_wr_start(builder)
            ibv_wr_send(builder)
            #expect(ibv_wr_complete(builder) == 0)
            #expect(try a.completions()[0].status == IBV_WC_REM_ACCESS_ERR)
            #expect(try b.event(IBV_EVENT_QP_ACCESS_ERR) == b.pair)
        }

        @Test(
            "A shared receive queue of another device is not reached, and the log says why, whatever file its domain has"
        )
        func otherProcess() throws {
            let directory = try TemporaryDirectory()
            let file = open(directory.path + "/domain", O_RDONLY | O_CREAT, 0o600)
            defer { close(file) }
            let (a, b) = try connected(file: file)
            // As in another process: its domain with this file is one of its own.
            let other = try Endpoint(OpenDevice())
            let domain = try Receiver.openDomain(other.device, file: file)
            let queue = try Receiver.makeQueue(other, domain)
            defer {
                _ = b.table.destroy_srq(queue)
                _ = b.table.close_xrcd(domain)
            }
            var number: UInt32 = 0
            try check(b.table.get_srq_num(queue, &number))
            // The numbers are of each device, so that this one may have one as well.
            if number == b.number { number ^= 1 << 16 }
            let text = try ProviderLog.during {
                try a.post(IBV_WR_SEND, [a.sge(0, 8)]) { $0.qp_type.xrc.remote_srqn = number }
                #expect(try a.completions()[0].status == IBV_WC_REM_ACCESS_ERR)
                #expect(try b.event(IBV_EVENT_QP_ACCESS_ERR) == b.pair)
            }
            #expect(text.contains("no shared receive queue of another process"), "\(text)")
            #expect(text.contains("or a range or an access that the key does not allow"), "\(text)")
        }

        @Test("On the wire a SEND has opcode 0xA4, the XRCETH and a correct ICRC; an XRC acknowledge completes it")
        func wire() throws {
            let peer = try RawPeer(31)
            let device = try OpenDevice()
            device.useDatagrams(port: peer.port)
            let a = try sender(device)
            try a.connect(to: Address(gid: peer.gid, queuePair: 0x1234, psn: 500))
            a.fill(0, 5, seed: 1)
            try a.post(IBV_WR_SEND, [a.sge(0, 5)]) { $0.qp_type.xrc.remote_srqn = 0xFFAB_CDEF }
            let bytes = try peer.receive()
            #expect(bytes[0] == 0xA4 && bytes.count == 12 + 4 + 8 + 4)
            #expect(bytes[12..<16].elementsEqual([0, 0xAB, 0xCD, 0xEF]))
            #expect(bytes[16..<24].elementsEqual(a.bytes(0, 5) + [0, 0, 0]))
            #expect(bytes.withUnsafeBytes { ICRC.trailer(of: $0) } == peer.icrc(bytes, toPeer: true))
            var ack = PacketHeaders(
                BTH(opcode: Opcode(rawValue: 0xB1), destinationQPN: a.pair.pointee.qp_num, psn: PSN(a.psn)))
            ack.aeth = AETH(syndrome: AETHSyndrome(rawValue: 0x1F), msn: 1)
            peer.send(try peer.sealed(ack))
            try a.success()
        }

        @Test("ibv_open_qp makes handles of one queue pair: each has its events, and the last one destroys it")
        func handles() throws {
            let (a, b) = try connected()
            var attr = ibv_qp_open_attr()
            attr.comp_mask =
                IBV_QP_OPEN_ATTR_NUM.rawValue | IBV_QP_OPEN_ATTR_XRCD.rawValue | IBV_QP_OPEN_ATTR_TYPE.rawValue
                | IBV_QP_OPEN_ATTR_CONTEXT.rawValue
            attr.qp_num = b.pair.pointee.qp_num
            attr.xrcd = b.xrcDomain
            attr.qp_type = IBV_QPT_XRC_RECV
            attr.qp_context = UnsafeMutableRawPointer(bitPattern: 0x77)
            let opened = try created(b.table.open_qp(b.context, &attr))
            attr.comp_mask &= ~IBV_QP_OPEN_ATTR_CONTEXT.rawValue
            let third = try created(b.table.open_qp(b.context, &attr))
            #expect(opened.pointee.qp_num == b.pair.pointee.qp_num && opened.pointee.qp_context == attr.qp_context)
            #expect(opened.pointee.state == IBV_QPS_RTS && third.pointee.qp_context == nil)
            #expect(b.table.destroy_qp(third) == 0)
            // A request without a shared receive queue ends the connection: both handles have the event.
            try a.post(IBV_WR_SEND, [a.sge(0, 8)]) { $0.qp_type.xrc.remote_srqn = b.number ^ 0x1_0000 }
            #expect(try a.completions()[0].status == IBV_WC_REM_ACCESS_ERR)
            #expect(
                try Set([b.event(IBV_EVENT_QP_ACCESS_ERR), b.event(IBV_EVENT_QP_ACCESS_ERR)]) == [opened, b.pair])
            // The queue pair goes on with the handle that is left, which is not the one that made it.
            let another = try created(b.table.open_qp(b.context, &attr))
            #expect(b.table.destroy_qp(opened) == 0)
            var reset = ibv_qp_attr()
            reset.qp_state = IBV_QPS_RESET
            #expect(b.table.modify_qp(another, &reset, Int32(IBV_QP_STATE.rawValue)) == 0)
            #expect(b.table.destroy_qp(another) == 0)
            var query = ibv_qp_attr()
            var initial = ibv_qp_init_attr()
            #expect(b.table.query_qp(b.pair, &query, 0, &initial) == 0)
            #expect(query.qp_state == IBV_QPS_RESET && initial.qp_type == IBV_QPT_XRC_RECV)
            attr.qp_num ^= 1
            #expect(refused { _ = try created(b.table.open_qp(b.context, &attr)) } == EINVAL)
            attr.qp_num ^= 1
            attr.qp_type = IBV_QPT_RC
            #expect(refused { _ = try created(b.table.open_qp(b.context, &attr)) } == EINVAL)
            attr.comp_mask = 0
            #expect(refused { _ = try created(b.table.open_qp(b.context, &attr)) } == EINVAL)
        }

        @Test("An XRC_RECV queue pair keeps the protection domain that it was given in its struct, and does not use it")
        func givenDomain() throws {
            let (_, b) = try connected()
            let given = try created(b.table.alloc_pd(b.context))
            var attr = ibv_qp_init_attr_ex()
            attr.qp_type = IBV_QPT_XRC_RECV
            attr.comp_mask = IBV_QP_INIT_ATTR_XRCD.rawValue | IBV_QP_INIT_ATTR_PD.rawValue
            attr.xrcd = b.xrcDomain
            attr.pd = given
            let pair = try created(b.table.create_qp_ex(b.context, &attr))
            // librdmacm makes the shared receive queue with it.
            #expect(pair.pointee.pd == given)
            #expect(b.table.dealloc_pd(given) == 0)
            #expect(b.table.destroy_qp(pair) == 0)
        }

        @Test("The handle that made a queue pair can be destroyed before another one")
        func firstHandle() throws {
            let (a, b) = try connected()
            var initial = ibv_qp_init_attr_ex()
            initial.qp_type = IBV_QPT_XRC_RECV
            initial.comp_mask = IBV_QP_INIT_ATTR_XRCD.rawValue
            initial.xrcd = b.xrcDomain
            let first = try created(b.table.create_qp_ex(b.context, &initial))
            var attr = ibv_qp_open_attr()
            attr.comp_mask =
                IBV_QP_OPEN_ATTR_NUM.rawValue | IBV_QP_OPEN_ATTR_XRCD.rawValue | IBV_QP_OPEN_ATTR_TYPE.rawValue
            attr.qp_num = first.pointee.qp_num
            attr.xrcd = b.xrcDomain
            attr.qp_type = IBV_QPT_XRC_RECV
            let second = try created(b.table.open_qp(b.context, &attr))
            #expect(b.table.destroy_qp(first) == 0)
            let third = try created(b.table.open_qp(b.context, &attr))
            #expect(b.table.destroy_qp(second) == 0 && b.table.destroy_qp(third) == 0)
            #expect(refused { _ = try created(b.table.open_qp(b.context, &attr)) } == EINVAL)
            _ = a
        }

        @Test("Objects in use are EBUSY; a shared receive queue can go before the queue pairs of its domain")
        func busy() throws {
            let device = try OpenDevice()
            let endpoint = try Endpoint(device)
            let table = device.table
            let domain = try Receiver.openDomain(device)
            let cq = try created(table.create_cq(device.context, 8, nil, nil, 0))
            let pd = try created(table.alloc_pd(device.context))
            let queue = try Receiver.makeQueue(endpoint, domain) {
                $0.cq = cq
                $0.pd = pd
            }
            var attr = ibv_qp_init_attr_ex()
            attr.qp_type = IBV_QPT_XRC_RECV
            attr.comp_mask = IBV_QP_INIT_ATTR_XRCD.rawValue
            attr.xrcd = domain
            let pair = try created(table.create_qp_ex(device.context, &attr))
            #expect(table.close_xrcd(domain) == EBUSY && table.destroy_cq(cq) == EBUSY && table.dealloc_pd(pd) == EBUSY)
            #expect(table.destroy_srq(queue) == 0 && table.destroy_cq(cq) == 0 && table.dealloc_pd(pd) == 0)
            #expect(table.close_xrcd(domain) == EBUSY)
            #expect(table.destroy_qp(pair) == 0 && table.close_xrcd(domain) == 0)
        }

        @Test("Invalid attributes are EINVAL; a shared receive queue that is not of XRC has no number")
        func refusals() throws {
            let device = try OpenDevice()
            let endpoint = try Endpoint(device)
            let table = device.table
            let domain = try Receiver.openDomain(device)
            defer { _ = table.close_xrcd(domain) }
            #expect(refused { _ = try Receiver.openDomain(device, file: 1 << 30) } == EBADF)
            #expect(refused { _ = try Receiver.openDomain(device, mask: 1) } == EINVAL)
            for field in [IBV_SRQ_INIT_ATTR_PD, IBV_SRQ_INIT_ATTR_XRCD, IBV_SRQ_INIT_ATTR_CQ] {
                #expect(
                    refused { _ = try Receiver.makeQueue(endpoint, domain) { $0.comp_mask &= ~field.rawValue } }
                        == EINVAL)
            }
            #expect(refused { _ = try Receiver.makeQueue(endpoint, domain) { $0.cq = nil } } == EINVAL)
            #expect(refused { _ = try Receiver.makeQueue(endpoint, domain) { $0.comp_mask |= 1 << 9 } } == EOPNOTSUPP)
            #expect(refused { _ = try Receiver.makeQueue(endpoint, domain) { $0.attr.max_wr = 0 } } == EINVAL)
            let other = try OpenDevice()
            let stranger = try Endpoint(other)
            #expect(refused { _ = try Receiver.makeQueue(endpoint, domain) { $0.cq = stranger.queue } } == EINVAL)
            var attr = ibv_qp_init_attr_ex()
            attr.qp_type = IBV_QPT_XRC_RECV
            #expect(refused { _ = try created(table.create_qp_ex(device.context, &attr)) } == EINVAL)
            attr.comp_mask = IBV_QP_INIT_ATTR_XRCD.rawValue
            attr.xrcd = domain
            #expect(refused { _ = try created(table.create_qp_ex(other.context, &attr)) } == EINVAL)
            attr.qp_type = IBV_QPT_XRC_SEND
            #expect(refused { _ = try created(table.create_qp_ex(device.context, &attr)) } == EINVAL)
            let unsupported = UInt64(IBV_QP_EX_WITH_ATOMIC_WRITE.rawValue)
            #expect(refused { _ = try sender(device, operations: unsupported) } == EINVAL)
            var number: UInt32 = 0
            var basic = ibv_srq_init_attr_ex()
            basic.comp_mask = IBV_SRQ_INIT_ATTR_PD.rawValue
            basic.pd = endpoint.domain
            basic.attr.max_wr = 1
            let queue = try created(table.create_srq_ex(device.context, &basic))
            #expect(table.get_srq_num(queue, &number) == EOPNOTSUPP)
            #expect(table.destroy_srq(queue) == 0)
        }

        @Test("Handles of an XRC domain that were opened with one file share it; the last one closes it")
        func files() throws {
            let (device, other) = (try OpenDevice(), try OpenDevice())
            let table = device.table
            let directory = try TemporaryDirectory()
            let paths = ["a", "b"].map { directory.path + "/" + $0 }
            let files = paths.map { open($0, O_RDONLY | O_CREAT, 0o600) }
            defer { for file in files { close(file) } }
            let again = open(paths[0], O_RDONLY)
            #expect(refused { _ = try Receiver.openDomain(device, file: files[0], flags: 0) } == EAGAIN)
            let first = try Receiver.openDomain(device, file: files[0], flags: O_CREAT | O_EXCL)
            let second = try Receiver.openDomain(device, file: again, flags: 0)
            #expect(close(again) == 0)
            #expect(refused { _ = try Receiver.openDomain(device, file: files[0], flags: O_CREAT | O_EXCL) } == EINVAL)
            // Another file, no file and another open device have domains of their own.
            #expect(refused { _ = try Receiver.openDomain(device, file: files[1], flags: 0) } == EAGAIN)
            #expect(refused { _ = try Receiver.openDomain(other, file: files[0], flags: 0) } == EAGAIN)
            let private_ = try Receiver.openDomain(device)
            var attr = ibv_qp_init_attr_ex()
            attr.qp_type = IBV_QPT_XRC_RECV
            attr.comp_mask = IBV_QP_INIT_ATTR_XRCD.rawValue
            attr.xrcd = first
            let pair = try created(table.create_qp_ex(device.context, &attr))
            func handle(_ domain: UnsafeMutablePointer<ibv_xrcd>) throws -> UnsafeMutablePointer<ibv_qp> {
                var attr = ibv_qp_open_attr()
                attr.comp_mask =
                    IBV_QP_OPEN_ATTR_NUM.rawValue | IBV_QP_OPEN_ATTR_XRCD.rawValue | IBV_QP_OPEN_ATTR_TYPE.rawValue
                attr.qp_num = pair.pointee.qp_num
                attr.xrcd = domain
                attr.qp_type = IBV_QPT_XRC_RECV
                return try created(table.open_qp(device.context, &attr))
            }
            #expect(refused { _ = try handle(private_) } == EINVAL)
            #expect(table.close_xrcd(private_) == 0)
            let opened = try handle(second)
            #expect(table.close_xrcd(first) == 0)
            #expect(table.close_xrcd(second) == EBUSY)
            #expect(table.destroy_qp(pair) == 0 && table.close_xrcd(second) == EBUSY)
            #expect(table.destroy_qp(opened) == 0 && table.close_xrcd(second) == 0)
            #expect(refused { _ = try Receiver.openDomain(device, file: files[0], flags: 0) } == EAGAIN)
        }

        @Test("An XRC_SEND queue pair needs no completion queue for receives; XRC_RECV sends nothing; neither receives")
        func queues() throws {
            let (a, b) = try connected()
            var attr = ibv_qp_init_attr_ex()
            attr.qp_type = IBV_QPT_XRC_SEND
            attr.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
            attr.pd = a.domain
            attr.send_cq = a.queue
            attr.cap.max_send_wr = 4
            attr.cap.max_recv_wr = 1 << 30
            let pair = try created(a.device.table.create_qp_ex(a.device.context, &attr))
            #expect(attr.cap.max_recv_wr == 0 && attr.cap.max_send_wr == 4 && pair.pointee.recv_cq == nil)
            #expect(a.device.table.destroy_qp(pair) == 0)
            var receive = ibv_recv_wr()
            var badReceive: UnsafeMutablePointer<ibv_recv_wr>?
            #expect(a.device.context.pointee.ops.post_recv(a.pair, &receive, &badReceive) == EINVAL)
            #expect(b.context.pointee.ops.post_recv(b.pair, &receive, &badReceive) == EINVAL)
            var send = ibv_send_wr()
            send.opcode = IBV_WR_SEND
            var badSend: UnsafeMutablePointer<ibv_send_wr>?
            #expect(b.context.pointee.ops.post_send(b.pair, &send, &badSend) == EINVAL)
            var device = ibv_device_attr_ex()
            #expect(
                b.table.query_device_ex(b.context, nil, &device, MemoryLayout<ibv_device_attr_ex>.size) == 0)
            #expect(device.orig_attr.device_cap_flags & IBV_DEVICE_XRC.rawValue != 0 && device.xrc_odp_caps != 0)
        }
    }
}
