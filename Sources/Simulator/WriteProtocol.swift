import CSimulator

/// Commands by write(2): a header, the struct, the driver data (`ib_uverbs_write` of the kernel).
///
/// | bytes       | contents |
/// |-------------|----------|
/// | 0 ..< 8     | `struct ib_uverbs_cmd_hdr`: command, total length, room for the response; both in words of 4 bytes |
/// | 8 ..< 24    | extended commands: `struct ib_uverbs_ex_cmd_hdr`; their lengths are in words of 8 bytes |
/// | …           | the struct, which begins with the response's address unless it is extended; the driver data |
extension Context {
    func write(_ bytes: UnsafeRawBufferPointer) throws(Refusal) {
        try demand(bytes.count >= 8, EINVAL, "shorter than a header, in bytes", has: bytes.count, wants: 8)
        let header = bytes.load(0, as: ib_uverbs_cmd_hdr.self)
        let isExtended = header.command & IB_USER_VERBS_CMD_FLAG_EXTENDED != 0
        let number = header.command & UInt32(IB_USER_VERBS_CMD_COMMAND_MASK)
        try demand(
            header.command & ~(UInt32(IB_USER_VERBS_CMD_COMMAND_MASK) | IB_USER_VERBS_CMD_FLAG_EXTENDED) == 0, EINVAL,
            "unknown flags of a command", has: Int(header.command))
        guard let shape = CommandShape(number: number, isExtended: isExtended) else {
            throw Refusal(EOPNOTSUPP, "this kernel has no such command", has: Int(number))
        }
        let call =
            isExtended
            ? try extended(header, bytes, number, shape) : try plain(header, bytes, number, shape)
        try perform(call)
    }

    private func plain(
        _ header: ib_uverbs_cmd_hdr, _ bytes: UnsafeRawBufferPointer, _ number: UInt32, _ shape: CommandShape
    ) throws(Refusal) -> CommandCall {
        try demand(
            Int(header.in_words) * 4 == bytes.count, EINVAL, "the header has another length, in bytes",
            has: Int(header.in_words) * 4, wants: bytes.count)
        try demand(
            bytes.count >= 8 + shape.request, ENOSPC, "shorter than the command's struct, in bytes",
            has: bytes.count - 8, wants: shape.request)
        let room = Int(header.out_words) * 4
        try demand(
            room >= shape.response, ENOSPC, "less room than the response needs, in bytes", has: room,
            wants: shape.response)
        let body = UnsafeRawBufferPointer(rebasing: bytes[8...])
        let place =
            shape.response > 0
            ? UnsafeMutableRawPointer(bitPattern: UInt(body.load(0, as: UInt64.self))) : nil
        try demand(shape.response == 0 || place != nil, EFAULT, "the response has no address")
        return try split(
            number, shape, body, UnsafeMutableRawBufferPointer(start: place, count: place == nil ? 0 : room))
    }

    private func extended(
        _ header: ib_uverbs_cmd_hdr, _ bytes: UnsafeRawBufferPointer, _ number: UInt32, _ shape: CommandShape
    ) throws(Refusal) -> CommandCall {
        try demand(bytes.count >= 24, EINVAL, "shorter than an extended header, in bytes", has: bytes.count, wants: 24)
        let more = bytes.load(8, as: ib_uverbs_ex_cmd_hdr.self)
        let (core, provider) = (Int(header.in_words) * 8, Int(more.provider_in_words) * 8)
        try demand(
            core + provider == bytes.count - 24, EINVAL, "the header has another length, in bytes",
            has: core + provider, wants: bytes.count - 24)
        try demand(core >= shape.request, ENOSPC, "shorter than the command's struct", has: core, wants: shape.request)
        try demand(more.cmd_hdr_reserved == 0, EINVAL, "a reserved field of the header is not zero")
        let place = UnsafeMutableRawPointer(bitPattern: UInt(more.response))
        let room = Int(header.out_words) * 8
        let driverRoom = Int(more.provider_out_words) * 8
        if place == nil {
            try demand(room == 0 && driverRoom == 0, EINVAL, "room for a response that has no address")
        } else {
            try demand(room + driverRoom > 0, EINVAL, "an address for a response without room")
        }
        try demand(
            room >= shape.response, ENOSPC, "less room than the response needs", has: room, wants: shape.response)
        let request = UnsafeRawBufferPointer(rebasing: bytes[24..<24 + core])
        let driver = DriverData(
            input: UnsafeRawBufferPointer(rebasing: bytes[(24 + core)...]),
            output: UnsafeMutableRawBufferPointer(start: place.map { $0 + room }, count: driverRoom))
        return CommandCall(
            number: number, isExtended: true, request: request,
            response: UnsafeMutableRawBufferPointer(start: place, count: room), driver: driver)
    }

    /// Separates the struct from the driver data.
    private func split(
        _ number: UInt32, _ shape: CommandShape, _ body: UnsafeRawBufferPointer,
        _ response: UnsafeMutableRawBufferPointer
    ) throws(Refusal) -> CommandCall {
        guard shape.hasDriverData else {
            if number != Command.postSend {
                for byte in body[shape.request...] {
                    try demand(
                        byte == 0, EOPNOTSUPP, "more than the command's struct", has: body.count, wants: shape.request)
                }
            }
            return CommandCall(
                number: number, isExtended: false, request: body, response: response, driver: DriverData())
        }
        let driver = DriverData(
            input: UnsafeRawBufferPointer(rebasing: body[shape.request...]),
            output: response.count > shape.response
                ? UnsafeMutableRawBufferPointer(rebasing: response[shape.response...])
                : UnsafeMutableRawBufferPointer(start: nil, count: 0))
        return CommandCall(
            number: number, isExtended: false,
            request: UnsafeRawBufferPointer(rebasing: body[..<shape.request]),
            response: UnsafeMutableRawBufferPointer(rebasing: response[..<min(response.count, shape.response)]),
            driver: driver)
    }
}
