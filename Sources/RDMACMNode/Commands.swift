import CIBVerbs
import CRDMACM
import CRDMACMNode
import Glibc
import SoftwareConnections
import SystemPackage

extension Node {
    func perform(_ command: Command, _ file: File, _ state: inout State) throws(Errno) {
        switch command.number {
        case RDMA_USER_CM_CMD_CREATE_ID: try createIdentifier(command, file, &state)
        case RDMA_USER_CM_CMD_DESTROY_ID: try destroyIdentifier(command, file, &state)
        case RDMA_USER_CM_CMD_BIND_IP: try bindIP(command, file, state)
        case RDMA_USER_CM_CMD_BIND: try bind(command, file, state)
        case RDMA_USER_CM_CMD_RESOLVE_IP: try resolveIP(command, file, state)
        case RDMA_USER_CM_CMD_RESOLVE_ADDR: try resolveAddress(command, file, state)
        case RDMA_USER_CM_CMD_RESOLVE_ROUTE:
            try check(service.resolveRoute(software(try command.load(rdma_ucm_resolve_route.self).id, file, state)))
        case RDMA_USER_CM_CMD_QUERY_ROUTE: try queryRoute(command, file, state)
        case RDMA_USER_CM_CMD_QUERY: try query(command, file, state)
        case RDMA_USER_CM_CMD_CONNECT: try connect(command, file, state)
        case RDMA_USER_CM_CMD_LISTEN: try listen(command, file, state)
        case RDMA_USER_CM_CMD_ACCEPT: try accept(command, file, state)
        case RDMA_USER_CM_CMD_REJECT: try reject(command, file, state)
        case RDMA_USER_CM_CMD_DISCONNECT:
            try disconnect(try software(try command.load(rdma_ucm_disconnect.self).id, file, state))
        case RDMA_USER_CM_CMD_INIT_QP_ATTR: try initializeAttributes(command, file, state)
        case RDMA_USER_CM_CMD_GET_EVENT: try readEvent(command, file, &state)
        case RDMA_USER_CM_CMD_SET_OPTION: try setOption(command, file, state)
        case RDMA_USER_CM_CMD_NOTIFY:
            let request = try command.load(rdma_ucm_notify.self)
            let identifier = try software(request.id, file, state)
            guard request.event == IBV_EVENT_COMM_EST.rawValue else { throw .invalidArgument }
            try check(service.noteCommunication(identifier))
        case RDMA_USER_CM_CMD_JOIN_IP_MCAST: try joinIP(command, file, &state)
        case RDMA_USER_CM_CMD_JOIN_MCAST: try join(command, file, &state)
        case RDMA_USER_CM_CMD_LEAVE_MCAST: try leave(command, file, &state)
        case RDMA_USER_CM_CMD_MIGRATE_ID: try migrate(command, file, state)
        // GET_OPTION, which the kernel does not have either.
        default: throw .noFunction
        }
    }

    /// The identifier of that number, if it belongs to the descriptor.
    private func identifier(_ number: UInt32, _ file: File, _ state: State) throws(Errno) -> Identifier {
        guard let identifier = state.identifiers[number] else { throw .noSuchFileOrDirectory }
        guard identifier.file === file else { throw .invalidArgument }
        return identifier
    }

    func software(_ number: UInt32, _ file: File, _ state: State) throws(Errno) -> SoftwareIdentifier {
        try identifier(number, file, state).software
    }

    private func check(_ code: Int32) throws(Errno) {
        if code != 0 { throw Errno(rawValue: code) }
    }

    // MARK: - Identifiers

