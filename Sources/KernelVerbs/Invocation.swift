import CKernelABI
import CLinux

// Write commands (`enum ib_uverbs_write_cmds`), by ioctl or by write(2).
//
// By ioctl (UVERBS_METHOD_INVOKE_WRITE): the attributes CORE_IN, CORE_OUT, UHW_IN, UHW_OUT. By write(2), with sizes in
// units of 4 bytes, or of 8 bytes for an extended command:
//
// | | plain | extended |
// |---|---|---|
// | header | `ib_uverbs_cmd_hdr`: command, total size, size of the response | `ib_uverbs_cmd_hdr` with the sizes of the
// common structs, `ib_uverbs_ex_cmd_hdr` with the sizes of the driver's |
// | request | common struct, driver's struct; the common struct begins with the address of the response, if any |
// common struct, driver's struct |
// | response | common struct, driver's struct | common struct, driver's struct |

extension KernelDevice {
    /// Executes a write command.
    /// - Parameters:
    ///   - command: The command number.
    ///   - request: The common request struct, such as `struct ib_uverbs_reg_mr`. A plain command's begins with its
    ///     `response` field, which this function sets.
    ///   - response: The zeroed common response struct, such as `struct ib_uverbs_reg_mr_resp`. The kernel fills it.
    ///   - driver: The driver's request and response.
    @inline(__always)
    public func call<Request, Response>(
        _ command: WriteCommand, _ request: Request, _ response: inout Response, driver: DriverData = .none
    ) throws(KernelError) {
        var request = request
        let error = withUnsafeMutableBytes(of: &request) { request in
            withUnsafeMutableBytes(of: &response) { invoke(command, request, $0, driver) }
        }
        try KernelError.check(error)
    }

    /// Executes a write command without a response.
    @inline(__always)
    public func call<Request>(
        _ command: WriteCommand, _ request: Request, driver: DriverData = .none
    ) throws(KernelError) {
        var request = request
        let error = withUnsafeMutableBytes(of: &request) { request in
            invoke(command, request, UnsafeMutableRawBufferPointer(start: nil, count: 0), driver)
        }
        try KernelError.check(error)
    }

    /// Executes a write command with common structs of any length.
    /// - Throws: EINVAL for a length above 65,532 bytes, or one that is not a multiple of 4 (extended commands by
    ///   write(2): of 8); EOPNOTSUPP for a command that is not of `enum ib_uverbs_write_cmds`.
    public func call(
        _ command: WriteCommand, request: UnsafeRawBufferPointer, response: UnsafeMutableRawBufferPointer,
        driver: DriverData
    ) throws(KernelError) {
        // The bits of a command (`WriteCommand.bit`) are those of its number.
        guard command.rawValue & ~UInt32(IB_USER_VERBS_CMD_FLAG_EXTENDED) < 64 else { throw .notSupported }
        guard hasLength(request.count), hasLength(response.count), hasLength(driver.input.count),
            hasLength(driver.output.count)
        else { throw .invalidArgument }
        // A plain command begins with the address of its response.
        guard request.count >= (response.count > 0 && !command.isExtended ? 8 : 1) else { throw .invalidArgument }
        try KernelError.check(
            invoke(command, UnsafeMutableRawBufferPointer(mutating: request), response, driver))
    }

    /// Executes a command by ioctl or write(2). Returns 0, or a positive errno value.
    func invoke(
        _ command: WriteCommand, _ request: UnsafeMutableRawBufferPointer, _ response: UnsafeMutableRawBufferPointer,
        _ driver: DriverData
    ) -> Int32 {
        if !isWritten(command) {
            var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
            method.constant(UVERBS_ATTR_WRITE_CMD, UInt64(command.rawValue))
            method.input(UVERBS_ATTR_CORE_IN, from: UnsafeRawBufferPointer(request))
            if response.count > 0 { method.output(UVERBS_ATTR_CORE_OUT, into: response) }
            method.driver(driver)
            let error = method.call(descriptor, driver: self.driver, calls)
            if !notes(error, of: command) { return error }
        }
        return write(command, request, response, driver)
    }

