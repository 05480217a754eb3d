import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Foundation
import KernelVerbs
import Testing

/// The wire between simulated devices. `verbs sim` uses it: see VerbsToolTests.
@Suite("Simulator: the wire between devices")
final class WireTests {
    private let directory: String

    init() throws {
        var template = Array("/tmp/sim-wire.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    @Test(
        "every scenario of sim-peer passes over the wire, with the vendor's library and with the native provider",
        .enabled(if: Peer.canPreload), arguments: ["hfi1", "mlx5", "mlx5 roce", "mlx5 cqe0 static"],
        [[], ["--native"]])
    func scenarios(device: String, arguments: [String]) throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", arguments, over: "\(device) wire=\(directory)")
        #expect(outcome.status == 0, "\(device): \(outcome.output)")
    }

    @Test(
        "every iWARP scenario passes over the wire with libcxgb4; a port that does not respond ends its connections",
        .enabled(if: Peer.canPreload), arguments: ["cxgb4 t4", "cxgb4 t5 write", "cxgb4 t6 reorder"])
    func iWARP(device: String) throws {
        for arguments in [["silent-ports"], []] {
            let outcome = try Peer.run(Peer.folder + "/sim-peer", arguments, over: "\(device) wire=\(directory)")
            #expect(outcome.status == 0, "\(device): \(outcome.output)")
        }
    }

    @Test(
        "a request to a port that never existed, or that is closed before it responds, ends with retry exceeded",
        .enabled(if: Peer.canPreload), arguments: ["hfi1", "mlx5"], [[], ["--native"]])
    func silent(device: String, arguments: [String]) throws {
        let outcome = try Peer.run(
            Peer.folder + "/sim-peer", arguments + ["silent-ports"], over: "\(device) wire=\(directory)")
        #expect(outcome.status == 0, "\(device): \(outcome.output)")
    }

    @Test("uverbs_sim_create refuses a wire's directory that does not exist or whose name is too long for a socket")
    func places() throws {
        #expect(uverbs_sim_create("hfi1 wire=/nonexistent/wire") == -ENOENT)
        let long = directory + "/" + String(repeating: "x", count: 100)
        #expect(uverbs_sim_create("hfi1 wire=\(long)") == -ENAMETOOLONG)
        #expect(uverbs_sim_create("hfi1 wire=") == -EINVAL)
    }

    // MARK: - A port that sends arbitrary messages

    /// A port of the wire without a device: a socket alone.
    private final class RawPort {
        let directory: String
        let lid: UInt16
        let socket: Int32

        init(_ directory: String) throws {
            self.directory = directory
            lid = UInt16(try #require(UInt16(exactly: sim_wire_join(directory))))
            socket = sim_wire_open(directory, lid)
            try #require(socket >= 0)
        }

        deinit { sim_wire_close(socket) }

        /// A valid request to QPN 0x101.
        var message: sim_wire_message {
            var message = sim_wire_message()
            message.version = UInt16(SIM_WIRE_VERSION)
            message.size = UInt16(MemoryLayout<sim_wire_message>.size)
            message.kind = UInt8(SIM_WIRE_REQUEST.rawValue)
            message.source = lid
            message.source_queue_pair = 0x500
            message.destination_queue_pair = 0x101
            message.path_mtu = 1024
            message.serial = 7
            return message
        }

        /// Sends a message to LID 1.
        func send(_ message: sim_wire_message, _ bytes: [UInt8]? = nil) {
            let payload = bytes.map { sim_payload($0, $0.count) } ?? -1
            var message = message
            #expect(sim_wire_send(directory, socket, 1, &message, payload) == 0)
            if payload >= 0 { sim_discard(payload) }
        }

        func receive() -> sim_wire_message? {
            var message = sim_wire_message()
            var payload: Int32 = -1
            guard sim_wire_receive(socket, &message, &payload) > 0 else { return nil }
            if payload >= 0 { sim_discard(payload) }
            return message
        }
    }

