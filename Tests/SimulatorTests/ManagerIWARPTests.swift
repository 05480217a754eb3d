import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Foundation
import KernelVerbs
import Simulator
import Testing

/// rdma_cm of iWARP devices, as Linux' iwcm and iw_cxgb4: the kernel moves the queue pairs.
@Suite("Simulator: rdma_cm of iWARP devices")
final class ManagerIWARPTests {
    private let directory: String

    init() throws {
        var template = Array("/tmp/sim-iwcm.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    /// A host with an adapter and one queue pair.
    private final class Host {
        let bench: Cxgb4Bench
        let manager: ManagerDriver
        var pair: UInt32 { bench.pair.number }

        init(_ directory: String) throws {
            bench = try Cxgb4Bench("cxgb4 t5 wire=\(directory)", connects: false)
            try bench.createCompletions()
            try bench.createPair()
            manager = try ManagerDriver(on: bench.driver.device)
        }

        /// Whether the queue pair is connected. If so, that ends the connection.
        func abort() -> Bool { uverbs_sim_disconnect(manager.device, pair, Int32(UVERBS_SIM_ABORT.rawValue)) == 0 }
    }

    private func step(_ hosts: Host...) {
        for _ in 0..<70 { for host in hosts { _ = uverbs_sim_step(host.manager.device) } }
    }

    /// A request of `client` that has arrived at `server`.
    private func request(
        _ client: Host, _ server: Host, _ data: [UInt8] = [], port: UInt16 = 7471
    ) throws -> (UInt32, rdma_ucm_event_resp) {
        _ = try server.manager.makeListener(port: port)
        let active = try client.manager.makeRouted(to: .loopback(port))
        try #require(
            client.manager.connect(active, .init(queuePair: client.pair, data)) == 0, "\(client.manager.refusal)")
        step(client, server)
        return (active, try server.manager.expectEvent(.connectRequest))
    }

    /// Two connected identifiers.
    private func connect(
        _ client: Host, _ server: Host, port: UInt16 = 7471
    ) throws -> (active: UInt32, passive: UInt32) {
        let (active, request) = try request(client, server, port: port)
        try #require(server.manager.accept(request.id, .init(queuePair: server.pair)) == 0, "\(server.manager.refusal)")
        step(client, server)
        try server.manager.expectEvent(.established, request.id)
        try client.manager.expectEvent(.established, active)
        return (active, request.id)
    }

    @Test("ESTABLISHED follows ACCEPT on both sides, without CONNECT_RESPONSE, and private data have their length")
    func connection() throws {
        let server = try Host(directory), client = try Host(directory)
        let (active, request) = try request(client, server, [1, 2, 3])
        #expect(request.param.conn.data == [1, 2, 3])
        #expect(request.param.conn.responder_resources == 5 && request.param.conn.initiator_depth == 3)
        var reply = rdma_ucm_conn_param(queuePair: server.pair, [UInt8](repeating: 9, count: 250))
        reply.initiator_depth = 7
        #expect(server.manager.accept(request.id, reply) == 0)
        let passive = try server.manager.expectEvent(.established, request.id)
        // Its depth of 7 is limited by the 3 resources of the peer; its resources of 3 are raised to the peer's depth.
        #expect(passive.param.conn.initiator_depth == 3 && passive.param.conn.responder_resources == 5)
        #expect(try client.manager.event() == nil)
        step(client, server)
        let established = try client.manager.expectEvent(.established, active)
        #expect(established.param.conn.data == [UInt8](repeating: 9, count: 250))
        #expect(established.param.conn.initiator_depth == 5 && established.param.conn.responder_resources == 3)
        client.manager.expect(EINVAL, "no reply to acknowledge") { client.manager.accept(active, nil) }
        #expect(client.manager.notify(active, IBV_EVENT_COMM_EST) == 0)
        #expect(server.abort())
    }

    @Test("INIT_QP_ATTR moves a queue pair to INIT only")
    func attributes() throws {
        let server = try Host(directory), client = try Host(directory)
        let (active, _) = try connect(client, server)
        let attributes = try client.manager.attributes(active, IBV_QPS_INIT)
        #expect(attributes.qp_attr_mask == 1 | 8 | 0x20)
        #expect(
            attributes.qp_access_flags == IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue)
        #expect(try client.manager.attributes(active, IBV_QPS_RTS).qp_attr_mask == 0x20)
    }

