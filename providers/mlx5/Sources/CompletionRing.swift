import CIBVerbs
import CLinux
import ProviderKit

/// The ring of a completion queue: a power of two of CQEs of 64 or 128 bytes. The owner bit of a CQE, which toggles
/// with every pass over the ring, tells whether the device has written it in this pass.
struct CompletionRing {
    let memory: DeviceMemory
    /// The number of CQEs minus one.
    let mask: UInt32
    /// The logarithm of the CQE size: 6 or 7.
    let shift: UInt32
    /// The consumer index, which is not reduced modulo the ring size.
    var consumer: UInt32 = 0
    let doorbellRecord: UnsafeMutableRawPointer
    /// The arm sequence number (`cmd_sn`): the number of completion events read. A separate word, because other threads
    /// write it.
    let armSequence: UnsafeMutableRawPointer
    /// The CQN, and the UAR page with the CQ doorbell.
    var number: UInt32 = 0
    let uarPage: UnsafeMutableRawPointer
    let context: Mlx5ContextPointer

    /// The current completion between start_poll and end_poll, and the `PostedSend.opcode` of its WQE.
    var current = Completion(UnsafeRawPointer(bitPattern: 64)!)
    var currentOpcode: UInt32 = 0

    /// Marks all CQEs as invalid (`MLX5_CQE_INVALID`), that is, owned by the device.
    static func prepare(_ memory: DeviceMemory, entries: UInt32, shift: UInt32) {
        let last = 1 << Int(shift) - 1
        for index in 0..<Int(entries) {
            memory.start.storeBytes(
                of: CQEOpcode.invalid.rawValue << 4, toByteOffset: index << Int(shift) + last, as: UInt8.self)
        }
    }

    /// The 64-byte CQE of an index.
    @inline(__always)
    func cqe(_ number: UInt32) -> UnsafeMutableRawPointer {
        let offset = Int(truncatingIfNeeded: UInt64(number & mask) &<< UInt64(shift))
        return memory.start + (offset &+ ((1 &<< Int(shift)) &- CQE.byteCount))
    }

    /// Whether the device has written the CQE in this pass over the ring.
    @inline(__always)
    func isWritten(_ cqe: UnsafeRawPointer, _ number: UInt32) -> Bool {
        // Opcode and owner bit are in the last byte, which the device writes last.
        let opcode = linux_load_byte(cqe + CQE.opcode.offset)
        let owner = linux_load_byte(cqe + CQE.owner.offset)
        return CQE.opcode.value(of: opcode) != CQEOpcode.invalid.rawValue
            && (CQE.owner.value(of: owner) != 0) == (number & (mask &+ 1) != 0)
    }

    /// Consumes the next CQE, if there is one.
    @inline(__always)
    mutating func next() -> Completion? {
        let cqe = cqe(consumer)
        guard isWritten(cqe, consumer) else { return nil }
        consumer &+= 1
        // The device wrote the rest of the CQE before the owner bit.
        linux_barrier_from_device()
        return Completion(cqe, isLarge: shift == 7)
    }

    /// Publishes the consumer index in the doorbell record: the device may reuse the consumed CQEs.
    @inline(__always)
    func release() { CompletionQueueDoorbellRecord.consumer.put(consumer, in: doorbellRecord) }
}
