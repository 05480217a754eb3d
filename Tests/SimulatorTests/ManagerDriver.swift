import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import Simulator
import Testing

/// A program that uses rdma_cm by its commands (rdma/rdma_user_cm.h), on a host with one simulated device.
final class ManagerDriver {
    let device: Int32
    let descriptor: Int32

    /// - Parameter description: Of the device, as for `uverbs_sim_create`.
    init(_ description: String) throws {
        device = uverbs_sim_create(description)
        try #require(device >= 0)
        descriptor = sim_open_manager(device)
        try #require(descriptor >= 0)
    }

    /// Another open descriptor of the same host.
    convenience init(beside other: ManagerDriver) throws { try self.init(on: other.device) }

    /// On a device that exists.
    init(on device: Int32) throws {
        self.device = device
        descriptor = sim_open_manager(device)
        try #require(descriptor >= 0)
    }

    deinit {
        sim_close(descriptor)
        close(descriptor)
    }

    var refusal: String { String(cString: uverbs_sim_refusal(device)) }

    // MARK: - Commands

    /// Writes a command. Returns the errno value.
    func write(
        _ command: Int, _ body: UnsafeRawBufferPointer, room: Int = 0, length: Int? = nil
    ) -> Int32 {
        var bytes: [UInt8] = []
        bytes.append(UInt32(command))
        bytes.append(UInt16(length ?? body.count))
        bytes.append(UInt16(room))
        bytes += body
        return bytes.withUnsafeBytes { sim_write(descriptor, $0.baseAddress, $0.count) }
    }

    func write<Value>(_ command: Int, _ value: Value, room: Int = 0) -> Int32 {
        withUnsafeBytes(of: value) { write(command, $0, room: room) }
    }

    /// Writes a command, whose struct `make` builds from the address of the response. Returns the response.
    func respond<Value, Response>(
        _ command: Int, _ response: Response, sourceLocation: SourceLocation = #_sourceLocation,
        _ make: (UInt64) -> Value
    ) throws -> Response {
        var response = response
        let error = withUnsafeMutableBytes(of: &response) { place in
            write(command, make(UInt64(UInt(bitPattern: place.baseAddress))), room: place.count)
        }
        try #require(error == 0, "\(refusal)", sourceLocation: sourceLocation)
        return response
    }

    /// Expects that a command fails with an errno value, and that the reason contains `why`.
    func expect(
        _ error: Int32, _ why: String, sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Int32
    ) rethrows {
        uverbs_sim_forgive(device)
        #expect(try body() == error, "\(refusal)", sourceLocation: sourceLocation)
        #expect(refusal.contains(why), "\(refusal)", sourceLocation: sourceLocation)
    }

    /// CREATE_ID. The program's pointer (`uid`) is 1000 plus the number.
    func create(_ space: rdma_ucm_port_space = RDMA_PS_TCP) throws -> UInt32 {
        let next = UInt64(1000 + created)
        created += 1
        let number = try respond(RDMA_USER_CM_CMD_CREATE_ID, rdma_ucm_create_id_resp()) { place in
            var request = rdma_ucm_create_id()
            request.uid = next
            request.response = place
            request.ps = UInt16(space.rawValue)
            request.qp_type = UInt8(IBV_QPT_RC.rawValue)
            return request
        }
        return number.id
    }
    private var created = 0

    /// DESTROY_ID. Returns the number of reported events.
    func destroy(_ id: UInt32) throws -> UInt32 {
        try respond(RDMA_USER_CM_CMD_DESTROY_ID, rdma_ucm_destroy_id_resp()) { place in
            var request = rdma_ucm_destroy_id()
            (request.response, request.id) = (place, id)
            return request
        }.events_reported
    }

    func bind(_ id: UInt32, _ address: sockaddr_in) -> Int32 {
        var request = rdma_ucm_bind()
        request.id = id
        request.addr_size = UInt16(MemoryLayout<sockaddr_in>.size)
        return withUnsafeMutableBytes(of: &request) { bytes in
            bytes.storeBytes(of: address, toByteOffset: Int(SIM_CM_BIND_ADDRESS), as: sockaddr_in.self)
            return write(RDMA_USER_CM_CMD_BIND, UnsafeRawBufferPointer(bytes))
        }
    }

    func listen(_ id: UInt32, backlog: UInt32 = 0) -> Int32 {
        write(RDMA_USER_CM_CMD_LISTEN, rdma_ucm_listen(id: id, backlog: backlog))
    }

    /// An identifier that listens at a port of all addresses.
    func makeListener(_ space: rdma_ucm_port_space = RDMA_PS_TCP, port: UInt16, backlog: UInt32 = 0) throws -> UInt32 {
        let listener = try create(space)
        try #require(bind(listener, .any(port)) == 0, "\(refusal)")
        try #require(listen(listener, backlog: backlog) == 0, "\(refusal)")
        return listener
    }

    func resolve(_ id: UInt32, to address: sockaddr_in) -> Int32 {
        var request = rdma_ucm_resolve_addr()
        request.id = id
        request.dst_size = UInt16(MemoryLayout<sockaddr_in>.size)
        request.timeout_ms = 2000
        return withUnsafeMutableBytes(of: &request) { bytes in
            bytes.storeBytes(of: address, toByteOffset: Int(SIM_CM_RESOLVE_ADDR_DESTINATION), as: sockaddr_in.self)
            return write(RDMA_USER_CM_CMD_RESOLVE_ADDR, UnsafeRawBufferPointer(bytes))
        }
    }

    func resolveRoute(_ id: UInt32) -> Int32 {
        write(RDMA_USER_CM_CMD_RESOLVE_ROUTE, rdma_ucm_resolve_route(id: id, timeout_ms: 2000))
    }

