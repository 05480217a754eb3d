/// The options of a device: the words of `uverbs_sim_create`.
struct Options {
    enum Vendor { case hfi1, mlx5, cxgb4 }

    var vendor = Vendor.hfi1
    /// The kernel has no ioctl: every command is a write(2).
    var usesWrite = false
    /// mlx5: cqe_version 0: CQEs have no user index.
    var hasCQEVersion0 = false
    /// mlx5: UAR pages are mapped by index, not as objects (MLX5_IB_OBJECT_UAR).
    var hasStaticPages = false
    /// The link layer is Ethernet: RoCE or iWARP.
    var isEthernet = false
    /// cxgb4: the generation of the adapter: 4, 5 or 6 (T4, T5, T6).
    var chip = 5
    /// cxgb4: a kernel driver from before CQEs of 64 bytes.
    var hasShortCQEs = false
    /// cxgb4: the send queues of T4 are in the adapter's memory.
    var isOnChip = false
    /// cxgb4: a kernel driver that allocates memory windows, as Linux 6.1's does not.
    var hasWindows = false
    /// cxgb4: more queues share a doorbell page than it has write-combining doorbells for.
    var isDense = false
    /// cxgb4: the CQE of a READ is written after those of later requests.
    var reorders = false
    /// The device runs at each store to a UAR page.
    var isTrapped = false
    /// A thread runs the device.
    var runsInThread = false
    /// The directory of the wire to the devices of other processes.
    var wire: Text?
    /// The kernel driver's ABI version that sysfs reports in place of the right one.
    var abi: Int?

    var isIWARP: Bool { vendor == .cxgb4 }
    /// Ports have GIDs, and addresses need a GRH.
    var isRoCE: Bool { isEthernet && !isIWARP }

    /// Nil when a word is unknown, or the first one is not a type of device.
    init?(_ text: UnsafePointer<CChar>) {
        var next = text
        var isFirst = true
        while let word = Word(&next) {
            switch word {
            case _ where isFirst && word.equals("hfi1"): vendor = .hfi1
            case _ where isFirst && word.equals("mlx5"): vendor = .mlx5
            case _ where isFirst && word.equals("cxgb4"):
                vendor = .cxgb4
                isEthernet = true
                isTrapped = Options.canTrap
            case _ where isFirst: return nil
            case _ where word.equals("write"): usesWrite = true
            case _ where word.equals("cqe0") && vendor == .mlx5: hasCQEVersion0 = true
            case _ where word.equals("static") && vendor == .mlx5: hasStaticPages = true
            case _ where word.equals("roce") && vendor == .mlx5: isEthernet = true
            case _ where word.equals("trap") && vendor == .mlx5: isTrapped = true
            case _ where vendor == .cxgb4 && word.number(after: "t") != nil: chip = word.number(after: "t") ?? 0
            case _ where word.equals("cqe32") && vendor == .cxgb4: hasShortCQEs = true
            case _ where word.equals("onchip") && vendor == .cxgb4: isOnChip = true
            case _ where word.equals("windows") && vendor == .cxgb4: hasWindows = true
            case _ where word.equals("dense") && vendor == .cxgb4: isDense = true
            case _ where word.equals("reorder") && vendor == .cxgb4: reorders = true
            case _ where word.equals("notrap") && vendor == .cxgb4: isTrapped = false
            case _ where word.equals("free"): runsInThread = true
            case _ where word.text(after: "wire=") != nil: wire = word.text(after: "wire=")
            case _ where word.number(after: "abi=") != nil: abi = word.number(after: "abi=")
            default: return nil
            }
            isFirst = false
        }
        if isFirst || !(4...6).contains(chip) || isOnChip && chip != 4 { return nil }
        if isTrapped && !Options.canTrap { return nil }
    }

    /// Traps depend on x86's single stepping.
    private static var canTrap: Bool {
        #if arch(x86_64)
            return true
        #else
            return false
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