    private func createIdentifier(_ command: Command, _ file: File, _ state: inout State) throws(Errno) {
        try command.requireRoom(MemoryLayout<rdma_ucm_create_id_resp>.size)
        let request = try command.load(rdma_ucm_create_id.self)
        try command.requireResponse(at: request.response)
        let space = rdma_port_space(rawValue: UInt32(request.ps))
        let type: ibv_qp_type
        switch space {
        case RDMA_PS_TCP: type = IBV_QPT_RC
        case RDMA_PS_UDP, RDMA_PS_IPOIB: type = IBV_QPT_UD
        case RDMA_PS_IB: type = ibv_qp_type(rawValue: UInt32(request.qp_type))
        default: throw .invalidArgument
        }
        let new = SoftwareIdentifier(service, channel: file.channel, portSpace: space, type: type)
        try command.respond(at: request.response, add(new, file, userWord: request.uid, &state).number)
    }

    /// Gives an identifier of the service a number.
    private func add(
        _ software: SoftwareIdentifier, _ file: File, userWord: UInt64, _ state: inout State
    ) -> Identifier {
        let number = state.identifiers.next
        let identifier = Identifier(number: number, file: file, software: software, userWord: userWord)
        state.identifiers[number] = identifier
        state.numbers[ObjectIdentifier(software)] = number
        return identifier
    }

    private func destroyIdentifier(_ command: Command, _ file: File, _ state: inout State) throws(Errno) {
        try command.requireRoom(MemoryLayout<rdma_ucm_destroy_id_resp>.size)
        let request = try command.load(rdma_ucm_destroy_id.self)
        try command.requireResponse(at: request.response)
        let identifier = try identifier(request.id, file, state)
        destroy(identifier, &state)
        try command.respond(at: request.response, identifier.eventsReported)
    }

    func destroy(_ identifier: Identifier, _ state: inout State) {
        service.destroy(identifier.software)
        for membership in state.memberships.values where membership.identifier === identifier {
            state.memberships[membership.number] = nil
        }
        state.identifiers[identifier.number] = nil
        state.numbers[ObjectIdentifier(identifier.software)] = nil
    }

    private func migrate(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        let request = try command.load(rdma_ucm_migrate_id.self)
        try command.requireRoom(MemoryLayout<rdma_ucm_migrate_resp>.size)
        try command.requireResponse(at: request.response)
        guard let former = state.files[Int32(bitPattern: request.fd)] else { throw .invalidArgument }
        let identifier = try identifier(request.id, former, state)
        if former !== file {
            service.migrate(identifier.software, to: file.channel)
            identifier.file = file
        }
        try command.respond(at: request.response, identifier.eventsReported)
    }

    // MARK: - Addresses

    private func bindIP(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        try command.require(RDMA_CM_NODE_BIND_IP_SIZE)
        let address = try command.address(at: RDMA_CM_NODE_BIND_IP_ADDRESS, MemoryLayout<sockaddr_in6>.size)
        let number = command.load(at: RDMA_CM_NODE_BIND_IP_ID, as: UInt32.self)
        try check(service.bind(software(number, file, state), address))
    }

    private func bind(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        try command.require(RDMA_CM_NODE_BIND_SIZE)
        guard command.load(at: RDMA_CM_NODE_BIND_RESERVED, as: UInt16.self) == 0 else { throw .invalidArgument }
        let address = try command.address(
            at: RDMA_CM_NODE_BIND_ADDRESS, MemoryLayout<sockaddr_storage>.size,
            size: command.load(at: RDMA_CM_NODE_BIND_ADDRESS_SIZE, as: UInt16.self))
        let number = command.load(at: RDMA_CM_NODE_BIND_ID, as: UInt32.self)
        try check(service.bind(software(number, file, state), address))
    }

    private func resolveIP(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        try command.require(RDMA_CM_NODE_RESOLVE_IP_SIZE)
        let size = MemoryLayout<sockaddr_in6>.size
        let hasSource = command.load(at: RDMA_CM_NODE_RESOLVE_IP_SOURCE, as: sa_family_t.self) != 0
        let source = hasSource ? try command.address(at: RDMA_CM_NODE_RESOLVE_IP_SOURCE, size) : nil
        let peer = try command.address(at: RDMA_CM_NODE_RESOLVE_IP_DESTINATION, size)
        let number = command.load(at: RDMA_CM_NODE_RESOLVE_IP_ID, as: UInt32.self)
        try check(service.resolveAddress(software(number, file, state), peer, from: source))
    }

