import CSimulator

/// The data between a provider and its kernel driver that accompanies a command (`udata` in the kernel).
struct DriverData {
    var input = UnsafeRawBufferPointer(start: nil, count: 0)
    var output = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    /// The provider's driver data. Missing fields are zero; bytes beyond the struct must be zero (else EOPNOTSUPP).
    /// - Parameter minimum: Shorter data are refused with EINVAL, in bytes.
    func read<Value>(_ empty: Value, minimum: Int) throws(Refusal) -> Value {
        var value = empty
        let size = MemoryLayout<Value>.size
        try demand(
            input.count >= minimum, EINVAL, "the driver data is too short, in bytes", has: input.count, wants: minimum)
        for index in min(size, input.count)..<max(size, input.count) where index < input.count {
            try demand(
                input[index] == 0, EOPNOTSUPP, "the driver data has bytes that this kernel does not know, after",
                has: index, wants: size)
        }
        withUnsafeMutableBytes(of: &value) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: input[..<min(size, input.count)]))
        }
        return value
    }

    /// Checks the driver data of a command for which the driver has no struct: all bytes must be zero.
    func expectNoInput() throws(Refusal) {
        for byte in input {
            try demand(byte == 0, EINVAL, "driver data, which this driver does not have, in bytes", has: input.count)
        }
    }

    /// Writes the driver's response, truncated to its buffer, as the kernel does.
    /// - Parameter minimum: A smaller buffer is refused with EINVAL, in bytes.
    func respond<Value>(_ value: Value, minimum: Int) throws(Refusal) {
        try demand(
            output.count >= minimum, EINVAL, "no room for the driver's response, in bytes", has: output.count,
            wants: minimum)
        withUnsafeBytes(of: value) { bytes in
            output.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, output.count)]))
        }
    }
}

extension UnsafeRawBufferPointer {
    /// A C struct at an offset, which need not be aligned. Not all C structs conform to `BitwiseCopyable`: those with a
    /// flexible array member do not.
    func load<Value>(_ offset: Int, as type: Value.Type) -> Value {
        precondition(offset + MemoryLayout<Value>.size <= count, "a struct beyond the end")
        return withUnsafeTemporaryAllocation(of: Value.self, capacity: 1) { place in
            UnsafeMutableRawPointer(place.baseAddress!).copyMemory(
                from: baseAddress! + offset, byteCount: MemoryLayout<Value>.size)
            return place[0]
        }
    }
}