    private func write(
        _ command: WriteCommand, _ request: UnsafeMutableRawBufferPointer, _ response: UnsafeMutableRawBufferPointer,
        _ driver: DriverData
    ) -> Int32 {
        // A plain command without a response has no `response` field, so its driver has no response either.
        guard driver.output.count > 0, response.count > 0 || command.isExtended else {
            return write(command, request, driver.input, response, response.count)
        }
        // The kernel writes the common and the driver's response contiguously.
        return withScratch(response.count + driver.output.count) { whole in
            let common = whole.baseAddress!
            let more = common + response.count
            more.copyMemory(from: driver.output.baseAddress!, byteCount: driver.output.count)
            let error = write(command, request, driver.input, whole, response.count)
            if error == 0 {
                response.copyMemory(from: UnsafeRawBufferPointer(start: common, count: response.count))
                driver.output.baseAddress!.copyMemory(from: more, byteCount: driver.output.count)
            }
            return error
        }
    }

    /// Writes the headers and the request. `common` is the size of the common response in bytes.
    private func write(
        _ command: WriteCommand, _ request: UnsafeMutableRawBufferPointer, _ input: UnsafeRawBufferPointer,
        _ response: UnsafeMutableRawBufferPointer, _ common: Int
    ) -> Int32 {
        let address = UInt64(UInt(bitPattern: response.baseAddress))
        let plainHeader = MemoryLayout<ib_uverbs_cmd_hdr>.size
        let headers = plainHeader + (command.isExtended ? MemoryLayout<ib_uverbs_ex_cmd_hdr>.size : 0)
        let count = headers + request.count + input.count
        let unit = command.isExtended ? 8 : 4
        guard request.count % unit == 0, input.count % unit == 0, common % unit == 0, response.count % unit == 0,
            max(count, response.count) / unit <= Int(UInt16.max)
        else { return KernelError.invalidArgument.rawValue }
        return withScratch(count) { whole in
            let header = ib_uverbs_cmd_hdr(
                command: command.rawValue, in_words: UInt16((command.isExtended ? request.count : count) / unit),
                out_words: UInt16((command.isExtended ? common : response.count) / unit))
            let bytes = whole.baseAddress!
            bytes.storeBytes(of: header, as: ib_uverbs_cmd_hdr.self)
            (bytes + headers).copyMemory(from: request.baseAddress!, byteCount: request.count)
            if command.isExtended {
                let header = ib_uverbs_ex_cmd_hdr(
                    response: address, provider_in_words: UInt16(input.count / unit),
                    provider_out_words: UInt16((response.count - common) / unit), cmd_hdr_reserved: 0)
                (bytes + plainHeader).storeBytes(of: header, as: ib_uverbs_ex_cmd_hdr.self)
            } else if response.count > 0 {
                (bytes + headers).storeBytes(of: address, as: UInt64.self)
            }
            if let more = input.baseAddress {
                (bytes + headers + request.count).copyMemory(from: more, byteCount: input.count)
            }
            return calls.write(descriptor, bytes, count)
        }
    }
}

/// Whether an attribute of the ioctl, or a part of a command, can have this length in bytes.
private func hasLength(_ count: Int) -> Bool { count % 4 == 0 && count <= 65_532 }

/// Runs `body` with `count` zeroed bytes: of the stack, which suffices for the commands of this module, or allocated.
private func withScratch(_ count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Int32) -> Int32 {
    if count > 512 {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        return body(memory)
    }
    var words = InlineArray<64, UInt64>(repeating: 0)
    return withUnsafeMutableBytes(of: &words) {
        body(UnsafeMutableRawBufferPointer(start: $0.baseAddress, count: count))
    }
}
