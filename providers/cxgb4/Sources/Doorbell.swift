import CLinux
import ProviderKit

/// The doorbell of a send, receive or shared receive queue: the number of slots posted since the last one.
///
/// On T5 and T6 its page is mapped with write combining. Each queue has a segment of 128 bytes, if that lies in the page
/// that the kernel maps; one slot alone is then written to the segment, and the adapter need not fetch it. Otherwise the
/// queues of a page share the first segment, and the doorbell has the queue's number.
struct Doorbell {
    /// The largest number of slots of one doorbell.
    static var maximumSlots: UInt32 { 0x1FFF }
    private static var segmentSize: Int { 128 }

    private let segment: UnsafeMutableRawPointer
    private let queue: UInt32
    private let isT4: Bool
    private let takesSlots: Bool

    /// - Parameters:
    ///   - page: The mapped page.
    ///   - queue: The number of the queue (`sqid`, `rqid`, `srqid`).
    ///   - mask: The number's bits within the page (`qid_mask`).
    ///   - combines: Whether a slot may be written to the segment.
    init(page: UnsafeMutableRawPointer, queue: UInt32, mask: UInt32, isT4: Bool, combines: Bool) {
        self.isT4 = isT4
        let offset = Self.segmentSize * Int(queue & mask)
        if !isT4 && offset < Int(linux_page_size()) {
            segment = page + offset
            self.queue = 0
            takesSlots = combines
        } else {
            segment = page
            self.queue = queue & mask
            takesSlots = false
        }
    }

    /// Rings the doorbell for `slots` slots, the last of which is at `last`.
    @inline(__always)
    func ring(_ slots: UInt32, last: UnsafeRawPointer) {
        guard _fastPath(!isT4) else { return ringT4(slots) }
        // The work requests must be visible before the write-combined store.
        linux_flush_to_device()
        if slots == 1 && takesSlots {
            linux_copy_to_device(segment + Doorbell5.slot.offset, last)
        } else {
            linux_store_word_to_device(
                segment + Doorbell5.queue.offset,
                Doorbell5.queue.stored(Doorbell5.queue.bits(queue) | Doorbell5.slots.bits(slots)))
        }
        // Before unlocking: another thread's doorbell must not overtake this one in the write-combining buffers.
        linux_flush_to_device()
    }

    @inline(never)
    private func ringT4(_ slots: UInt32) {
        linux_barrier_to_device()
        linux_store_word_to_device(
            segment + Doorbell4.queue.offset,
            Doorbell4.queue.stored(Doorbell4.queue.bits(queue) | Doorbell4.slots.bits(slots)))
    }
}
