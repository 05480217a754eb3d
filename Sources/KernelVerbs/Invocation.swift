import CKernelABI
import CLinux

// Commands that take a struct, by either way.
//
// By ioctl: attributes CORE_IN, CORE_OUT, UHW_IN, UHW_OUT. By write(2), where sizes count in units of 4 bytes, or of 8
// for an extended command:
//
// | | plain | extended |
// |---|---|---|
// | header | `ib_uverbs_cmd_hdr`: number, size of all, size of the answer | `ib_uverbs_cmd_hdr`, which counts the common part alone, and `ib_uverbs_ex_cmd_hdr`, which counts the driver's |
// | request | struct, driver's bytes; the struct begins with the address of the answer if there is one | struct, driver's bytes |
// | answer | struct, driver's bytes | struct, driver's bytes |

extension KernelDevice {
    /// Gives a command to the kernel.
    /// - Parameters:
    ///   - command: its number.
    ///   - request: its C struct, without the bytes of the driver that follow it.
    ///   - answer: zeroed; filled when it returns. Begins at the `response` field that the request's struct has.
    ///   - driver: what goes between provider and driver.
    @inline(__always)
    public func call<Request, Answer>(
        _ command: WriteCommand, _ request: Request, _ answer: inout Answer, driver: DriverData = .none
    ) throws(KernelError) {
        var request = request
        let error = withUnsafeMutableBytes(of: &request) { request in
            withUnsafeMutableBytes(of: &answer) { invoke(command, request, $0, driver) }
        }
        try KernelError.check(error)
    }

    /// Gives a command without an answer to the kernel.
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

    /// 0, or a positive errno value.
    func invoke(
        _ command: WriteCommand, _ request: UnsafeMutableRawBufferPointer, _ answer: UnsafeMutableRawBufferPointer,
        _ driver: DriverData
    ) -> Int32 {
        if !isWritten(command) {
            var method = Method(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INVOKE_WRITE)
            method.constant(UVERBS_ATTR_WRITE_CMD, UInt64(command.rawValue))
            method.input(UVERBS_ATTR_CORE_IN, from: UnsafeRawBufferPointer(request))
            if answer.count > 0 { method.output(UVERBS_ATTR_CORE_OUT, into: answer) }
            method.driver(driver)
            let error = method.call(descriptor, driver: self.driver, calls)
            if !notes(error, of: command) { return error }
        }
        return write(command, request, answer, driver)
    }

    private func write(
        _ command: WriteCommand, _ request: UnsafeMutableRawBufferPointer, _ answer: UnsafeMutableRawBufferPointer,
        _ driver: DriverData
    ) -> Int32 {
        // A plain command without an answer has no field for its address: no driver answers either.
        guard driver.output.count > 0, answer.count > 0 || command.isExtended else {
            return write(command, request, driver.input, answer, answer.count)
        }
        // Common part and driver's part of an answer come as one piece.
        return withScratch(answer.count + driver.output.count) { whole in
            let common = whole.baseAddress!
            let more = common + answer.count
            more.copyMemory(from: driver.output.baseAddress!, byteCount: driver.output.count)
            let error = write(command, request, driver.input, whole, answer.count)
            if error == 0 {
                answer.copyMemory(from: UnsafeRawBufferPointer(start: common, count: answer.count))
                driver.output.baseAddress!.copyMemory(from: more, byteCount: driver.output.count)
            }
            return error
        }
    }

    /// `common` is how many bytes of the answer are not the driver's.
    private func write(
        _ command: WriteCommand, _ request: UnsafeMutableRawBufferPointer, _ input: UnsafeRawBufferPointer,
        _ answer: UnsafeMutableRawBufferPointer, _ common: Int
    ) -> Int32 {
        let address = UInt64(UInt(bitPattern: answer.baseAddress))
        let plainHeader = MemoryLayout<ib_uverbs_cmd_hdr>.size
        let headers = plainHeader + (command.isExtended ? MemoryLayout<ib_uverbs_ex_cmd_hdr>.size : 0)
        let count = headers + request.count + input.count
        return withScratch(count) { whole in
            let unit = command.isExtended ? 8 : 4
            let header = ib_uverbs_cmd_hdr(
                command: command.rawValue, in_words: UInt16((command.isExtended ? request.count : count) / unit),
                out_words: UInt16((command.isExtended ? common : answer.count) / unit))
            let bytes = whole.baseAddress!
            bytes.storeBytes(of: header, as: ib_uverbs_cmd_hdr.self)
            (bytes + headers).copyMemory(from: request.baseAddress!, byteCount: request.count)
            if command.isExtended {
                let header = ib_uverbs_ex_cmd_hdr(
                    response: address, provider_in_words: UInt16(input.count / unit),
                    provider_out_words: UInt16((answer.count - common) / unit), cmd_hdr_reserved: 0)
                (bytes + plainHeader).storeBytes(of: header, as: ib_uverbs_ex_cmd_hdr.self)
            } else if answer.count > 0 {
                (bytes + headers).storeBytes(of: address, as: UInt64.self)
            }
            if let more = input.baseAddress {
                (bytes + headers + request.count).copyMemory(from: more, byteCount: input.count)
            }
            return calls.write(descriptor, bytes, count)
        }
    }
}

/// Runs `body` with so many zeroed bytes of the stack.
private func withScratch(_ count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Int32) -> Int32 {
    precondition(count <= 512, "a command that is longer than there is room for")
    var words = InlineArray<64, UInt64>(repeating: 0)
    return withUnsafeMutableBytes(of: &words) {
        body(UnsafeMutableRawBufferPointer(start: $0.baseAddress, count: count))
    }
}