    private func resolveAddress(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        try command.require(RDMA_CM_NODE_RESOLVE_ADDR_SIZE)
        guard command.load(at: RDMA_CM_NODE_RESOLVE_ADDR_RESERVED, as: UInt32.self) == 0 else { throw .invalidArgument }
        let size = MemoryLayout<sockaddr_storage>.size
        let sourceSize = command.load(at: RDMA_CM_NODE_RESOLVE_ADDR_SOURCE_SIZE, as: UInt16.self)
        let peerSize = command.load(at: RDMA_CM_NODE_RESOLVE_ADDR_DESTINATION_SIZE, as: UInt16.self)
        let source =
            sourceSize == 0
            ? nil : try command.address(at: RDMA_CM_NODE_RESOLVE_ADDR_SOURCE, size, size: sourceSize)
        let peer = try command.address(at: RDMA_CM_NODE_RESOLVE_ADDR_DESTINATION, size, size: peerSize)
        let identifier = try software(command.load(at: RDMA_CM_NODE_RESOLVE_ADDR_ID, as: UInt32.self), file, state)
        try check(service.resolveAddress(identifier, peer, from: source))
    }

    // MARK: - Connections

    private func connect(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        let request = try command.load(rdma_ucm_connect(), least: RDMA_CM_NODE_CONNECT_SIZE)
        let identifier = try software(request.id, file, state)
        guard request.conn_param.valid != 0 else { throw .invalidArgument }
        // A request begins with the addresses (`struct cma_hdr`).
        let limit = identifier.isDatagram ? 180 : 56
        try check(
            service.connect(
                identifier, rdma_conn_param(request.conn_param), try privateData(request.conn_param, limit)))
    }

    private func listen(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        let request = try command.load(rdma_ucm_listen.self)
        let identifier = try software(request.id, file, state)
        // As the kernel: an identifier that is not bound listens at every IPv4 address.
        if service.view(of: identifier).local == nil {
            try check(service.bind(identifier, .anyIPv4(port: 0)))
        }
        try check(service.listen(identifier, backlog: Int32(clamping: request.backlog)))
        let port = service.view(of: identifier).local?.port ?? 0
        report(
            "a program listens at port \(port), port space 0x\(String(identifier.raw.pointee.ps.rawValue, radix: 16))")
    }

    private func accept(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        let request = try command.load(rdma_ucm_accept(), least: RDMA_CM_NODE_ACCEPT_SIZE)
        let identifier = try identifier(request.id, file, state)
        // rdma_establish(3), after CONNECT_RESPONSE.
        guard request.conn_param.valid != 0 else { return try check(service.establish(identifier.software)) }
        let limit = identifier.software.isDatagram ? 136 : 196
        let data = try privateData(request.conn_param, limit)
        // Before the first event that the acceptance causes.
        let former = identifier.userWord
        identifier.userWord = request.uid
        do throws(Errno) {
            try check(service.accept(identifier.software, rdma_conn_param(request.conn_param), data))
        } catch {
            identifier.userWord = former
            throw error
        }
    }

    private func privateData(_ parameters: rdma_ucm_conn_param, _ limit: Int) throws(Errno) -> [UInt8] {
        let count = Int(parameters.private_data_len)
        guard count <= limit else { throw .invalidArgument }
        return withUnsafeBytes(of: parameters.private_data) { Array($0[..<count]) }
    }

