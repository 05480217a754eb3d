import CSimulator

/// A command of rdma_cm: the bytes after its header (`struct rdma_ucm_cmd_hdr`).
struct ManagerCommand {
    let number: UInt32
    let body: UnsafeRawBufferPointer
    /// `rdma_ucm_cmd_hdr.in`: the length that the program states.
    let length: Int
    /// `rdma_ucm_cmd_hdr.out`: room for the response.
    let room: Int

    /// Checks the header.
    init(_ bytes: UnsafeRawBufferPointer) throws(Refusal) {
        try demand(bytes.count >= 8, EINVAL, "shorter than a header, in bytes", has: bytes.count, wants: 8)
        let header = bytes.load(0, as: rdma_ucm_cmd_hdr.self)
        number = header.cmd
        try demand(
            number <= UInt32(RDMA_USER_CM_CMD_JOIN_MCAST), EINVAL, "rdma_cm has no such command", has: Int(number))
        (length, room) = (Int(header.in), Int(header.out))
        try demand(
            length + 8 <= bytes.count, EINVAL, "the header has a greater length than was written, in bytes",
            has: length + 8, wants: bytes.count)
        body = UnsafeRawBufferPointer(rebasing: bytes[8...])
    }

    /// The command's struct. The kernel reads all of it, whatever length the header has.
    func load<Value>(_ type: Value.Type) throws(Refusal) -> Value {
        try demandBody(MemoryLayout<Value>.size)
        return body.load(0, as: type)
    }

    func demandBody(_ size: Int) throws(Refusal) {
        try demand(
            body.count >= size, EFAULT, "shorter than the command's struct, in bytes", has: body.count, wants: size)
    }

    /// The socket address at an offset.
    func address(_ offset: Int, size: Int) throws(Refusal) -> sim_cm_address {
        let bytes = UnsafeRawBufferPointer(rebasing: body[offset..<(offset + size)])
        guard let address = sim_cm_address(bytes) else {
            throw Refusal(
                EINVAL, "rdma_cm does not support this address family", has: Int(bytes.load(0, as: UInt16.self)))
        }
        return address
    }

    /// Checks that the response has room for `size` bytes.
    func demandRoom(_ size: Int) throws(Refusal) {
        try demand(room >= size, ENOSPC, "less room than the response needs, in bytes", has: room, wants: size)
    }

    /// Writes the response, cut to its room.
    func respond(at address: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Refusal) {
        let count = min(room, bytes.count)
        guard count > 0 else { return }
        try demand(
            sim_is_mapped(address, UInt64(count), true), EFAULT, "the address of the response is not writable memory")
        UnsafeMutableRawPointer(bitPattern: UInt(address))!.copyMemory(from: bytes.baseAddress!, byteCount: count)
    }

    func respond<Value>(at address: UInt64, _ value: Value) throws(Refusal) {
        var refusal: Refusal?
        withUnsafeBytes(of: value) { bytes in
            do throws(Refusal) { try respond(at: address, bytes) } catch { refusal = error }
        }
        if let refusal { throw refusal }
    }
}

