import Synchronization

/// The doorbells of the queue pairs, in place of an adapter's doorbell registers: a bit for each queue pair, which a
/// posting thread sets and the engine reads and clears (`Core.takeDoorbells`). A bit is a hint that the queue pair may
/// have work; the authority is `ReadyList`. There are three levels of 64 bits for each bit above, so that an engine of
/// 65,536 queue pairs reads one word when nothing was posted.
struct Doorbells {
    private let leaves: UnsafeMutablePointer<Atomic<UInt64>>
    private let summary: UnsafeMutablePointer<Atomic<UInt64>>
    private let top: UnsafeMutablePointer<Atomic<UInt64>>
    private let leafCount: Int
    private let summaryCount: Int

    /// Creates doorbells that are not rung.
    /// - Parameter count: The number of bits, a multiple of 64, at most 64 * 64 * 64.
    init(count: Int) {
        leafCount = count / 64
        summaryCount = (leafCount + 63) / 64
        assert(summaryCount <= 64, "the top word has a bit for each word of the summary")
        top = .allocate(capacity: 1)
        top.initialize(to: Atomic(0))
        leaves = .allocate(capacity: leafCount)
        summary = .allocate(capacity: summaryCount)
        for index in 0..<leafCount { (leaves + index).initialize(to: Atomic(0)) }
        for index in 0..<summaryCount { (summary + index).initialize(to: Atomic(0)) }
    }

    func deallocate() {
        leaves.deinitialize(count: leafCount)
        summary.deinitialize(count: summaryCount)
        top.deinitialize(count: 1)
        leaves.deallocate()
        summary.deallocate()
        top.deallocate()
    }

    /// Sets bit `index`, after the WQEs were published. Any thread may call it.
    @inline(__always)
    func ring(_ index: UInt32) {
        let leaf = Int(index / 64)
        let old = leaves[leaf].bitwiseOr(1 << UInt64(index % 64), ordering: .acquiringAndReleasing).oldValue
        guard old == 0 else { return }
        // The thread that sets the first bit of a word sets the bit of the word above.
        let word = leaf / 64
        guard summary[word].bitwiseOr(1 << UInt64(leaf % 64), ordering: .acquiringAndReleasing).oldValue == 0 else {
            return
        }
        _ = top.pointee.bitwiseOr(1 << UInt64(word), ordering: .acquiringAndReleasing)
    }

    /// Whether a bit is set that the engine has not taken. Any thread may call it.
    @inline(__always)
    var isRung: Bool { top.pointee.load(ordering: .acquiring) != 0 }

    /// Takes all bits that are set, for the engine, and calls `body` with the index of each. A word is cleared after its bit
    /// in the word above, so that a bit that is set meanwhile is found, at the latest by the next call.
    @inline(__always)
    func take(_ body: (UInt32) -> Void) {
        guard top.pointee.load(ordering: .relaxed) != 0 else { return }
        takeAll(body)
    }

    @inline(never)
    private func takeAll(_ body: (UInt32) -> Void) {
        forEachBit(of: top.pointee.exchange(0, ordering: .acquiringAndReleasing)) { word in
            forEachBit(of: summary[word].exchange(0, ordering: .acquiringAndReleasing)) { bit in
                let leaf = word * 64 + bit
                forEachBit(of: leaves[leaf].exchange(0, ordering: .acquiringAndReleasing)) { bit in
                    body(UInt32(leaf * 64 + bit))
                }
            }
        }
    }

    @inline(__always)
    private func forEachBit(of word: UInt64, _ body: (Int) -> Void) {
        var left = word
        while left != 0 {
            body(left.trailingZeroBitCount)
            left &= left &- 1
        }
    }
}