    private func reject(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        let request = try command.load(rdma_ucm_reject.self)
        let identifier = try software(request.id, file, state)
        // 28: consumer; 35: vendor option not supported (rdma_reject_ece(3)).
        guard [0, 28, 35].contains(request.reason), Int(request.private_data_len) <= (identifier.isDatagram ? 136 : 148)
        else { throw .invalidArgument }
        let data = command.body[RDMA_CM_NODE_REJECT_DATA..<RDMA_CM_NODE_REJECT_DATA + Int(request.private_data_len)]
        try check(service.reject(identifier, Array(data), reason: request.reason == 0 ? 28 : UInt16(request.reason)))
    }

    /// As the kernel: a connection that has ended already is no error.
    private func disconnect(_ identifier: SoftwareIdentifier) throws(Errno) {
        guard service.view(of: identifier).hasConnection else { throw .invalidArgument }
        _ = service.disconnect(identifier)
    }

    private func initializeAttributes(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        try command.requireRoom(MemoryLayout<ib_uverbs_qp_attr>.size)
        let request = try command.load(rdma_ucm_init_qp_attr.self)
        guard request.qp_state <= IBV_QPS_ERR.rawValue else { throw .invalidArgument }
        let identifier = try software(request.id, file, state)
        guard service.view(of: identifier).device != nil else { throw .invalidArgument }
        let (code, values, mask) = service.attributes(of: identifier, for: ibv_qp_state(rawValue: request.qp_state))
        try check(code)
        try command.respond(at: request.response, ib_uverbs_qp_attr(values, mask: mask))
    }

    // MARK: - Options

    private func setOption(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        let request = try command.load(rdma_ucm_set_option.self)
        let identifier = try software(request.id, file, state)
        guard request.optlen <= 4096 else { throw .invalidArgument }
        guard let start = UnsafeRawPointer(bitPattern: UInt(request.optval)) else { throw .badAddress }
        let value = UnsafeRawBufferPointer(start: start, count: Int(request.optlen))
        func byte() throws(Errno) -> UInt8 {
            guard value.count == 1 else { throw .invalidArgument }
            return value[0]
        }
        func flag() throws(Errno) -> Bool {
            guard value.count == 4 else { throw .invalidArgument }
            return value.loadUnaligned(as: Int32.self) != 0
        }
        switch (Int(request.level), Int(request.optname)) {
        case (RDMA_UCM_OPTION_ID, RDMA_UCM_OPTION_ID_TOS):
            service.set(SoftwareOptions(typeOfService: try byte()), of: identifier)
        case (RDMA_UCM_OPTION_ID, RDMA_UCM_OPTION_ID_REUSEADDR):
            // A port is free as soon as its identifier is destroyed. It is not shared among several.
            _ = try flag()
        case (RDMA_UCM_OPTION_ID, RDMA_UCM_OPTION_ID_AFONLY):
            service.set(SoftwareOptions(isIPv6Only: try flag()), of: identifier)
        case (RDMA_UCM_OPTION_ID, RDMA_UCM_OPTION_ID_ACK_TIMEOUT):
            let timeout = try byte()
            guard identifier.type == IBV_QPT_RC, timeout <= 31 else { throw .invalidArgument }
            service.set(SoftwareOptions(acknowledgeTimeout: timeout), of: identifier)
        // RDMA_OPTION_IB_PATH too: the path between two addresses is known.
        default: throw .noFunction
        }
    }

    // MARK: - Multicast

    private func joinIP(_ command: Command, _ file: File, _ state: inout State) throws(Errno) {
        try command.require(RDMA_CM_NODE_JOIN_IP_SIZE)
        let group = try command.address(at: RDMA_CM_NODE_JOIN_IP_ADDRESS, MemoryLayout<sockaddr_in6>.size)
        try join(command, group, command.load(at: RDMA_CM_NODE_JOIN_IP_ID, as: UInt32.self), file, &state)
    }