extension ManagerFile {
    /// write(2) of a command. EAGAIN: GET_EVENT, and no event is waiting.
    func write(_ bytes: UnsafeRawBufferPointer) throws(Refusal) {
        let command = try ManagerCommand(bytes)
        switch Int(command.number) {
        case RDMA_USER_CM_CMD_CREATE_ID: try createIdentifier(command)
        case RDMA_USER_CM_CMD_DESTROY_ID: try destroyIdentifier(command)
        case RDMA_USER_CM_CMD_BIND_IP, RDMA_USER_CM_CMD_BIND: try bind(command)
        case RDMA_USER_CM_CMD_RESOLVE_IP: try resolveIP(command)
        case RDMA_USER_CM_CMD_RESOLVE_ADDR: try resolveAddress(command)
        case RDMA_USER_CM_CMD_RESOLVE_ROUTE:
            let request = try command.load(rdma_ucm_resolve_route.self)
            try manager.resolveRoute(try identifierOnDevice(request.id), timeout: request.timeout_ms)
        case RDMA_USER_CM_CMD_QUERY_ROUTE: try queryRoute(command)
        case RDMA_USER_CM_CMD_QUERY: try query(command)
        case RDMA_USER_CM_CMD_LISTEN:
            let request = try command.load(rdma_ucm_listen.self)
            try manager.listen(try identifier(request.id), backlog: request.backlog)
        case RDMA_USER_CM_CMD_CONNECT: try connect(command)
        case RDMA_USER_CM_CMD_ACCEPT: try accept(command)
        case RDMA_USER_CM_CMD_REJECT: try reject(command)
        case RDMA_USER_CM_CMD_DISCONNECT:
            try manager.disconnect(try identifierOnDevice(try command.load(rdma_ucm_disconnect.self).id))
        case RDMA_USER_CM_CMD_INIT_QP_ATTR: try initializeAttributes(command)
        case RDMA_USER_CM_CMD_GET_EVENT: try readEvent(command)
        case RDMA_USER_CM_CMD_SET_OPTION: try setOption(command)
        case RDMA_USER_CM_CMD_NOTIFY:
            let request = try command.load(rdma_ucm_notify.self)
            try manager.notify(try identifier(request.id), event: request.event)
        case RDMA_USER_CM_CMD_JOIN_IP_MCAST, RDMA_USER_CM_CMD_JOIN_MCAST: try join(command)
        case RDMA_USER_CM_CMD_LEAVE_MCAST: try leave(command)
        case RDMA_USER_CM_CMD_MIGRATE_ID: try migrate(command)
        default: throw Refusal(ENOSYS, "this kernel does not have the command", has: Int(command.number))
        }
    }

    private func identifier(_ number: UInt32) throws(Refusal) -> Identifier {
        let identifier = try manager.identifier(number, self)
        try demand(identifier.state != .deviceRemoved, ENXIO, "the device of the identifier has failed")
        return identifier
    }

    private func identifierOnDevice(_ number: UInt32) throws(Refusal) -> Identifier {
        let identifier = try identifier(number)
        try demand(identifier.device != nil, EINVAL, "the identifier has no device", has: Int(number))
        return identifier
    }

    // MARK: - Identifiers

    private func createIdentifier(_ command: ManagerCommand) throws(Refusal) {
        try command.demandRoom(4)
        let request = try command.load(rdma_ucm_create_id.self)
        let type: UInt32
        switch request.ps {
        case PortSpace.tcp: type = IBV_QPT_RC.rawValue
        case PortSpace.udp, PortSpace.ipoib: type = IBV_QPT_UD.rawValue
        case PortSpace.ib: type = UInt32(request.qp_type)
        default: throw Refusal(EINVAL, "there is no such port space", has: Int(request.ps))
        }
        let identifier = manager.makeIdentifier(self, userID: request.uid, space: request.ps, type: type)
        do throws(Refusal) { try command.respond(at: request.response, identifier.number) } catch {
            manager.destroy(identifier)
            throw error
        }
    }

    private func destroyIdentifier(_ command: ManagerCommand) throws(Refusal) {
        try command.demandRoom(4)
        let request = try command.load(rdma_ucm_destroy_id.self)
        let reported = manager.destroy(try manager.identifier(request.id, self))
        try command.respond(at: request.response, reported)
    }

    private func migrate(_ command: ManagerCommand) throws(Refusal) {
        let request = try command.load(rdma_ucm_migrate_id.self)
        guard case .manager(let former) = simulation.entry(Int32(bitPattern: request.fd)), former.manager === manager
        else {
            throw Refusal(EINVAL, "the descriptor is none of rdma_cm", has: Int(request.fd))
        }
        let identifier = try manager.identifier(request.id, former)
        identifier.file = self
        for event in former.take(where: { $0.identifier === identifier }) { add(event) }
        try command.respond(at: request.response, identifier.eventsReported)
    }

    // MARK: - Addresses

