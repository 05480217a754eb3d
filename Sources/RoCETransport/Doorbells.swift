import Synchronization

/// Bits that posting threads set and the engine takes: which queue pairs have new work. Two levels, so that an engine
/// of thousands of queue pairs looks at one word when nothing was posted.
struct Doorbells {
    private let leaves: UnsafeMutablePointer<Atomic<UInt64>>
    private let summary: UnsafeMutablePointer<Atomic<UInt64>>
    private let leafCount: Int
    private let summaryCount: Int

    /// - Parameter count: number of bits, a multiple of 64.
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

    /// Any thread: says that bit `index` has work, which was published before.
    @inline(__always)
    func ring(_ index: UInt32) {
        let leaf = Int(index / 64)
        let old = leaves[leaf].bitwiseOr(1 << UInt64(index % 64), ordering: .acquiringAndReleasing).oldValue
        // Whoever sets the first bit of a leaf answers for the summary.
        if old == 0 { _ = summary[leaf / 64].bitwiseOr(1 << UInt64(leaf % 64), ordering: .acquiringAndReleasing) }
    }

    /// Any thread: whether something was rung and not taken.
    var isRung: Bool {
        for word in 0..<summaryCount where summary[word].load(ordering: .acquiring) != 0 { return true }
        return false
    }

    /// The engine: takes one leaf with bits set, or nil. Bit n of `bits` is index `base + n`.
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
