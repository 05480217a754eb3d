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
        // Common part and driver's part of an answer come as one piece.
        guard driver.output.count > 0 else { return write(command, request, driver.input, answer, answer.count) }
        let count = answer.count + driver.output.count
        return withUnsafeTemporaryAllocation(byteCount: count, alignment: 8) { whole in
            whole.copyMemory(from: UnsafeRawBufferPointer(answer))
            UnsafeMutableRawBufferPointer(rebasing: whole[answer.count...]).copyMemory(
                from: UnsafeRawBufferPointer(driver.output))
            let error = write(command, request, driver.input, whole, answer.count)
            if error == 0 {
                answer.copyMemory(from: UnsafeRawBufferPointer(rebasing: whole[..<answer.count]))
                driver.output.copyMemory(from: UnsafeRawBufferPointer(rebasing: whole[answer.count...]))
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
        return withUnsafeTemporaryAllocation(byteCount: count, alignment: 8) { whole in
            let unit = command.isExtended ? 8 : 4
            let header = ib_uverbs_cmd_hdr(
                command: command.rawValue, in_words: UInt16((command.isExtended ? request.count : count) / unit),
                out_words: UInt16((command.isExtended ? common : answer.count) / unit))
            whole.storeBytes(of: header, as: ib_uverbs_cmd_hdr.self)
            UnsafeMutableRawBufferPointer(rebasing: whole[headers...]).copyMemory(from: UnsafeRawBufferPointer(request))
            if command.isExtended {
                let header = ib_uverbs_ex_cmd_hdr(
                    response: address, provider_in_words: UInt16(input.count / unit),
                    provider_out_words: UInt16((answer.count - common) / unit), cmd_hdr_reserved: 0)
                whole.storeBytes(of: header, toByteOffset: plainHeader, as: ib_uverbs_ex_cmd_hdr.self)
            } else if answer.count > 0 {
                whole.storeBytes(of: address, toByteOffset: headers, as: UInt64.self)
            }
            UnsafeMutableRawBufferPointer(rebasing: whole[(headers + request.count)...]).copyMemory(from: input)
            return calls.write(descriptor, whole.baseAddress, count)
        }
    }
}