    private func bind(_ command: ManagerCommand) throws(Refusal) {
        if Int(command.number) == RDMA_USER_CM_CMD_BIND_IP {
            try command.demandBody(SIM_CM_BIND_IP_SIZE)
            let address = try command.address(SIM_CM_BIND_IP_ADDRESS, size: MemoryLayout<sockaddr_in6>.size)
            let number = command.body.load(SIM_CM_BIND_IP_ID, as: UInt32.self)
            return try manager.bind(try identifier(number), to: address)
        }
        try command.demandBody(SIM_CM_BIND_SIZE)
        let (number, size) = (command.body.load(0, as: UInt32.self), command.body.load(4, as: UInt16.self))
        try demand(command.body.load(6, as: UInt16.self) == 0, EINVAL, "a reserved field is not zero")
        let address = try command.address(SIM_CM_BIND_ADDRESS, size: 128)
        try demandSize(size, address)
        try manager.bind(try identifier(number), to: address)
    }

    private func demandSize(_ size: UInt16, _ address: sim_cm_address) throws(Refusal) {
        let wanted = sim_cm_address_size(address.family)
        try demand(
            Int(size) == wanted, EINVAL, "another length than an address of its family has, in bytes",
            has: Int(size), wants: wanted)
    }

    private func resolveIP(_ command: ManagerCommand) throws(Refusal) {
        try command.demandBody(SIM_CM_RESOLVE_IP_SIZE)
        let size = MemoryLayout<sockaddr_in6>.size
        let hasSource = command.body.load(SIM_CM_RESOLVE_IP_SOURCE, as: UInt16.self) != 0
        let source = hasSource ? try command.address(SIM_CM_RESOLVE_IP_SOURCE, size: size) : nil
        let destination = try command.address(SIM_CM_RESOLVE_IP_DESTINATION, size: size)
        let identifier = try identifier(command.body.load(SIM_CM_RESOLVE_IP_ID, as: UInt32.self))
        try manager.resolve(identifier, from: source, to: destination)
    }

    private func resolveAddress(_ command: ManagerCommand) throws(Refusal) {
        try command.demandBody(SIM_CM_RESOLVE_ADDR_SIZE)
        let (sourceSize, destinationSize) = (
            command.body.load(8, as: UInt16.self), command.body.load(10, as: UInt16.self)
        )
        try demand(command.body.load(12, as: UInt32.self) == 0, EINVAL, "a reserved field is not zero")
        var source: sim_cm_address?
        if sourceSize != 0 {
            source = try command.address(SIM_CM_RESOLVE_ADDR_SOURCE, size: 128)
            try demandSize(sourceSize, source!)
        }
        let destination = try command.address(SIM_CM_RESOLVE_ADDR_DESTINATION, size: 128)
        try demandSize(destinationSize, destination)
        try manager.resolve(try identifier(command.body.load(0, as: UInt32.self)), from: source, to: destination)
    }

    private func queryRoute(_ command: ManagerCommand) throws(Refusal) {
        try command.demandRoom(SIM_CM_QUERY_ROUTE_INDEX)
        let request = try command.load(rdma_ucm_query.self)
        let identifier = try identifier(request.id)
        try respond(command, at: request.response, SIM_CM_QUERY_ROUTE_SIZE) { bytes in
            identifier.queryRoute(bytes)
            return bytes.count
        }
    }

    private func query(_ command: ManagerCommand) throws(Refusal) {
        let request = try command.load(rdma_ucm_query.self)
        let identifier = try identifier(request.id)
        switch Int(request.option) {
        case RDMA_USER_CM_QUERY_ADDR:
            try command.demandRoom(SIM_CM_QUERY_ADDR_INDEX)
            try respond(command, at: request.response, SIM_CM_QUERY_ADDR_SIZE) { bytes in
                identifier.queryAddress(bytes)
                return bytes.count
            }
        case RDMA_USER_CM_QUERY_GID:
            try command.demandRoom(SIM_CM_QUERY_ADDR_INDEX)
            try respond(command, at: request.response, SIM_CM_QUERY_ADDR_SIZE) { bytes in
                identifier.queryGID(bytes)
                return bytes.count
            }
        case RDMA_USER_CM_QUERY_PATH:
            try command.demandRoom(8)
            try respond(command, at: request.response, command.room) { identifier.queryPath($0) }
        default: throw Refusal(ENOSYS, "there is no such query", has: Int(request.option))
        }
    }

