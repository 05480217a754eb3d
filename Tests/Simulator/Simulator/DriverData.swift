import CSimulator

/// What goes between a provider and its kernel driver beside a command (`udata` in the kernel).
struct DriverData {
    var input = UnsafeRawBufferPointer(start: nil, count: 0)
    var output = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    /// What the provider sent, where the driver takes a longer and a shorter form: what is not there is zero.
    /// - Parameters:
    ///   - minimum: a shorter one is refused with EINVAL.
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

    /// A command for which this driver takes nothing.
    func expectNoInput() throws(Refusal) {
        for byte in input {
            try demand(byte == 0, EINVAL, "driver data where this driver takes none, in bytes", has: input.count)
        }
    }

    /// Answers as much of the value as there is room for, as the kernel does.
    /// - Parameter minimum: with less room the driver refuses.
    func answer<Value>(_ value: Value, minimum: Int) throws(Refusal) {
        try demand(
            output.count >= minimum, EINVAL, "no room for the driver's answer, in bytes", has: output.count,
            wants: minimum)
        withUnsafeBytes(of: value) { bytes in
            output.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, output.count)]))
        }
    }
}

extension UnsafeRawBufferPointer {
    /// A struct of C at an offset, which need not be aligned. Swift does not take all of them for copyable bit by bit,
    /// those with a flexible array at their end for one.
    func load<Value>(_ offset: Int, as type: Value.Type) -> Value {
        precondition(offset + MemoryLayout<Value>.size <= count, "a struct beyond the end")
        return withUnsafeTemporaryAllocation(of: Value.self, capacity: 1) { place in
            UnsafeMutableRawPointer(place.baseAddress!).copyMemory(
                from: baseAddress! + offset, byteCount: MemoryLayout<Value>.size)
            return place[0]
        }
    }
}
