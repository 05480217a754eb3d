import Synchronization

/// The doorbells of the queue pairs, in place of an adapter's doorbell registers: a bit for each queue pair, which a
/// posting thread sets and the engine reads and clears (`Core.takeDoorbells`). A bit is a hint that the queue pair may
/// have work; the authority is `ReadyList`. There are two levels, so that an engine of thousands of queue pairs reads
/// one word when nothing was posted.
struct Doorbells {
    private let leaves: UnsafeMutablePointer<Atomic<UInt64>>
    private let summary: UnsafeMutablePointer<Atomic<UInt64>>
    private let leafCount: Int
    private let summaryCount: Int

    /// Creates doorbells that are not rung.
    /// - Parameter count: The number of bits, a multiple of 64.
    init(count: Int) {
        leafCount = count / 64
        summaryCount = (leafCount + 63) / 64
        leaves = .allocate(capacity: leafCount)
        summary = .allocate(capacity: summaryCount)
        for index in 0..<leafCount { (leaves + index).initialize(to: Atomic(0)) }
        for index in 0..<summaryCount { (summary + index).initialize(to: Atomic(0)) }
    }

    func deallocate() {
        leaves.deinitialize(count: leafCount)
        summary.deinitialize(count: summaryCount)
        leaves.deallocate()
        summary.deallocate()
    }

    /// Sets bit `index`, after the WQEs were published. Any thread may call it.
    @inline(__always)
    func ring(_ index: UInt32) {
        let leaf = Int(index / 64)
        let old = leaves[leaf].bitwiseOr(1 << UInt64(index % 64), ordering: .acquiringAndReleasing).oldValue
        // The thread that sets the first bit of a leaf sets the bit of the summary.
        if old == 0 { _ = summary[leaf / 64].bitwiseOr(1 << UInt64(leaf % 64), ordering: .acquiringAndReleasing) }
    }

    /// Whether a bit is set that the engine has not taken. Any thread may call it.
    var isRung: Bool {
        for word in 0..<summaryCount where summary[word].load(ordering: .acquiring) != 0 { return true }
        return false
    }

    /// Takes one leaf with bits set, for the engine; nil when no bit is set. Bit n of `bits` is index `base + n`.
    @inline(__always)
    func take() -> (base: UInt32, bits: UInt64)? {
        for word in 0..<summaryCount {
            let leaf = summary[word].load(ordering: .relaxed)
            if leaf == 0 { continue }
            let lowest = leaf & (0 &- leaf)
            _ = summary[word].bitwiseAnd(~lowest, ordering: .acquiringAndReleasing)
            let index = word * 64 + lowest.trailingZeroBitCount
            return (UInt32(index * 64), leaves[index].exchange(0, ordering: .acquiringAndReleasing))
        }
        return nil
    }
}
