import CLinux
import Glibc

/// Pages that children of fork(2) do not inherit, each with the number of registrations that it belongs to.
struct MarkedPages {
    /// Adjacent pages of the same count, sorted; those of no registration are left out.
    private(set) var segments: [(pages: Range<UInt>, count: Int)] = []
    /// Calls madvise(2): the pages, and `MADV_DONTFORK` or `MADV_DOFORK`. Returns 0 or an errno value.
    var advise: @Sendable (Range<UInt>, CInt) -> CInt = { pages, advice in
        let start = UnsafeMutableRawPointer(bitPattern: pages.lowerBound)
        return madvise(start, Int(pages.upperBound - pages.lowerBound), advice) == 0 ? 0 : errno
    }

    /// The addresses of the pages of memory; nil if it is empty.
    static func pages(of memory: UnsafeMutableRawBufferPointer) -> Range<UInt>? {
        let size = UInt(linux_page_size())
        let start = UInt(bitPattern: memory.baseAddress) & ~(size - 1)
        let (end, overflow) = UInt(bitPattern: memory.baseAddress).addingReportingOverflow(
            UInt(memory.count) + size - 1)
        guard memory.count > 0, !overflow else { return nil }
        return start..<(end & ~(size - 1))
    }

    /// Counts a registration. Returns 0, or the errno value with which nothing has changed.
    mutating func mark(_ pages: Range<UInt>) -> CInt {
        // madvise(2) of pages that are marked already changes nothing.
        let error = advise(pages, MADV_DONTFORK)
        if error == 0 {
            change(pages, by: 1)
        } else {
            for free in gaps(in: pages) { _ = advise(free, MADV_DOFORK) }
        }
        return error
    }

    /// Ends a registration.
    mutating func release(_ pages: Range<UInt>) {
        change(pages, by: -1)
        for free in gaps(in: pages) { _ = advise(free, MADV_DOFORK) }
    }

    /// The pages in `range` that belong to no registration.
    private func gaps(in range: Range<UInt>) -> [Range<UInt>] {
        var gaps: [Range<UInt>] = []
        var next = range.lowerBound
        for segment in segments where segment.pages.overlaps(range) {
            if segment.pages.lowerBound > next { gaps.append(next..<segment.pages.lowerBound) }
            next = segment.pages.upperBound
        }
        if next < range.upperBound { gaps.append(next..<range.upperBound) }
        return gaps
    }

    /// Adds `difference` to the counts of the pages.
    private mutating func change(_ range: Range<UInt>, by difference: Int) {
        split(at: range.lowerBound)
        split(at: range.upperBound)
        let first = index(of: range.lowerBound)
        var index = first
        var next = range.lowerBound
        while next < range.upperBound {
            if index < segments.count, segments[index].pages.lowerBound == next {
                next = segments[index].pages.upperBound
                segments[index].count += difference
                if segments[index].count > 0 { index += 1 } else { segments.remove(at: index) }
            } else {
                let start = next
                next =
                    index < segments.count ? min(segments[index].pages.lowerBound, range.upperBound) : range.upperBound
                guard difference > 0 else { continue }
                segments.insert((start..<next, difference), at: index)
                index += 1
            }
        }
        join(max(first, 1)...max(index, 1))
    }

    /// The index of the first segment that ends behind the address.
    private func index(of address: UInt) -> Int {
        var (low, high) = (0, segments.count)
        while low < high {
            let middle = (low + high) / 2
            if segments[middle].pages.upperBound <= address { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Makes the address a boundary between two segments.
    private mutating func split(at address: UInt) {
        let index = index(of: address)
        guard index < segments.count, segments[index].pages.lowerBound < address else { return }
        let (pages, count) = segments[index]
        segments[index].pages = pages.lowerBound..<address
        segments.insert((address..<pages.upperBound, count), at: index + 1)
    }

    /// Joins each of the segments at these indices with the one before it, if they are adjacent and of one count.
    private mutating func join(_ indices: ClosedRange<Int>) {
        for index in indices.reversed() where index < segments.count {
            let (before, segment) = (segments[index - 1], segments[index])
            guard before.pages.upperBound == segment.pages.lowerBound, before.count == segment.count else { continue }
            segments[index - 1].pages = before.pages.lowerBound..<segment.pages.upperBound
            segments.remove(at: index)
        }
    }
}
