/// The options of a device: the words of `uverbs_sim_create`.
struct Options {
    enum Vendor { case hfi1, mlx5 }

    var vendor = Vendor.hfi1
    /// The kernel has no ioctl: every command is a write(2).
    var usesWrite = false
    /// mlx5: cqe_version 0: CQEs have no user index.
    var hasCQEVersion0 = false
    /// mlx5: UAR pages are mapped by index, not as objects (MLX5_IB_OBJECT_UAR).
    var hasStaticPages = false
    var isEthernet = false
    /// The device runs at each store to a UAR page.
    var isTrapped = false
    /// A thread runs the device.
    var runsInThread = false
    /// The directory of the wire to the devices of other processes.
    var wire: Text?
    /// The kernel driver's ABI version that sysfs reports in place of the right one.
    var abi: Int?

    /// Nil when a word is unknown, or the first one is not a type of device.
    init?(_ text: UnsafePointer<CChar>) {
        var next = text
        var isFirst = true
        while let word = Word(&next) {
            switch word {
            case _ where isFirst && word.equals("hfi1"): vendor = .hfi1
            case _ where isFirst && word.equals("mlx5"): vendor = .mlx5
            case _ where isFirst: return nil
            case _ where word.equals("write"): usesWrite = true
            case _ where word.equals("cqe0") && vendor == .mlx5: hasCQEVersion0 = true
            case _ where word.equals("static") && vendor == .mlx5: hasStaticPages = true
            case _ where word.equals("roce") && vendor == .mlx5: isEthernet = true
            case _ where word.equals("trap") && vendor == .mlx5: isTrapped = true
            case _ where word.equals("free"): runsInThread = true
            case _ where word.text(after: "wire=") != nil: wire = word.text(after: "wire=")
            case _ where word.number(after: "abi=") != nil: abi = word.number(after: "abi=")
            default: return nil
            }
            isFirst = false
        }
        if isFirst { return nil }
        #if !arch(x86_64)
            // Traps depend on x86's single stepping.
            if isTrapped { return nil }
        #endif
    }
}

/// A word of a description.
private struct Word {
    let start: UnsafePointer<CChar>
    let count: Int

    init?(_ next: inout UnsafePointer<CChar>) {
        func isGap(_ character: CChar) -> Bool { character == 0x20 || character == 0x2C }
        while isGap(next.pointee) { next += 1 }
        start = next
        while next.pointee != 0 && !isGap(next.pointee) { next += 1 }
        count = next - start
        if count == 0 { return nil }
    }

    func equals(_ other: StaticString) -> Bool {
        count == other.utf8CodeUnitCount && begins(with: other)
    }

    /// The number after a prefix, of up to four digits, as in `abi=2`.
    func number(after prefix: StaticString) -> Int? {
        let first = prefix.utf8CodeUnitCount
        guard count > first, count <= first + 4, begins(with: prefix) else { return nil }
        var value = 0
        for index in first..<count {
            guard (0x30...0x39).contains(start[index]) else { return nil }
            value = value * 10 + Int(start[index] - 0x30)
        }
        return value
    }

    /// The text after a prefix, as in `wire=/tmp/wire`.
    func text(after prefix: StaticString) -> Text? {
        let first = prefix.utf8CodeUnitCount
        guard count > first, begins(with: prefix) else { return nil }
        let text = Text()
        for index in first..<count { text.append(byte: UInt8(bitPattern: start[index])) }
        return text
    }

    private func begins(with prefix: StaticString) -> Bool {
        guard count >= prefix.utf8CodeUnitCount else { return false }
        for index in 0..<prefix.utf8CodeUnitCount
        where UInt8(bitPattern: start[index]) != prefix.utf8Start[index] { return false }
        return true
    }
}