    /// An identifier with a resolved route to an address.
    func makeRouted(_ space: rdma_ucm_port_space = RDMA_PS_TCP, to address: sockaddr_in) throws -> UInt32 {
        let id = try create(space)
        try #require(resolve(id, to: address) == 0, "\(refusal)")
        try expectEvent(.addressResolved, id)
        try #require(resolveRoute(id) == 0, "\(refusal)")
        try expectEvent(.routeResolved, id)
        return id
    }

    func connect(_ id: UInt32, _ parameters: rdma_ucm_conn_param) -> Int32 {
        var request = rdma_ucm_connect()
        (request.id, request.conn_param) = (id, parameters)
        return write(RDMA_USER_CM_CMD_CONNECT, request)
    }

    /// ACCEPT; without parameters, of a reply.
    func accept(_ id: UInt32, _ parameters: rdma_ucm_conn_param?, uid: UInt64 = 77) -> Int32 {
        var request = rdma_ucm_accept()
        (request.id, request.uid) = (id, uid)
        if let parameters { request.conn_param = parameters }
        return write(RDMA_USER_CM_CMD_ACCEPT, request)
    }

    func reject(_ id: UInt32, _ data: [UInt8] = [], reason: UInt8 = 0) -> Int32 {
        var request = rdma_ucm_reject()
        (request.id, request.reason, request.private_data_len) = (id, reason, UInt8(data.count))
        withUnsafeMutableBytes(of: &request.private_data) { $0.copyBytes(from: data) }
        return write(RDMA_USER_CM_CMD_REJECT, request)
    }

    func disconnect(_ id: UInt32) -> Int32 { write(RDMA_USER_CM_CMD_DISCONNECT, rdma_ucm_disconnect(id: id)) }

    func notify(_ id: UInt32, _ event: ibv_event_type) -> Int32 {
        write(RDMA_USER_CM_CMD_NOTIFY, rdma_ucm_notify(id: id, event: event.rawValue))
    }

    func attributes(_ id: UInt32, _ state: ibv_qp_state) throws -> ib_uverbs_qp_attr {
        try respond(RDMA_USER_CM_CMD_INIT_QP_ATTR, ib_uverbs_qp_attr()) { place in
            rdma_ucm_init_qp_attr(response: place, id: id, qp_state: state.rawValue)
        }
    }

    func set<Value>(_ id: UInt32, _ level: Int, _ option: Int, _ value: Value) -> Int32 {
        withUnsafeBytes(of: value) { bytes in
            write(
                RDMA_USER_CM_CMD_SET_OPTION,
                rdma_ucm_set_option(
                    optval: UInt64(UInt(bitPattern: bytes.baseAddress)), id: id, level: UInt32(level),
                    optname: UInt32(option), optlen: UInt32(bytes.count)))
        }
    }

    // MARK: - Events

    /// GET_EVENT; nil: EAGAIN.
    func event() throws -> rdma_ucm_event_resp? {
        var response = rdma_ucm_event_resp()
        let error = withUnsafeMutableBytes(of: &response) { place in
            write(
                RDMA_USER_CM_CMD_GET_EVENT,
                rdma_ucm_get_event(response: UInt64(UInt(bitPattern: place.baseAddress))), room: place.count)
        }
        if error == EAGAIN { return nil }
        try #require(error == 0, "\(refusal)")
        return response
    }

    /// The next event, which must be of this type and, unless that is nil, of this identifier.
    @discardableResult
    func expectEvent(
        _ type: EventType, _ id: UInt32? = nil, status: Int32 = 0, sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> rdma_ucm_event_resp {
        let event = try #require(try event(), "no event", sourceLocation: sourceLocation)
        try #require(
            EventType(rawValue: event.event) == type, "\(EventType(rawValue: event.event)!), \(event.status)",
            sourceLocation: sourceLocation)
        if let id { #expect(event.id == id, sourceLocation: sourceLocation) }
        #expect(Int32(bitPattern: event.status) == status, sourceLocation: sourceLocation)
        return event
    }

    /// `enum rdma_cm_event_type`.
    enum EventType: UInt32 {
        case addressResolved, addressError, routeResolved, routeError, connectRequest, connectResponse, connectError,
            unreachable, rejected, established, disconnected, deviceRemoval, multicastJoin, multicastError,
            addressChange, timeWaitExit
    }
}

extension sockaddr_in {
    init(_ address: UInt32, _ port: UInt16) {
        self.init()
        sin_family = UInt16(AF_INET)
        sin_port = port.bigEndian
        sin_addr.s_addr = address.bigEndian
    }

    static func any(_ port: UInt16) -> sockaddr_in { sockaddr_in(0, port) }
    static func loopback(_ port: UInt16) -> sockaddr_in { sockaddr_in(0x7F00_0001, port) }
    /// The simulated port with this LID.
    static func port(_ lid: UInt16, _ port: UInt16) -> sockaddr_in { sockaddr_in(0xC612_0000 + UInt32(lid), port) }
}

extension rdma_ucm_conn_param {
    init(queuePair: UInt32, _ data: [UInt8] = []) {
        self.init()
        qp_num = queuePair
        (responder_resources, initiator_depth) = (3, 5)
        (retry_count, rnr_retry_count) = (6, 4)
        valid = 1
        private_data_len = UInt8(data.count)
        withUnsafeMutableBytes(of: &private_data) { $0.copyBytes(from: data) }
    }

    var data: [UInt8] { withUnsafeBytes(of: private_data) { Array($0.prefix(Int(private_data_len))) } }
}
