import CLinux
import ProviderKit

/// The memory of a send, receive or shared receive queue, in slots of 64 bytes. A work request begins at a slot, takes one
/// or more, and wraps from the last slot to the first. The status page follows the last slot.
struct WorkRing {
    /// The largest work request.
    private static var largest: Int { Int(Limits.sendSlots) * Limits.slotSize }

    let start: UnsafeMutableRawPointer
    let slots: UInt32
    /// The first slot at which the largest work request of the queue would wrap.
    private let firstWrapping: UInt32
    /// Where a work request is written that wraps, or that the queue's memory does not take word by word.
    private let scratch: UnsafeMutableRawPointer
    /// Whether the queue is in the memory of the adapter (T4), which is mapped with write combining.
    let isOnChip: Bool
    /// The next slot.
    var next: UInt32 = 0

    /// - Parameters:
    ///   - slotsPerRequest: The slots of the largest work request.
    init(start: UnsafeMutableRawPointer, requests: UInt32, slotsPerRequest: UInt32, isOnChip: Bool = false) {
        self.start = start
        slots = requests * slotsPerRequest
        self.isOnChip = isOnChip
        firstWrapping = isOnChip ? 0 : slots - slotsPerRequest + 1
        scratch = .allocate(byteCount: Self.largest, alignment: 16)
        scratch.initializeMemory(as: UInt8.self, repeating: 0, count: Self.largest)
    }

    func free() { scratch.deallocate() }

    @inline(__always)
    func slot(_ number: UInt32) -> UnsafeMutableRawPointer {
        start + Int(truncatingIfNeeded: UInt64(number) &<< 6)
    }

    var statusPage: UnsafeMutableRawPointer { slot(slots) }

    /// Where to write the next work request: its slot, or the scratch memory, from which `commit` copies it.
    @inline(__always)
    var target: UnsafeMutableRawPointer { _fastPath(next < firstWrapping) ? slot(next) : scratch }

    /// Adds the work request at `target`.
    /// - Parameter length: Its size in units of 16 bytes.
    /// - Returns: The number of its slots.
    @inline(__always)
    mutating func commit(_ length: UInt32) -> UInt32 {
        if _slowPath(next >= firstWrapping) { copyScratch(length) }
        let taken = (length &+ 3) / 4
        next &+= taken
        if next >= slots { next &-= slots }
        return taken
    }

    @inline(never)
    private func copyScratch(_ length: UInt32) {
        // The adapter's memory takes whole slots: it may send them on before the doorbell.
        let units = isOnChip ? (length &+ 3) & ~3 : length
        if isOnChip { linux_flush_to_device() }
        var slot = slot(next)
        let end = statusPage
        for unit in 0..<Int(units) {
            linux_store_to_device(slot, scratch.load(fromByteOffset: 16 * unit, as: UInt64.self))
            linux_store_to_device(slot + 8, scratch.load(fromByteOffset: 16 * unit + 8, as: UInt64.self))
            slot += 16
            if slot == end { slot = start }
        }
        if isOnChip { linux_flush_to_device() }
    }

    /// The slot of the last work request.
    @inline(__always)
    func last(_ taken: UInt32) -> UnsafeMutableRawPointer {
        slot(next >= taken ? next &- taken : next &+ slots &- taken)
    }

    /// Stores the number of the next slot, which the kernel needs to recover lost doorbells, and the index of the next
    /// work request. The doorbell follows.
    @inline(__always)
    func storeNext(_ index: UInt32) {
        StatusPage.nextSlot.put(UInt16(truncatingIfNeeded: next), in: statusPage)
        StatusPage.nextRequest.put(UInt16(truncatingIfNeeded: index), in: statusPage)
    }
}
