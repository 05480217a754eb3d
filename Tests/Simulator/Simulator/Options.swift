/// What a device is made as: the words of `uverbs_sim_create`.
struct Options {
    enum Vendor { case hfi1, mlx5 }

    var vendor = Vendor.hfi1
    /// The kernel knows no ioctl.
    var isWritten = false
    /// mlx5: CQEs name queue pairs by number, not by the user's index.
    var usesNumbers = false
    /// mlx5: doorbell pages are mapped by index, not as objects.
    var hasStaticPages = false
    var isEthernet = false
    /// The device runs at each store to a doorbell page.
    var isTrapped = false
    /// A thread lets the device run.
    var isFree = false
    /// The directory that is the wire to the devices of other processes.
    var wire: Text?
    /// Version of the kernel driver's ABI that sysfs tells, in place of the right one.
    var abi: Int?

    /// Nil when a word is not known, or the first one is no kind of device.
    init?(_ text: UnsafePointer<CChar>) {
        var next = text
        var isFirst = true
        while let word = Word(&next) {
            switch word {
            case _ where isFirst && word.equals("hfi1"): vendor = .hfi1
            case _ where isFirst && word.equals("mlx5"): vendor = .mlx5
            case _ where isFirst: return nil
            case _ where word.equals("write"): isWritten = true
            case _ where word.equals("cqe0") && vendor == .mlx5: usesNumbers = true
            case _ where word.equals("static") && vendor == .mlx5: hasStaticPages = true
            case _ where word.equals("roce") && vendor == .mlx5: isEthernet = true
            case _ where word.equals("trap") && vendor == .mlx5: isTrapped = true
            case _ where word.equals("free"): isFree = true
            case _ where word.text(after: "wire=") != nil: wire = word.text(after: "wire=")
            case _ where word.number(after: "abi=") != nil: abi = word.number(after: "abi=")
            default: return nil
            }
            isFirst = false
        }
        if isFirst { return nil }
        #if !arch(x86_64)
            // Single stepping is x86's.
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

    /// Up to four digits, such as those of `abi=2`.
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

    /// What follows, such as the directory of `wire=/tmp/wire`.
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
