import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import Simulator
import Testing

/// The commands of /dev/infiniband/rdma_cm: what Linux' ucma, cma and ib_cm do, and what they refuse.
@Suite("Simulator: rdma_cm")
struct ManagerTests {
    /// A connected pair of identifiers on one host.
    private func connected(_ driver: ManagerDriver, port: UInt16 = 7471) throws -> (active: UInt32, passive: UInt32) {
        _ = try driver.makeListener(port: port)
        let active = try driver.makeRouted(to: .loopback(port))
        try #require(driver.connect(active, .init(queuePair: 0x111)) == 0, "\(driver.refusal)")
        let passive = try driver.expectEvent(.connectRequest).id
        try #require(driver.accept(passive, .init(queuePair: 0x222)) == 0, "\(driver.refusal)")
        try driver.expectEvent(.connectResponse, active)
        try #require(driver.accept(active, nil) == 0, "\(driver.refusal)")
        try driver.expectEvent(.established, passive)
        return (active, passive)
    }

    @Test("a connection: parameters and private data reach the other side from its point of view")
    func connection() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let listener = try driver.makeListener(port: 7471)
        let active = try driver.makeRouted(to: .port(1, 7471))
        #expect(driver.connect(active, .init(queuePair: 0x111, [1, 2, 3])) == 0)
        let request = try driver.expectEvent(.connectRequest)
        #expect(request.uid == 1000 && request.id != listener && request.id != active)
        #expect(request.param.conn.data == [1, 2, 3] + [UInt8](repeating: 0, count: 53))
        #expect(request.param.conn.qp_num == 0x111)
        #expect(request.param.conn.responder_resources == 5 && request.param.conn.initiator_depth == 3)
        #expect(request.param.conn.retry_count == 6 && request.param.conn.rnr_retry_count == 4)
        var reply = rdma_ucm_conn_param(queuePair: 0x222, [9])
        reply.initiator_depth = 2
        #expect(driver.accept(request.id, reply, uid: 55) == 0)
        let response = try driver.expectEvent(.connectResponse, active)
        #expect(response.param.conn.data == [9] + [UInt8](repeating: 0, count: 195))
        #expect(response.param.conn.responder_resources == 2 && response.param.conn.initiator_depth == 3)
        #expect(response.param.conn.qp_num == 0x222)
        #expect(driver.accept(active, nil) == 0)
        #expect(try driver.expectEvent(.established, request.id).uid == 55)
        #expect(try driver.event() == nil)
    }

    @Test("INIT_QP_ATTR: the attributes of both sides fit each other", arguments: ["mlx5 roce", "mlx5"])
    func attributes(description: String) throws {
        let driver = try ManagerDriver(description)
        let (active, passive) = try connected(driver)
        for (id, peer, remote) in [(active, passive, 0x222 as UInt32), (passive, active, 0x111)] {
            let initial = try driver.attributes(id, IBV_QPS_INIT)
            #expect(initial.qp_attr_mask == 0x39 && initial.port_num == 1)
            #expect(initial.qp_access_flags == IBV_ACCESS_REMOTE_WRITE.rawValue | 4 | 8)
            let ready = try driver.attributes(id, IBV_QPS_RTR)
            #expect(ready.qp_attr_mask == 1 | 0x80 | 0x100 | 0x1000 | 0x8000 | 0x20000 | 0x100000)
            #expect(ready.dest_qp_num == remote && ready.path_mtu == 5)
            #expect(ready.ah_attr.is_global == (description == "mlx5" ? 0 : 1))
            #expect(ready.ah_attr.dlid == (description == "mlx5" ? 1 : 0))
            if description != "mlx5" {
                #expect(ready.ah_attr.grh.sgid_index == 3 && ready.ah_attr.grh.hop_limit == 64)
                #expect(
                    withUnsafeBytes(of: ready.ah_attr.grh.dgid) { Array($0.suffix(6)) } == [255, 255, 198, 18, 0, 1])
            }
            let sending = try driver.attributes(id, IBV_QPS_RTS)
            #expect(sending.qp_attr_mask == 1 | 0x200 | 0x400 | 0x800 | 0x2000 | 0x10000)
            #expect(sending.sq_psn == (try driver.attributes(peer, IBV_QPS_RTR)).rq_psn)
            #expect(sending.timeout == 19)
        }
        #expect(try driver.attributes(active, IBV_QPS_RTS).max_rd_atomic == 3)
        #expect(try driver.attributes(active, IBV_QPS_RTR).max_dest_rd_atomic == 5)
        #expect(try driver.attributes(active, IBV_QPS_RTS).retry_cnt == 6)
        #expect(try driver.attributes(passive, IBV_QPS_RTS).rnr_retry == 4)
    }

    @Test("a rejection carries its reason and its private data; a second one is refused")
    func rejection() throws {
        let driver = try ManagerDriver("mlx5 roce")
        _ = try driver.makeListener(port: 7471)
        let active = try driver.makeRouted(to: .loopback(7471))
        #expect(driver.connect(active, .init(queuePair: 0x111)) == 0)
        let passive = try driver.expectEvent(.connectRequest).id
        driver.expect(EINVAL, "a program may not reject for this reason (7)") { driver.reject(passive, reason: 7) }
        driver.expect(EINVAL, "more private data than a rejection has room for (149, not 148)") {
            driver.reject(passive, [UInt8](repeating: 1, count: 149))
        }
        #expect(driver.reject(passive, [4, 5]) == 0)
        let event = try driver.expectEvent(.rejected, active, status: 28)
        #expect(event.param.conn.data == [4, 5] + [UInt8](repeating: 0, count: 146))
        driver.expect(EINVAL, "no request or reply to reject") { driver.reject(passive) }
        driver.expect(EINVAL, "there is no request, or the peer has withdrawn it") {
            driver.accept(passive, .init(queuePair: 1))
        }
    }

    @Test("without a listener a request is rejected with the reason 8, and a look-up with the status 1")
    func noListener() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let active = try driver.makeRouted(to: .loopback(7471))
        #expect(driver.connect(active, .init(queuePair: 0x111)) == 0)
        try driver.expectEvent(.rejected, active, status: 8)
        let lookUp = try driver.makeRouted(RDMA_PS_UDP, to: .loopback(7471))
        #expect(driver.connect(lookUp, .init(queuePair: 0x111)) == 0)
        try driver.expectEvent(.unreachable, lookUp, status: 1)
    }

    @Test("either side disconnects; TIMEWAIT_EXIT follows the DREP; DESTROY_ID of one side disconnects the other")
    func disconnection() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let (active, passive) = try connected(driver)
        #expect(driver.disconnect(active) == 0)
        try driver.expectEvent(.disconnected, passive)
        #expect(try driver.event() == nil)
        #expect(driver.disconnect(passive) == 0)
        try driver.expectEvent(.disconnected, active)
        _ = uverbs_sim_step(driver.device)
        let ended = [try driver.expectEvent(.timeWaitExit).id, try driver.expectEvent(.timeWaitExit).id]
        #expect(ended.sorted() == [active, passive].sorted())
        // Of the identifier of a request, the program has read: established, disconnected, timewait.
        #expect(try driver.destroy(passive) == 3)
        #expect(try driver.destroy(active) == 5)

        let second = try connected(driver, port: 7472)
        #expect(try driver.destroy(second.active) == 3)
        try driver.expectEvent(.disconnected, second.passive)
    }

    @Test("DESTROY_ID before the connection is established rejects the peer's")
    func destruction() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let listener = try driver.makeListener(port: 7471)
        let first = try driver.makeRouted(to: .loopback(7471))
        #expect(driver.connect(first, .init(queuePair: 0x111)) == 0)
        // The listener goes with the request that the program has not read.
        #expect(try driver.destroy(listener) == 0)
        try driver.expectEvent(.rejected, first, status: 28)

        _ = try driver.makeListener(port: 7471)
        let second = try driver.makeRouted(to: .loopback(7471))
        #expect(driver.connect(second, .init(queuePair: 0x111)) == 0)
        let passive = try driver.expectEvent(.connectRequest).id
        #expect(try driver.destroy(second) == 2)
        driver.expect(EINVAL, "the peer has withdrawn it") { driver.accept(passive, .init(queuePair: 1)) }
        driver.expect(ENOENT, "no identifier of this number") { driver.disconnect(second) }
    }

    @Test("commands in a wrong state are refused with EINVAL, as by Linux")
    func states() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let id = try driver.create()
        driver.expect(EINVAL, "no device") { driver.resolveRoute(id) }
        driver.expect(EINVAL, "no device") { driver.connect(id, .init(queuePair: 1)) }
        driver.expect(EINVAL, "no device") { driver.disconnect(id) }
        #expect(driver.resolve(id, to: .loopback(9)) == 0)
        driver.expect(EINVAL, "a timeout of 0") {
            driver.write(RDMA_USER_CM_CMD_RESOLVE_ROUTE, rdma_ucm_resolve_route(id: id, timeout_ms: 0))
        }
        driver.expect(EINVAL, "the route is not resolved") { driver.connect(id, .init(queuePair: 1)) }
        driver.expect(EINVAL, "bound already") { driver.resolve(id, to: .loopback(9)) }
        #expect(driver.resolveRoute(id) == 0)
        driver.expect(EINVAL, "the address is not resolved") { driver.resolveRoute(id) }
        driver.expect(EINVAL, "there is no connection") { driver.disconnect(id) }
        driver.expect(EINVAL, "there is no connection to reject") { driver.reject(id) }
        driver.expect(EINVAL, "the parameters are not valid") { driver.connect(id, .init()) }
        driver.expect(EINVAL, "more private data than a request has room for (93, not 92)") {
            driver.connect(id, .init(queuePair: 1, [UInt8](repeating: 1, count: 57)))
        }
        driver.expect(EINVAL, "no request to accept") { driver.accept(id, nil) }
        driver.expect(EINVAL, "there is no connection") { driver.notify(id, IBV_EVENT_COMM_EST) }
        let other = try ManagerDriver(beside: driver)
        driver.expect(EINVAL, "of another descriptor") { other.disconnect(id) }
    }

    @Test("NOTIFY of IBV_EVENT_COMM_EST replaces the RTU")
    func notification() throws {
        let driver = try ManagerDriver("mlx5 roce")
        _ = try driver.makeListener(port: 7471)
        let active = try driver.makeRouted(to: .loopback(7471))
        #expect(driver.connect(active, .init(queuePair: 0x111)) == 0)
        let passive = try driver.expectEvent(.connectRequest).id
        driver.expect(EINVAL, "no REP was sent") { driver.notify(passive, IBV_EVENT_COMM_EST) }
        #expect(driver.accept(passive, .init(queuePair: 0x222)) == 0)
        try driver.expectEvent(.connectResponse, active)
        driver.expect(EINVAL, "no use for this event") { driver.notify(passive, IBV_EVENT_QP_FATAL) }
        #expect(driver.notify(passive, IBV_EVENT_COMM_EST) == 0)
        try driver.expectEvent(.established, passive)
        driver.expect(EISCONN, "established already") { driver.notify(passive, IBV_EVENT_COMM_EST) }
        #expect(driver.accept(active, nil) == 0)
        #expect(try driver.event() == nil)
    }

    @Test("ports: conflicts, reuse, address families, and addresses that no device has")
    func ports() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let first = try driver.create()
        #expect(driver.bind(first, .port(1, 7471)) == 0)
        driver.expect(EINVAL, "bound already") { driver.bind(first, .port(1, 7472)) }
        let second = try driver.create()
        driver.expect(EADDRINUSE, "in use (7471)") { driver.bind(second, .port(1, 7471)) }
        driver.expect(EADDRNOTAVAIL, "bound to all addresses (7471)") { driver.bind(second, .any(7471)) }
        driver.expect(ENODEV, "no device has this address") { driver.bind(second, sockaddr_in(0xC000_0201, 7471)) }
        #expect(driver.bind(try driver.create(RDMA_PS_UDP), .port(1, 7471)) == 0)
        // Both must allow the reuse, until one of them listens.
        let reusing = try driver.create(), another = try driver.create()
        #expect(driver.set(reusing, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, 1 as Int32) == 0)
        #expect(driver.set(another, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, 1 as Int32) == 0)
        driver.expect(EADDRINUSE, "in use") { driver.bind(reusing, .port(1, 7471)) }
        #expect(driver.bind(reusing, .port(1, 7480)) == 0 && driver.bind(another, .port(1, 7480)) == 0)
        driver.expect(EADDRINUSE, "in use") { driver.listen(another) }
        #expect(try driver.destroy(reusing) == 0)
        #expect(driver.listen(another) == 0)
        driver.expect(EINVAL, "the option has four bytes (1)") {
            driver.set(second, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, 1 as UInt8)
        }
        driver.expect(ENOSYS, "no such option") { driver.set(second, RDMA_OPTION_ID, 9, 1 as UInt8) }
        // The kernel chooses a port.
        #expect(driver.listen(second) == 0)
    }

    @Test("an address without a process, and one of another network, end with ADDR_ERROR")
    func unreachable() throws {
        let driver = try ManagerDriver("mlx5 roce")
        for (address, status) in [(sockaddr_in.port(9, 1), -ETIMEDOUT), (sockaddr_in(0x0808_0808, 1), -ENODEV)] {
            let id = try driver.create()
            #expect(driver.resolve(id, to: address) == 0)
            try driver.expectEvent(.addressError, id, status: status)
            // Another address can follow.
            #expect(driver.resolve(id, to: .port(1, 1)) == 0)
            try driver.expectEvent(.addressResolved, id)
        }
    }

    @Test("a full backlog delays a request until the program has read one")
    func backlog() throws {
        let driver = try ManagerDriver("mlx5 roce")
        _ = try driver.makeListener(port: 7471, backlog: 1)
        let clients = [try driver.makeRouted(to: .loopback(7471)), try driver.makeRouted(to: .loopback(7471))]
        for client in clients { #expect(driver.connect(client, .init(queuePair: 0x100 + client)) == 0) }
        #expect(try driver.expectEvent(.connectRequest).param.conn.qp_num == 0x100 + clients[0])
        #expect(try driver.event() == nil)
        _ = uverbs_sim_step(driver.device)
        #expect(try driver.expectEvent(.connectRequest).param.conn.qp_num == 0x100 + clients[1])
    }

    @Test("MIGRATE_ID moves an identifier and its unread events, and returns the number of read ones")
    func migration() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let other = try ManagerDriver(beside: driver)
        let id = try driver.create()
        #expect(driver.resolve(id, to: .loopback(1)) == 0)
        try driver.expectEvent(.addressResolved)
        #expect(driver.resolveRoute(id) == 0)
        let response = try other.respond(RDMA_USER_CM_CMD_MIGRATE_ID, rdma_ucm_migrate_resp()) { place in
            rdma_ucm_migrate_id(response: place, id: id, fd: UInt32(driver.descriptor))
        }
        #expect(response.events_reported == 1)
        #expect(try driver.event() == nil)
        try other.expectEvent(.routeResolved, id)
        #expect(try other.destroy(id) == 2)
        driver.expect(EINVAL, "none of rdma_cm") {
            other.write(RDMA_USER_CM_CMD_MIGRATE_ID, rdma_ucm_migrate_id(response: 0, id: id, fd: 0), room: 4)
        }
    }

    @Test("a datagram service: QPN, Q_Key and the address of the peer", arguments: ["mlx5 roce", "mlx5"])
    func datagrams(description: String) throws {
        let driver = try ManagerDriver(description)
        _ = try driver.makeListener(RDMA_PS_UDP, port: 7471)
        let active = try driver.makeRouted(RDMA_PS_UDP, to: .port(1, 7471))
        #expect(try driver.attributes(active, IBV_QPS_INIT).qkey == 0x0123_4567)
        #expect(driver.connect(active, .init(queuePair: 0x111, [7])) == 0)
        let request = try driver.expectEvent(.connectRequest)
        #expect(request.param.ud.private_data_len == 180 && request.param.ud.private_data.0 == 7)
        #expect(driver.accept(request.id, .init(queuePair: 0x222, [8])) == 0)
        let event = try driver.expectEvent(.established, active)
        #expect(event.param.ud.qp_num == 0x222 && event.param.ud.qkey == 0x0123_4567)
        #expect(event.param.ud.private_data_len == 136 && event.param.ud.private_data.0 == 8)
        #expect(event.param.ud.ah_attr.port_num == 1)
        #expect(event.param.ud.ah_attr.is_global == (description == "mlx5" ? 0 : 1))
        driver.expect(EINVAL, "no look-up to answer") { driver.accept(request.id, .init(queuePair: 0x222)) }
    }

    @Test("a failed device: DEVICE_REMOVAL, then ENXIO, and DESTROY_ID still counts the events")
    func removal() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let (active, _) = try connected(driver)
        #expect(uverbs_sim_fail(driver.device) == 0)
        let ids = [try driver.expectEvent(.deviceRemoval).id, try driver.expectEvent(.deviceRemoval).id]
        #expect(ids.contains(active))
        driver.expect(ENXIO, "the device of the identifier has failed") { driver.disconnect(active) }
        #expect(try driver.destroy(active) == 4)
    }

    @Test("malformed commands are refused with the reason")
    func malformed() throws {
        let driver = try ManagerDriver("mlx5 roce")
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        driver.expect(EINVAL, "shorter than a header, in bytes (7, not 8)") {
            [UInt8](repeating: 0, count: 7).withUnsafeBytes { sim_write(driver.descriptor, $0.baseAddress, $0.count) }
        }
        driver.expect(EINVAL, "no such command (23)") { driver.write(23, nothing) }
        driver.expect(ENOSYS, "does not have the command (13)") { driver.write(RDMA_USER_CM_CMD_GET_OPTION, nothing) }
        driver.expect(EINVAL, "greater length than was written, in bytes (20, not 8)") {
            driver.write(RDMA_USER_CM_CMD_CREATE_ID, nothing, length: 12)
        }
        driver.expect(ENOSPC, "less room than the response needs, in bytes (0, not 4)") {
            driver.write(RDMA_USER_CM_CMD_CREATE_ID, rdma_ucm_create_id())
        }
        driver.expect(EINVAL, "no such port space (5)") {
            var request = rdma_ucm_create_id()
            request.ps = 5
            return driver.write(RDMA_USER_CM_CMD_CREATE_ID, request, room: 4)
        }
        driver.expect(EFAULT, "not writable memory") {
            var request = rdma_ucm_create_id()
            (request.ps, request.response) = (UInt16(RDMA_PS_TCP.rawValue), 4096)
            return driver.write(RDMA_USER_CM_CMD_CREATE_ID, request, room: 4)
        }
        driver.expect(EFAULT, "shorter than the command's struct, in bytes (0, not 4)") {
            driver.write(RDMA_USER_CM_CMD_DISCONNECT, nothing)
        }
        driver.expect(EINVAL, "does not support this address family (1)") {
            var address = sockaddr_in.any(1)
            address.sin_family = UInt16(AF_UNIX)
            return driver.bind(0, address)
        }
    }
}
