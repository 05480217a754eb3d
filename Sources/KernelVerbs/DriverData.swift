/// What a command carries between the provider and the kernel driver of its device, beside what is common to all. Both
/// places belong to the caller, and live until the command has returned. Their sizes are multiples of 4 bytes.
public struct DriverData {
    /// For the driver.
    public var input: UnsafeRawBufferPointer
    /// From the driver. An older driver may fill less: the caller zeroes it before.
    public var output: UnsafeMutableRawBufferPointer

    /// Nothing either way.
    public static var none: DriverData {
        DriverData(input: UnsafeRawBufferPointer(start: nil, count: 0))
    }

    /// Bytes for the driver, and room for what it answers.
    public init(
        input: UnsafeRawBufferPointer,
        output: UnsafeMutableRawBufferPointer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    ) {
        self.input = input
        self.output = output
    }

    /// Runs `body` with a command for the driver, and an answer of it to be filled.
    @inline(__always)
    public static func exchange<Command, Answer: BitwiseCopyable, Result: ~Copyable>(
        _ command: Command, _ answer: inout Answer, _ body: (DriverData) throws(KernelError) -> Result
    ) throws(KernelError) -> Result {
        try withUnsafePointer(to: command) { command throws(KernelError) in
            try Self.answer(&answer) { driver throws(KernelError) in
                try body(
                    DriverData(
                        input: UnsafeRawBufferPointer(start: command, count: MemoryLayout<Command>.size),
                        output: driver.output))
            }
        }
    }

    /// Runs `body` with an answer of the driver to be filled.
    @inline(__always)
    public static func answer<Answer: BitwiseCopyable, Result: ~Copyable>(
        _ answer: inout Answer, _ body: (DriverData) throws(KernelError) -> Result
    ) throws(KernelError) -> Result {
        let count = MemoryLayout<Answer>.size
        return try withUnsafeMutablePointer(to: &answer) { pointer throws(KernelError) in
            try body(
                DriverData(
                    input: UnsafeRawBufferPointer(start: nil, count: 0),
                    output: UnsafeMutableRawBufferPointer(start: pointer, count: count)))
        }
    }
}
