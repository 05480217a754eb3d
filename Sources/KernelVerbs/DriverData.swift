/// The driver-specific request and response of a command (UVERBS_ATTR_UHW_IN and UVERBS_ATTR_UHW_OUT), which follow the
/// common structs. Both buffers belong to the caller and must stay valid until the command returns. Their sizes are
/// multiples of 4 bytes.
public struct DriverData {
    /// The request to the driver (UHW_IN).
    public var input: UnsafeRawBufferPointer
    /// The response from the driver (UHW_OUT). The caller zeroes it first, because an older driver may write fewer
    /// bytes.
    public var output: UnsafeMutableRawBufferPointer

    /// No request and no response.
    public static var none: DriverData {
        DriverData(input: UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// A request, and memory for the response.
    public init(
        input: UnsafeRawBufferPointer,
        output: UnsafeMutableRawBufferPointer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    ) {
        self.input = input
        self.output = output
    }

    /// Runs `body` with a request and a response struct of the driver.
    @inline(__always)
    public static func exchange<Command, Response: BitwiseCopyable, Result: ~Copyable>(
        _ command: Command, _ response: inout Response, _ body: (DriverData) throws(KernelError) -> Result
    ) throws(KernelError) -> Result {
        try withUnsafePointer(to: command) { command throws(KernelError) in
            try Self.response(&response) { driver throws(KernelError) in
                try body(
                    DriverData(
                        input: UnsafeRawBufferPointer(start: command, count: MemoryLayout<Command>.size),
                        output: driver.output))
            }
        }
    }

    /// Runs `body` with a response struct of the driver, and no request.
    @inline(__always)
    public static func response<Response: BitwiseCopyable, Result: ~Copyable>(
        _ response: inout Response, _ body: (DriverData) throws(KernelError) -> Result
    ) throws(KernelError) -> Result {
        let count = MemoryLayout<Response>.size
        return try withUnsafeMutablePointer(to: &response) { pointer throws(KernelError) in
            try body(
                DriverData(
                    input: UnsafeRawBufferPointer(start: nil, count: 0),
                    output: UnsafeMutableRawBufferPointer(start: pointer, count: count)))
        }
    }
}