    /// Writes a response of up to `size` bytes that `fill` builds. `fill` returns their number.
    private func respond(
        _ command: ManagerCommand, at address: UInt64, _ size: Int, fill: (UnsafeMutableRawBufferPointer) -> Int
    ) throws(Refusal) {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
        defer { bytes.deallocate() }
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        let count = fill(bytes)
        try command.respond(at: address, UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    }

    // MARK: - Connections

    private func connect(_ command: ManagerCommand) throws(Refusal) {
        try demand(
            command.length >= SIM_CM_CONNECT_SIZE, EINVAL, "shorter than the command's struct, in bytes",
            has: command.length, wants: SIM_CM_CONNECT_SIZE)
        let request = prefix(command, of: rdma_ucm_connect())
        try demand(request.conn_param.valid != 0, EINVAL, "the parameters are not valid")
        let hasECE = command.length >= MemoryLayout<rdma_ucm_connect>.size
        try manager.connect(
            try identifierOnDevice(request.id), request.conn_param, hasECE ? request.ece : rdma_ucm_ece())
    }

    private func accept(_ command: ManagerCommand) throws(Refusal) {
        try demand(
            command.length >= SIM_CM_ACCEPT_SIZE, EINVAL, "shorter than the command's struct, in bytes",
            has: command.length, wants: SIM_CM_ACCEPT_SIZE)
        let request = prefix(command, of: rdma_ucm_accept())
        let identifier = try identifierOnDevice(request.id)
        let hasECE = command.length >= MemoryLayout<rdma_ucm_accept>.size
        let ece = hasECE ? request.ece : rdma_ucm_ece()
        guard request.conn_param.valid != 0 else { return try manager.accept(identifier, nil, ece) }
        // Events that the command causes have the new `uid`.
        let former = identifier.userID
        identifier.userID = request.uid
        do throws(Refusal) { try manager.accept(identifier, request.conn_param, ece) } catch {
            identifier.userID = former
            throw error
        }
    }

    /// A struct of which the program may have an older, shorter version.
    private func prefix<Value>(_ command: ManagerCommand, of empty: Value) -> Value {
        var value = empty
        withUnsafeMutableBytes(of: &value) {
            $0.copyMemory(
                from: UnsafeRawBufferPointer(rebasing: command.body[..<min(command.length, $0.count)]))
        }
        return value
    }

    private func reject(_ command: ManagerCommand) throws(Refusal) {
        let request = try command.load(rdma_ucm_reject.self)
        try demand(
            request.reason == 0 || request.reason == RejectReason.consumerDefined
                || request.reason == RejectReason.vendorOptionNotSupported, EINVAL,
            "a program may not reject for this reason", has: Int(request.reason))
        let data = UnsafeRawBufferPointer(
            rebasing: command.body[SIM_CM_REJECT_DATA..<(SIM_CM_REJECT_DATA + Int(request.private_data_len))])
        try manager.reject(
            try identifierOnDevice(request.id), data,
            reason: request.reason == 0 ? RejectReason.consumerDefined : UInt32(request.reason))
    }

    private func initializeAttributes(_ command: ManagerCommand) throws(Refusal) {
        try command.demandRoom(MemoryLayout<ib_uverbs_qp_attr>.size)
        let request = try command.load(rdma_ucm_init_qp_attr.self)
        try demand(
            request.qp_state <= IBV_QPS_ERR.rawValue, EINVAL, "there is no such state", has: Int(request.qp_state))
        let attributes = try manager.attributes(try identifierOnDevice(request.id), state: request.qp_state)
        try command.respond(at: request.response, attributes)
    }

    // MARK: - Events and options

    private func readEvent(_ command: ManagerCommand) throws(Refusal) {
        try command.demandRoom(SIM_CM_EVENT_RESERVED)
        let request = try command.load(rdma_ucm_get_event.self)
        guard let event = events.first else { throw Refusal(EAGAIN, "no event is waiting") }
        try command.respond(at: request.response, event.response)
        _ = removeFirst()
        event.identifier.eventsReported &+= 1
        event.membership?.eventsReported &+= 1
        if event.request != nil { event.identifier.backlog += 1 }
    }

    private func setOption(_ command: ManagerCommand) throws(Refusal) {
        let request = try command.load(rdma_ucm_set_option.self)
        // KMALLOC_MAX_SIZE.
        try demand(request.optlen <= 4 << 20, EINVAL, "a longer value than any option has", has: Int(request.optlen))
        let identifier = try identifier(request.id)
        try demand(
            request.optlen == 0 || sim_is_mapped(request.optval, UInt64(request.optlen), false), EFAULT,
            "the address of the value is not readable memory")
        let value = UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: UInt(request.optval)), count: Int(request.optlen))
        switch (Int(request.level), Int(request.optname)) {
        case (RDMA_OPTION_ID, RDMA_OPTION_ID_TOS): identifier.typeOfService = try byte(value)
        case (RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR):
            let reuses = try integer(value) != 0
            try demand(
                reuses && identifier.state != .listen || identifier.state == .idle, EINVAL,
                "the identifier listens, or is bound already")
            identifier.reusesAddress = reuses
        case (RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY):
            let isOnly = try integer(value) != 0
            try demand(
                identifier.state == .idle || identifier.state == .addressBound, EINVAL,
                "the identifier is in use already")
            (identifier.isFamilyOnly, identifier.hasFamilyOption) = (isOnly, true)
        case (RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT):
            let timeout = try byte(value)
            try demand(identifier.type == IBV_QPT_RC.rawValue, EINVAL, "only RC has a Local ACK Timeout")
            identifier.timeout = timeout
        case (RDMA_OPTION_IB, RDMA_OPTION_IB_PATH): try manager.setPath(identifier, value)
        default: throw Refusal(ENOSYS, "there is no such option", has: Int(request.optname))
        }
    }

    private func byte(_ value: UnsafeRawBufferPointer) throws(Refusal) -> UInt8 {
        try demand(value.count == 1, EINVAL, "the option has one byte", has: value.count)
        return value[0]
    }

    private func integer(_ value: UnsafeRawBufferPointer) throws(Refusal) -> Int32 {
        try demand(value.count == 4, EINVAL, "the option has four bytes", has: value.count)
        return value.load(0, as: Int32.self)
    }

    // MARK: - Multicast

    private func join(_ command: ManagerCommand) throws(Refusal) {
        let isIP = Int(command.number) == RDMA_USER_CM_CMD_JOIN_IP_MCAST
        try command.demandBody(isIP ? SIM_CM_JOIN_IP_SIZE : SIM_CM_JOIN_SIZE)
        let body = command.body
        let address = try command.address(
            isIP ? SIM_CM_JOIN_IP_ADDRESS : SIM_CM_JOIN_ADDRESS, size: isIP ? MemoryLayout<sockaddr_in6>.size : 128)
        try command.demandRoom(4)
        if !isIP {
            try demandSize(body.load(20, as: UInt16.self), address)
            let flags = body.load(22, as: UInt16.self)
            try demand(
                Int(flags) < RDMA_MC_JOIN_FLAG_RESERVED, EINVAL, "unknown flags of a join", has: Int(flags))
        }
        let identifier = try identifierOnDevice(body.load(isIP ? SIM_CM_JOIN_IP_ID : 16, as: UInt32.self))
        let membership = try manager.join(identifier, userID: body.load(8, as: UInt64.self), address)
        do throws(Refusal) { try command.respond(at: body.load(0, as: UInt64.self), membership.number) } catch {
            manager.remove(membership)
            throw error
        }
    }

    private func leave(_ command: ManagerCommand) throws(Refusal) {
        try command.demandRoom(4)
        let request = try command.load(rdma_ucm_destroy_id.self)
        let membership = try manager.membership(request.id, self)
        manager.remove(membership)
        try command.respond(at: request.response, membership.eventsReported)
    }
}