    @Test("malformed messages are refused with the reason; malformed requests are acknowledged")
    func refused() throws {
        let driver = try Driver("hfi1 wire=\(directory)")
        _ = try driver.kernel.getContext()
        let port = try RawPort(directory)
        #expect(port.lid == 2)
        func expect(_ why: String, _ bytes: [UInt8]? = nil, _ change: (inout sim_wire_message) -> Void) {
            uverbs_sim_forgive(driver.device)
            var message = port.message
            change(&message)
            port.send(message, bytes)
            _ = uverbs_sim_step(driver.device)
            #expect(driver.refusal.contains(why), "\(driver.refusal)")
        }
        expect("another version of the simulator (2, not 1)") { $0.version = 2 }
        expect("another version") { $0.size -= 8 }
        expect("a message without a source port") { $0.source = 0 }
        expect("unknown flags (16)") { $0.flags = 16 }
        expect("longer than the longest message") { $0.length = 1 << 30 + 1 }
        expect("no such path MTU (0)") { $0.path_mtu = 0 }
        expect("no such kind of message (9)") { $0.kind = 9 }
        expect("payload is shorter than its length", [1, 2, 3]) { $0.length = 4 }
        expect("payload is shorter than its length", [1, 2, 3]) { $0.length = 2 }
        #expect(port.receive() == nil)
        // Malformed requests are acknowledged.
        expect("no request of a reliable connection") { $0.operation = 7 }
        #expect(port.receive()?.serial == 7)
        expect("no request of a reliable connection") { $0.length = 100 }
        #expect(port.receive()?.serial == 7)
        expect("no request of an unreliable connection") {
            ($0.kind, $0.operation) = (UInt8(SIM_WIRE_UNRELIABLE.rawValue), 2)
        }
        expect("no datagram", [UInt8](repeating: 0, count: 4097)) {
            ($0.kind, $0.length) = (UInt8(SIM_WIRE_DATAGRAM.rawValue), 4097)
        }
        uverbs_sim_forgive(driver.device)
        port.send(port.message)
        _ = uverbs_sim_step(driver.device)
        #expect(uverbs_sim_refusals(driver.device) == 0)
        // There is no queue pair 0x101: Acknowledgement.noResponse.
        let response = try #require(port.receive())
        #expect(response.kind == SIM_WIRE_ACKNOWLEDGEMENT.rawValue && response.acknowledgement == 1)
        #expect(response.destination_queue_pair == 0x500 && response.source == 1)
    }

    @Test("an end of an iWARP connection counts if it comes from the peer's port and queue pair, and has a known kind")
    func connectionEnds() throws {
        let bench = try Cxgb4Bench("cxgb4 t6 wire=\(directory)", connects: false)
        let port = try RawPort(directory)
        try bench.createCompletions()
        try bench.createPair()
        #expect(uverbs_sim_connect(bench.driver.device, bench.pair.number, port.lid, 0x500, 1) == 0)
        func send(_ change: (inout sim_wire_message) -> Void = { _ in }) {
            var message = port.message
            message.kind = UInt8(SIM_WIRE_DISCONNECT.rawValue)
            message.destination_queue_pair = bench.pair.number
            message.acknowledgement = 2
            change(&message)
            port.send(message)
            _ = uverbs_sim_step(bench.driver.device)
        }
        send { $0.acknowledgement = 4 }
        #expect(bench.driver.refusal.contains("there is no such end of a connection (4)"), "\(bench.driver.refusal)")
        uverbs_sim_forgive(bench.driver.device)
        send { $0.source_queue_pair = 0x501 }
        send { $0.destination_queue_pair += 1 }
        #expect(try bench.state == IBV_QPS_RTS && uverbs_sim_refusals(bench.driver.device) == 0)
        // An orderly end, which the device answers; then a late one.
        send { $0.acknowledgement = 0 }
        #expect(try bench.state == IBV_QPS_INIT)
        let answer = try #require(port.receive())
        #expect(answer.kind == SIM_WIRE_DISCONNECT.rawValue && answer.acknowledgement == 3)
        #expect(answer.source_queue_pair == bench.pair.number && answer.destination_queue_pair == 0x500)
        send()
        #expect(try bench.state == IBV_QPS_INIT)
        #expect(port.receive() == nil)
        // The device's own: an abort when the queue pair is moved to ERR.
        try bench.createPair()
        #expect(uverbs_sim_connect(bench.driver.device, bench.pair.number, port.lid, 0x502, 0) == 0)
        try bench.modify({ $0.qp_state = IBV_QPS_ERR }, [IBV_QP_STATE])
        let abort = try #require(port.receive())
        #expect(abort.acknowledgement == 2 && abort.destination_queue_pair == 0x502)
    }

