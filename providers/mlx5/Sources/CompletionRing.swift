import CIBVerbs
import CLinux
import ProviderKit

/// The ring of a completion queue: entries of 64 or 128 bytes, a power of two of them, each with a bit that tells by whom it
/// was written last: it is turned with every round.
struct CompletionRing {
    let memory: DeviceMemory
    /// The number of entries less one.
    let mask: UInt32
    /// Logarithm of an entry's size: 6 or 7.
    let shift: UInt32
    /// The next entry; counts on beyond the ring.
    var consumer: UInt32 = 0
    let record: UnsafeMutableRawPointer
    /// How often the user has seen an event of it, at an address of its own: other threads count.
    let armSequence: UnsafeMutableRawPointer
    /// Which it is, and where its doorbell is.
    var number: UInt32 = 0
    let register: UnsafeMutableRawPointer
    let context: Mlx5ContextPointer

    /// Between start_poll and end_poll: the completion that is shown, and what is known of it.
    var shown = Completion(UnsafeRawPointer(bitPattern: 64)!)
    var shownOpcode: UInt32 = 0

    /// Makes all entries the device's.
    static func prepare(_ memory: DeviceMemory, entries: UInt32, shift: UInt32) {
        let last = 1 << Int(shift) - 1
        for index in 0..<Int(entries) {
            memory.start.storeBytes(
                of: CompletionKind.none.rawValue << 4, toByteOffset: index << Int(shift) + last, as: UInt8.self)
        }
    }

    /// The 64 bytes of an entry of any number.
    @inline(__always)
    func entry(_ number: UInt32) -> UnsafeMutableRawPointer {
        let offset = Int(truncatingIfNeeded: UInt64(number & mask) &<< UInt64(shift))
        return memory.start + (offset &+ ((1 &<< Int(shift)) &- CompletionEntry.byteCount))
    }

    /// Whether the device has written an entry since the round before.
    @inline(__always)
    func isThere(_ entry: UnsafeRawPointer, _ number: UInt32) -> Bool {
        // Both in the last byte, which the device writes last.
        let opcode = linux_load_byte(entry + CompletionEntry.opcode.offset)
        let owner = linux_load_byte(entry + CompletionEntry.owner.offset)
        return CompletionEntry.opcode.value(of: opcode) != CompletionKind.none.rawValue
            && (CompletionEntry.owner.value(of: owner) != 0) == (number & (mask &+ 1) != 0)
    }

    /// Takes the next completion, if there is one.
    @inline(__always)
    mutating func next() -> Completion? {
        let entry = entry(consumer)
        guard isThere(entry, consumer) else { return nil }
        consumer &+= 1
        // The rest was written before the bit.
        linux_barrier_from_device()
        return Completion(entry, isLarge: shift == 7)
    }

    /// Tells the device what it may write again.
    @inline(__always)
    func release() { CompletionRecord.consumer.put(consumer, in: record) }
}
