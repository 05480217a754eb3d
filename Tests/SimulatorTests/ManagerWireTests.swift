import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Foundation
import Simulator
import Testing

/// rdma_cm between hosts that are connected by a wire, each with one device.
@Suite("Simulator: rdma_cm over the wire")
final class ManagerWireTests {
    private let directory: String

    init() throws {
        var template = Array("/tmp/sim-cm.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private func host(_ device: String = "mlx5 roce") throws -> ManagerDriver {
        try ManagerDriver("\(device) wire=\(directory)")
    }

    /// Runs the devices until nothing changes.
    private func step(_ hosts: ManagerDriver...) {
        for _ in 0..<4 { for host in hosts { _ = uverbs_sim_step(host.device) } }
    }

    @Test("two hosts connect, by the address of the port or by a loopback address", arguments: ["mlx5 roce", "mlx5"])
    func connection(device: String) throws {
        let server = try host(device), client = try host(device)
        _ = try server.makeListener(port: 7471)
        for address in [sockaddr_in.port(1, 7471), .loopback(7471)] {
            let active = try client.makeRouted(to: address)
            #expect(client.connect(active, .init(queuePair: 0x111, [1])) == 0)
            #expect(try client.event() == nil)
            step(client, server)
            let request = try server.expectEvent(.connectRequest)
            #expect(request.param.conn.data[0] == 1)
            #expect(server.accept(request.id, .init(queuePair: 0x222, [2])) == 0)
            step(client, server)
            #expect(try client.expectEvent(.connectResponse, active).param.conn.data[0] == 2)
            let attributes = try client.attributes(active, IBV_QPS_RTR)
            if device == "mlx5" {
                #expect(attributes.ah_attr.dlid == 1)
            } else {
                #expect(withUnsafeBytes(of: attributes.ah_attr.grh.dgid) { $0[15] } == 1)
            }
            #expect(client.accept(active, nil) == 0)
            step(client, server)
            try server.expectEvent(.established, request.id)
            #expect(client.disconnect(active) == 0)
            step(client, server)
            try server.expectEvent(.disconnected, request.id)
            #expect(server.disconnect(request.id) == 0)
            step(client, server)
            try client.expectEvent(.disconnected, active)
            try client.expectEvent(.timeWaitExit, active)
            try server.expectEvent(.timeWaitExit, request.id)
        }
    }

    @Test("both sides disconnect at the same time")
    func crossing() throws {
        let server = try host(), client = try host()
        let (active, passive) = try connect(client, server)
        #expect(client.disconnect(active) == 0 && server.disconnect(passive) == 0)
        step(client, server)
        try client.expectEvent(.disconnected, active)
        try server.expectEvent(.disconnected, passive)
        // ConnectionManager and librdmacm answer the event by another DISCONNECT, the DREP.
        #expect(client.disconnect(active) == 0)
        step(client, server)
        try client.expectEvent(.timeWaitExit, active)
    }

    private func connect(_ client: ManagerDriver, _ server: ManagerDriver) throws -> (UInt32, UInt32) {
        _ = try server.makeListener(port: 7471)
        let active = try client.makeRouted(to: .port(1, 7471))
        try #require(client.connect(active, .init(queuePair: 0x111)) == 0)
        step(client, server)
        let passive = try server.expectEvent(.connectRequest).id
        try #require(server.accept(passive, .init(queuePair: 0x222)) == 0)
        step(client, server)
        try client.expectEvent(.connectResponse, active)
        try #require(client.accept(active, nil) == 0)
        step(client, server)
        try server.expectEvent(.established, passive)
        return (active, passive)
    }

    @Test("a host that ends without a word: established connections are disconnected, requests rejected")
    func ending() throws {
        var server: ManagerDriver? = try host()
        let client = try host()
        let (active, _) = try connect(client, server!)
        let request = try client.makeRouted(to: .port(1, 7471))
        #expect(client.connect(request, .init(queuePair: 0x111)) == 0)
        // The device fails, and its port is closed: no message is sent.
        #expect(uverbs_sim_fail(server!.device) == 0)
        server = nil
        step(client)
        try client.expectEvent(.disconnected, active)
        try client.expectEvent(.rejected, request, status: 28)
        let late = try client.makeRouted(to: .port(1, 7471))
        #expect(client.connect(late, .init(queuePair: 0x111)) == 0)
        try client.expectEvent(.unreachable, late, status: -ETIMEDOUT)
    }

    @Test("a port that one host has bound to all addresses is refused to the others, until its identifier is destroyed")
    func claims() throws {
        let first = try host(), second = try host()
        let listener = try first.makeListener(port: 7471)
        let other = try second.create()
        second.expect(EADDRNOTAVAIL, "another process on the wire has the port (7471)") {
            second.bind(other, .any(7471))
        }
        // Its own address is another one.
        let own = try second.create()
        #expect(second.bind(own, .port(2, 7471)) == 0)
        _ = try second.destroy(own)
        #expect(second.bind(try second.create(RDMA_PS_UDP), .any(7471)) == 0)
        _ = try first.destroy(listener)
        #expect(second.bind(other, .any(7471)) == 0)
        // What a dead process leaves behind is no obstacle.
        let dead = try host()
        _ = try dead.makeListener(port: 7473)
        #expect(uverbs_sim_fail(dead.device) == 0)
        let third = try second.create()
        #expect(second.bind(third, .any(7473)) == 0)
    }

    // MARK: - Arbitrary messages

    /// Sends a message of the connection manager from the port `from` to LID 1.
    private func send(_ message: sim_cm_message, count: Int? = nil, from socket: Int32, _ lid: UInt16) {
        var header = sim_wire_message()
        header.version = UInt16(SIM_WIRE_VERSION)
        header.size = UInt16(MemoryLayout<sim_wire_message>.size)
        header.kind = UInt8(SIM_WIRE_CONNECTION_MANAGER.rawValue)
        header.source = lid
        header.path_mtu = 1024
        header.length = UInt64(count ?? MemoryLayout<sim_cm_message>.size)
        let payload = withUnsafeBytes(of: message) { sim_payload($0.baseAddress, Int(header.length)) }
        #expect(sim_wire_send(directory, socket, 1, &header, payload) == 0)
        sim_discard(payload)
    }

    @Test("malformed messages are refused with the reason; messages of another port than the peer's too")
    func malformed() throws {
        let server = try host(), client = try host()
        let (active, passive) = try connect(client, server)
        let lid = UInt16(sim_wire_join(directory))
        let socket = sim_wire_open(directory, lid)
        try #require(socket >= 0)
        defer { sim_wire_close(socket) }
        var valid = sim_cm_message()
        (valid.kind, valid.sender, valid.receiver) = (UInt8(SIM_CM_DREQ.rawValue), 9, passive + 1)
        func expect(_ why: String, count: Int? = nil, _ change: (inout sim_cm_message) -> Void) {
            uverbs_sim_forgive(server.device)
            var message = valid
            change(&message)
            send(message, count: count, from: socket, lid)
            step(server)
            #expect(server.refusal.contains(why), "\(server.refusal)")
        }
        expect("of another length, in bytes (8, not \(MemoryLayout<sim_cm_message>.size))", count: 8) { _ in }
        expect("no such message of the connection manager (0)") { $0.kind = 0 }
        expect("no such message of the connection manager (10)") { $0.kind = 10 }
        expect("without a communication ID") { $0.sender = 0 }
        expect("more private data than a message has room for (256, not 255)") { $0.private_data_length = 256 }
        expect("an address of an unknown family (3)") { $0.source.family = 3 }
        expect("a QPN or PSN of more than 24 bits") { $0.queue_pair = 1 << 24 }
        expect("no such path MTU (6)") { $0.path_mtu = 6 }
        // The identifier knows its peer's communication ID and port.
        uverbs_sim_forgive(server.device)
        send(valid, from: socket, lid)
        step(server)
        #expect(try server.event() == nil)
        expect("from another port than the peer's (3, not 2)") { $0.sender = active + 1 }
        #expect(try server.event() == nil)
    }

    @Test("a disconnect request for an unknown connection is answered")
    func unknown() throws {
        let server = try host()
        _ = try server.makeListener(port: 7471)
        let lid = UInt16(sim_wire_join(directory))
        let socket = sim_wire_open(directory, lid)
        defer { sim_wire_close(socket) }
        var message = sim_cm_message()
        (message.kind, message.sender, message.receiver) = (UInt8(SIM_CM_DREQ.rawValue), 9, 1000)
        send(message, from: socket, lid)
        step(server)
        var answer = sim_wire_message()
        var payload: Int32 = -1
        try #require(sim_wire_receive(socket, &answer, &payload) > 0)
        defer { sim_discard(payload) }
        var contents = sim_cm_message()
        try #require(sim_payload_read(payload, &contents, MemoryLayout<sim_cm_message>.size))
        #expect(contents.kind == SIM_CM_DREP.rawValue && contents.receiver == 9)
    }
}