    @Test("the device acknowledges every random request to connected queue pairs, and continues to work")
    func fuzz() throws {
        let driver = try Driver("hfi1 wire=\(directory)")
        let queues = try HFI1Queues(driver)
        let port = try RawPort(directory)
        var generator = Generator(state: 0x5EED)
        func random(_ bound: UInt64) -> UInt64 { UInt64.random(in: 0..<bound, using: &generator) }
        var outstanding = 0
        var kinds = Set<UInt8>()
        for round in 0..<4000 {
            if round % 50 == 0 { try queues.connect(to: port.lid, 0x500) }
            var message = port.message
            message.kind = UInt8(random(6))
            message.operation = UInt8(random(9))
            message.acknowledgement = UInt8(random(8))
            message.flags = UInt8(random(16))
            message.service_level = UInt8(random(256))
            let numbers = [0x101, 0x101, 0x102, 0x103, 0xFF_FFFF, UInt32(random(1 << 32))]
            message.destination_queue_pair = numbers[Int(random(6))]
            message.psn = random(2) == 0 ? 0 : UInt32(random(1 << 32))
            message.serial = random(4)
            message.remote_address = random(2) == 0 ? queues.address : random(.max)
            message.remote_key = random(4) == 0 ? UInt32(random(1 << 32)) : queues.key
            message.qkey = random(2) == 0 ? 0x11 : UInt32(random(1 << 32))
            let bytes = [UInt8](repeating: 0xA5, count: Int(random(300)))
            message.length = random(3) == 0 ? random(1 << 31) : UInt64(bytes.count)
            let carries = random(3) > 0
            port.send(message, carries ? bytes : nil)
            let isRead = !carries || Int(message.length) == bytes.count
            if message.kind == SIM_WIRE_REQUEST.rawValue && message.length <= 1 << 30 && isRead { outstanding += 1 }
            _ = uverbs_sim_step(driver.device)
            while let response = port.receive() {
                #expect(response.kind == SIM_WIRE_ACKNOWLEDGEMENT.rawValue && response.source == 1)
                kinds.insert(response.acknowledgement)
                outstanding -= 1
            }
            try #require(outstanding == 0, "round \(round) of seed 0x5EED")
        }
        // ack, noResponse, rnrNAK, invalidRequest, remoteAccessError.
        #expect(kinds.isSuperset(of: [0, 1, 2, 3, 4]), "\(kinds)")
        _ = try driver.kernel.allocateDomain()
    }

    private struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }
}

/// Queue pairs of every service type and a memory region, over hfi1: QPNs 0x101 RC, 0x102 UC, 0x103 UD.
private final class HFI1Queues {
    private let driver: Driver
    private var pairs: [(handle: UInt32, type: ibv_qp_type)] = []
    private let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    let key: UInt32
    var address: UInt64 { UInt64(UInt(bitPattern: memory)) }

    init(_ driver: Driver) throws {
        self.driver = driver
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
        let context = try driver.kernel.getContext()
        let domain = try driver.kernel.allocateDomain()
        let access =
            IBV_ACCESS_LOCAL_WRITE.rawValue | IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
            | IBV_ACCESS_REMOTE_ATOMIC.rawValue
        key = try driver.kernel.registerMemory(
            domain: domain, address: memory, length: 4096, virtualAddress: UInt64(UInt(bitPattern: memory)),
            access: access
        ).rkey
        let handle = UnsafeRawPointer(bitPattern: 0x1000)!
        var offset: UInt64 = 0
        let request = CompletionQueueRequest(
            userHandle: handle, entries: 1000, asyncDescriptor: context.asyncDescriptor)
        let queue = try DriverData.response(&offset) { data throws(KernelError) in
            try driver.kernel.createCompletionQueue(request, driver: data)
        }.handle
        for type in [IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD] {
            let request = QueuePairRequest(
                userHandle: handle, type: type, domain: domain, sendCompletions: queue, receiveCompletions: queue,
                limits: ibv_qp_cap(
                    max_send_wr: 4, max_recv_wr: 4, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0),
                signalsAll: false, asyncDescriptor: context.asyncDescriptor)
            let pair = try DriverData.response(&offset) { data throws(KernelError) in
                try driver.kernel.createQueuePair(request, driver: data)
            }
            pairs.append((pair.handle, type))
        }
    }

    deinit { memory.deallocate() }

    /// Moves all queue pairs to RTR.
    func connect(to lid: UInt16, _ number: UInt32) throws {
        for (handle, type) in pairs {
            func modify(_ state: ibv_qp_state, _ bits: [ibv_qp_attr_mask] = []) throws {
                var attributes = ibv_qp_attr()
                attributes.qp_state = state
                attributes.port_num = 1
                attributes.qkey = 0x11
                attributes.path_mtu = IBV_MTU_1024
                attributes.ah_attr.port_num = 1
                attributes.ah_attr.dlid = lid
                attributes.dest_qp_num = number
                attributes.max_dest_rd_atomic = 4
                attributes.qp_access_flags =
                    IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
                    | IBV_ACCESS_REMOTE_ATOMIC.rawValue
                let mask = bits.reduce(IBV_QP_STATE.rawValue) { $0 | $1.rawValue }
                try driver.kernel.modifyQueuePair(handle, attributes, mask: mask)
            }
            try modify(IBV_QPS_RESET)
            try modify(
                IBV_QPS_INIT,
                [IBV_QP_PKEY_INDEX, IBV_QP_PORT, type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS])
            let connected = [IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN]
            switch type {
            case IBV_QPT_RC: try modify(IBV_QPS_RTR, connected + [IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER])
            case IBV_QPT_UC: try modify(IBV_QPS_RTR, connected)
            default: try modify(IBV_QPS_RTR)
            }
        }
    }
}