    @Test("an MPA reject has the private data of the server; without a listener the connection is refused too")
    func rejection() throws {
        let server = try Host(directory), client = try Host(directory)
        let (active, request) = try request(client, server)
        #expect(server.manager.reject(request.id, [4, 5]) == 0)
        step(client, server)
        #expect(
            try client.manager.expectEvent(.rejected, active, status: -ECONNREFUSED).param.conn.data == [4, 5])
        server.manager.expect(EINVAL, "no request to reject") { server.manager.reject(request.id) }
        #expect(server.manager.disconnect(request.id) == 0)
        let second = try client.manager.makeRouted(to: .loopback(7499))
        #expect(client.manager.connect(second, .init(queuePair: client.pair)) == 0)
        step(client, server)
        #expect(try client.manager.expectEvent(.rejected, second, status: -ECONNREFUSED).param.conn.data == [])
    }

    @Test("DISCONNECT closes the connection on both sides; there is no TIMEWAIT_EXIT")
    func disconnection() throws {
        let server = try Host(directory), client = try Host(directory)
        let (active, passive) = try connect(client, server)
        #expect(client.manager.disconnect(active) == 0)
        #expect(try client.manager.event() == nil)
        step(client, server)
        try server.manager.expectEvent(.disconnected, passive)
        try client.manager.expectEvent(.disconnected, active)
        #expect(server.manager.disconnect(passive) == 0)
        step(client, server)
        #expect(try client.manager.event() == nil && server.manager.event() == nil)
        #expect(!client.abort() && !server.abort())
    }

    @Test("a queue pair that leaves RTS ends its connection; DESTROY_ID aborts it")
    func abortion() throws {
        let server = try Host(directory), client = try Host(directory)
        let (active, passive) = try connect(client, server)
        #expect(client.abort())
        try client.manager.expectEvent(.disconnected, active, status: -ECONNRESET)
        step(client, server)
        try server.manager.expectEvent(.disconnected, passive, status: -ECONNRESET)

        let other = try Host(directory)
        let third = try Host(directory)
        let (a, p) = try connect(other, third, port: 7472)
        _ = try other.manager.destroy(a)
        step(other, third)
        try third.manager.expectEvent(.disconnected, p, status: -ECONNRESET)
    }

    @Test("a server whose process ends: its connections are reset, and requests to it")
    func ending() throws {
        let server = try Host(directory), client = try Host(directory)
        let (active, _) = try connect(client, server)
        #expect(uverbs_sim_fail(server.manager.device) == 0)
        step(client)
        try client.manager.expectEvent(.disconnected, active, status: -ECONNRESET)
        let late = try client.manager.makeRouted(to: .port(1, 7471))
        #expect(client.manager.connect(late, .init(queuePair: client.pair)) == 0)
        try client.manager.expectEvent(.unreachable, late, status: -ETIMEDOUT)
    }

    @Test("a queue pair that does not exist, has too large a depth, or was connected before is refused")
    func queuePairs() throws {
        let server = try Host(directory), client = try Host(directory)
        let (active, passive) = try connect(client, server)
        #expect(client.manager.disconnect(active) == 0)
        step(client, server)
        try client.manager.expectEvent(.disconnected, active)
        try server.manager.expectEvent(.disconnected, passive)
        let second = try client.manager.makeRouted(to: .loopback(7471))
        client.manager.expect(EINVAL, "no queue pair of this number (1193046)") {
            client.manager.connect(second, .init(queuePair: 0x123456))
        }
        var deep = rdma_ucm_conn_param(queuePair: client.pair)
        deep.initiator_depth = 200
        client.manager.expect(EINVAL, "more READs than the device has (200, not 32)") {
            client.manager.connect(second, deep)
        }
        // The server's queue pair was connected before: its driver resets the connection.
        #expect(client.manager.connect(second, .init(queuePair: client.pair)) == 0)
        step(client, server)
        let request = try server.manager.expectEvent(.connectRequest)
        server.manager.expect(EINVAL, "create another") {
            server.manager.accept(request.id, .init(queuePair: server.pair))
        }
        step(client, server)
        try client.manager.expectEvent(.rejected, second, status: -ECONNRESET)
    }

    @Test("iWARP has no multicast and no datagrams")
    func datagrams() throws {
        let client = try Host(directory)
        let id = try client.manager.makeRouted(RDMA_PS_UDP, to: .loopback(1))
        client.manager.expect(EINVAL, "no queue pair of this number") {
            client.manager.connect(id, .init(queuePair: 0))
        }
        let member = try client.manager.create(RDMA_PS_UDP)
        #expect(client.manager.bind(member, .port(1, 0)) == 0)
        client.manager.expect(ENOSYS, "iWARP has no multicast") {
            var request = rdma_ucm_join_mcast()
            (request.id, request.addr_size) = (member, UInt16(MemoryLayout<sockaddr_in>.size))
            return withUnsafeMutableBytes(of: &request) { bytes in
                bytes.storeBytes(
                    of: sockaddr_in(0xE000_0105, 0), toByteOffset: Int(SIM_CM_JOIN_ADDRESS), as: sockaddr_in.self)
                return client.manager.write(RDMA_USER_CM_CMD_JOIN_MCAST, UnsafeRawBufferPointer(bytes), room: 4)
            }
        }
    }
}
