import CLinux
import ProviderKit

/// Memory of this process that the device reads and writes: pages of their own, zeroed, which a child of fork(2) does not
/// get.
struct DeviceMemory {
    let start: UnsafeMutableRawPointer
    let byteCount: Int

    /// Nil and errno when there is none.
    init?(byteCount: Int) {
        let rounded = (max(byteCount, 1) + Int(linux_page_size()) - 1) & ~(Int(linux_page_size()) - 1)
        guard let start = linux_map_memory(rounded) else { return nil }
        self.start = start
        self.byteCount = rounded
    }

    func free() { linux_unmap(start, byteCount) }
}

/// Doorbell records: 8 bytes each, in a cache line of its own, many to a page.
struct DoorbellRecords: ~Copyable {
    private static let lineSize = 64

    /// A page, and which of its lines are taken.
    private struct Page {
        let memory: DeviceMemory
        var taken: UInt64 = 0
    }

    private let lock = Lock()
    /// Pages, in a block that grows; under the lock.
    private let pages: UnsafeMutablePointer<(first: UnsafeMutablePointer<Page>, count: Int, capacity: Int)>

    init() {
        pages = .allocate(capacity: 1)
        pages.initialize(to: (.allocate(capacity: 8), 0, 8))
    }

    deinit {
        for index in 0..<pages.pointee.count { pages.pointee.first[index].memory.free() }
        pages.pointee.first.deallocate()
        pages.deallocate()
    }

    /// A record of zeros; nil and errno when there is no memory.
    borrowing func take() -> UnsafeMutableRawPointer? {
        lock.lock()
        defer { lock.unlock() }
        for index in 0..<pages.pointee.count where pages.pointee.first[index].taken != .max {
            return line(of: index)
        }
        guard let memory = DeviceMemory(byteCount: 64 * Self.lineSize) else { return nil }
        if pages.pointee.count == pages.pointee.capacity { grow() }
        (pages.pointee.first + pages.pointee.count).initialize(to: Page(memory: memory))
        pages.pointee.count += 1
        return line(of: pages.pointee.count - 1)
    }

    /// Gives a record back.
    borrowing func giveBack(_ record: UnsafeMutableRawPointer) {
        lock.lock()
        defer { lock.unlock() }
        for index in 0..<pages.pointee.count {
            let offset = record - pages.pointee.first[index].memory.start
            guard offset >= 0, offset < 64 * Self.lineSize else { continue }
            pages.pointee.first[index].taken &= ~(1 << UInt64(offset / Self.lineSize))
        }
    }

    private borrowing func line(of index: Int) -> UnsafeMutableRawPointer {
        let line = (~pages.pointee.first[index].taken).trailingZeroBitCount
        pages.pointee.first[index].taken |= 1 << UInt64(line)
        let record = pages.pointee.first[index].memory.start + line * Self.lineSize
        record.storeBytes(of: 0, as: UInt64.self)
        return record
    }

    private borrowing func grow() {
        let capacity = pages.pointee.capacity * 2
        let larger = UnsafeMutablePointer<Page>.allocate(capacity: capacity)
        larger.initialize(from: pages.pointee.first, count: pages.pointee.count)
        pages.pointee.first.deallocate()
        pages.pointee.first = larger
        pages.pointee.capacity = capacity
    }
}
