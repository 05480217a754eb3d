import CLinux
import ProviderKit

/// Memory that the device reads and writes: zeroed pages, which a child of fork(2) does not inherit.
struct DeviceMemory {
    let start: UnsafeMutableRawPointer
    let byteCount: Int

    /// Allocates `byteCount` bytes, rounded up to whole pages. Returns nil and sets errno if there is no memory.
    init?(byteCount: Int) {
        let rounded = (max(byteCount, 1) + Int(linux_page_size()) - 1) & ~(Int(linux_page_size()) - 1)
        guard let start = linux_map_memory(rounded) else { return nil }
        self.start = start
        self.byteCount = rounded
    }

    func free() { linux_unmap(start, byteCount) }
}

/// The allocator of doorbell records: 8 bytes, each in its own 64-byte cache line of a shared page.
struct DoorbellRecords: ~Copyable {
    private static let lineSize = 64

    /// A page, and the bit mask of its allocated lines.
    private struct Page {
        let memory: DeviceMemory
        var allocated: UInt64 = 0
    }

    private let lock = Lock()
    /// A growing array of pages, guarded by `lock`.
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

    /// Allocates a zeroed doorbell record. Returns nil and sets errno if there is no memory.
    borrowing func allocate() -> UnsafeMutableRawPointer? {
        lock.lock()
        defer { lock.unlock() }
        for index in 0..<pages.pointee.count where pages.pointee.first[index].allocated != .max {
            return line(of: index)
        }
        guard let memory = DeviceMemory(byteCount: 64 * Self.lineSize) else { return nil }
        if pages.pointee.count == pages.pointee.capacity { grow() }
        (pages.pointee.first + pages.pointee.count).initialize(to: Page(memory: memory))
        pages.pointee.count += 1
        return line(of: pages.pointee.count - 1)
    }

    /// Frees a doorbell record.
    borrowing func free(_ record: UnsafeMutableRawPointer) {
        lock.lock()
        defer { lock.unlock() }
        for index in 0..<pages.pointee.count {
            let offset = record - pages.pointee.first[index].memory.start
            guard offset >= 0, offset < 64 * Self.lineSize else { continue }
            pages.pointee.first[index].allocated &= ~(1 << UInt64(offset / Self.lineSize))
        }
    }

    private borrowing func line(of index: Int) -> UnsafeMutableRawPointer {
        let line = (~pages.pointee.first[index].allocated).trailingZeroBitCount
        pages.pointee.first[index].allocated |= 1 << UInt64(line)
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