    private func join(_ command: Command, _ file: File, _ state: inout State) throws(Errno) {
        try command.require(RDMA_CM_NODE_JOIN_SIZE)
        let flags = Int(command.load(at: RDMA_CM_NODE_JOIN_FLAGS, as: UInt16.self))
        guard flags < RDMA_UCM_MC_JOIN_FLAG_RESERVED else { throw .invalidArgument }
        let group = try command.address(
            at: RDMA_CM_NODE_JOIN_ADDRESS, MemoryLayout<sockaddr_storage>.size,
            size: command.load(at: RDMA_CM_NODE_JOIN_ADDRESS_SIZE, as: UInt16.self))
        try join(command, group, command.load(at: RDMA_CM_NODE_JOIN_ID, as: UInt32.self), file, &state)
    }

    private func join(
        _ command: Command, _ group: SocketAddress, _ number: UInt32, _ file: File, _ state: inout State
    ) throws(Errno) {
        try command.requireRoom(MemoryLayout<rdma_ucm_create_id_resp>.size)
        let response = command.load(at: RDMA_CM_NODE_JOIN_RESPONSE, as: UInt64.self)
        try command.requireResponse(at: response)
        let identifier = try identifier(number, file, state)
        let membership = Membership(
            number: state.memberships.next, identifier: identifier,
            userWord: command.load(at: RDMA_CM_NODE_JOIN_UID, as: UInt64.self), group: group)
        try check(service.join(identifier.software, group))
        state.memberships[membership.number] = membership
        try command.respond(at: response, membership.number)
    }

    private func leave(_ command: Command, _ file: File, _ state: inout State) throws(Errno) {
        try command.requireRoom(MemoryLayout<rdma_ucm_destroy_id_resp>.size)
        let request = try command.load(rdma_ucm_destroy_id.self)
        try command.requireResponse(at: request.response)
        guard let membership = state.memberships[request.id] else { throw .noSuchFileOrDirectory }
        guard membership.identifier.file === file else { throw .invalidArgument }
        state.memberships[membership.number] = nil
        try check(service.leave(membership.identifier.software, membership.group))
        try command.respond(at: request.response, membership.eventsReported)
    }

    // MARK: - Events

    private func readEvent(_ command: Command, _ file: File, _ state: inout State) throws(Errno) {
        let request: rdma_ucm_get_event
        do throws(Errno) {
            try command.requireRoom(RDMA_CM_NODE_EVENT_RESERVED)
            request = try command.load(rdma_ucm_get_event.self)
            try command.requireResponse(at: request.response)
        } catch {
            // The event still waits, and the caller has read its count.
            file.channel.countAgain()
            throw error
        }
        guard let event = file.channel.pop(isCounted: true), let response = translate(event, file, &state) else {
            throw .resourceTemporarilyUnavailable
        }
        try command.respond(at: request.response, response)
    }

    /// The event as a program reads it; nil for an identifier that is destroyed.
    private func translate(_ event: SoftwareEvent, _ file: File, _ state: inout State) -> rdma_ucm_event_resp? {
        // The identifier that counts the event: of a request, the listener.
        let counting = event.listener ?? event.identifier
        guard let number = state.numbers[ObjectIdentifier(counting)], let identifier = state.identifiers[number] else {
            return nil
        }
        var response = rdma_ucm_event_resp()
        (response.uid, response.id) = (identifier.userWord, identifier.number)
        if event.listener != nil { response.id = add(event.identifier, file, userWord: 0, &state).number }
        if let group = event.group {
            guard
                let membership = state.memberships.values.first(where: {
                    $0.identifier === identifier && $0.group == group && $0.eventsReported == 0
                })
            else { return nil }
            membership.eventsReported += 1
            (response.uid, response.id) = (membership.userWord, membership.number)
        }
        identifier.eventsReported &+= 1
        response.event = event.type.rawValue
        response.status = UInt32(bitPattern: event.status)
        if event.identifier.isDatagram {
            response.param.ud = rdma_ucm_ud_param(event.datagram, event.privateData)
        } else {
            response.param.conn = rdma_ucm_conn_param(event.connection, event.privateData)
        }
        return response
    }
}
