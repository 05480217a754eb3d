import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

/// The memory of a receive queue: a power of two of WQEs of equal size. It does not change after the queue pair is
/// created.
struct ReceiveRing {
    let start: UnsafeMutableRawPointer
    /// The number of WQEs minus one, and the logarithm of the WQE size in bytes.
    let mask: UInt32
    let shift: UInt32
    /// The `wr_id` of each WQE.
    let posted: UnsafeMutablePointer<UInt64>
    /// The number of retired WQEs. The thread that polls the completion queue writes it.
    let retired: SharedIndex

    /// - Parameters:
    ///   - count: The number of WQEs, a power of two.
    ///   - shift: At least 4.
    ///   - posted: Memory for `count` ids.
    ///   - retired: Memory for a 32-bit word.
    init(
        memory: UnsafeMutableRawPointer, count: UInt32, shift: UInt32, posted: UnsafeMutablePointer<UInt64>,
        retired: UnsafeMutableRawPointer
    ) {
        start = memory
        mask = count - 1
        self.shift = shift
        self.posted = posted
        self.retired = SharedIndex(at: retired)
    }

    /// The WQE of any number, modulo the queue size.
    @inline(__always)
    func wqe(_ number: UInt32) -> UnsafeMutableRawPointer {
        start + Int(truncatingIfNeeded: UInt64(number & mask) &<< UInt64(shift))
    }

    /// The maximum number of SGEs of a WQE.
    @inline(__always)
    var maxSGE: UInt32 { 1 &<< (shift &- 4) }
}

/// The receive queue of a queue pair.
struct ReceiveQueue: NativeReceiveQueue {
    /// Nil if the queue pair uses a shared receive queue, or if its `max_recv_wr` is 0.
    let ring: ReceiveRing?
    /// The number of the next WQE.
    fileprivate var number: UInt32 = 0
    private let doorbellRecord: UnsafeMutableRawPointer

    init(ring: ReceiveRing?, doorbellRecord: UnsafeMutableRawPointer) {
        self.ring = ring
        self.doorbellRecord = doorbellRecord
    }

    /// Resets the queue after a transition to RESET.
    mutating func reset() {
        number = 0
        ring?.retired.storeReleasing(0)
    }

    /// Writes the WQEs of a chain of work requests. Returns 0; or ENOMEM (queue full) or EINVAL, with the failed work
    /// request in `bad`.
    @inline(__always)
    mutating func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        guard let ring else {
            bad?.pointee = first
            return EINVAL
        }
        var request = first
        var error: Int32 = 0
        var next = number
        let end = ring.retired.loadAcquiring() &+ ring.mask &+ 1
        while let current = request {
            if _slowPath(next == end) {
                error = ENOMEM
                break
            }
            guard current.writeSGEs(to: ring.wqe(next), room: ring.maxSGE) else {
                error = EINVAL
                break
            }
            ring.posted[Int(next & ring.mask)] = current.pointee.wr_id
            next &+= 1
            request = current.pointee.next
        }
        if _fastPath(next != number) {
            number = next
            linux_barrier_to_device()
            QueuePairDoorbellRecord.receives.put(next, in: doorbellRecord)
        }
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }
}

extension UnsafeMutablePointer<ibv_recv_wr> {
    /// Writes the SGEs of a work request, and the end of the list. Returns false for more than `room` SGEs.
    @inline(__always)
    func writeSGEs(to wqe: UnsafeMutableRawPointer, room: UInt32) -> Bool {
        let count = UInt32(bitPattern: pointee.num_sge)
        guard count <= room else { return false }
        var target = wqe
        var used: UInt32 = 0
        if _fastPath(count != 0) {
            guard var sge = pointee.sg_list else { return false }
            var rest = count
            repeat {
                if _fastPath(sge.pointee.length != 0) {
                    target.putSGE(sge.pointee.length, sge.pointee.lkey, sge.pointee.addr)
                    target += DataSegment.byteCount
                    used &+= 1
                }
                sge += 1
                rest &-= 1
            } while rest != 0
        }
        if used < room { target.putSGE(0, invalidLKey, 0) }
        return true
    }
}

// MARK: - Data in CQEs

/// Copies data that the device scattered to a CQE to the SGEs of the WQE. Returns IBV_WC_LOC_LEN_ERR if the data is
/// longer than the SGEs.
/// - Parameters:
///   - first: The first SGE.
///   - sges: The maximum number of SGEs.
///   - wrapped: Maps the address of an SGE behind the end of the ring to its start.
func scatter(
    _ bytes: UnsafeRawPointer, _ count: UInt32, to first: UnsafeMutableRawPointer, sges: UInt32,
    wrapped: (UnsafeMutableRawPointer) -> UnsafeMutableRawPointer
) -> ibv_wc_status {
    var source = bytes
    var rest = count
    var sge = first
    var left = sges
    while rest != 0 {
        guard left != 0 else { return IBV_WC_LOC_LEN_ERR }
        sge = wrapped(sge)
        let length = min(rest, DataSegment.length.get(sge))
        // Segments after the end of the list belong to an older WQE.
        if length == 0 && DataSegment.key.get(sge) == invalidLKey { return IBV_WC_LOC_LEN_ERR }
        if length != 0 {
            guard let target = UnsafeMutableRawPointer(bitPattern: UInt(DataSegment.address.get(sge))) else {
                return IBV_WC_LOC_PROT_ERR
            }
            target.copyMemory(from: source, byteCount: Int(length))
        }
        source += Int(length)
        rest &-= length
        sge += DataSegment.byteCount
        left &-= 1
    }
    return IBV_WC_SUCCESS
}

extension ReceiveRing {
    /// Copies data in a CQE to the SGEs of its WQE. Does nothing if the CQE has no data.
    func scatter(_ completion: Completion, to number: UInt32) -> ibv_wc_status {
        guard let data = completion.inlineData else { return IBV_WC_SUCCESS }
        guard completion.length <= data.capacity else { return IBV_WC_LOC_LEN_ERR }
        return Mlx5Provider.scatter(data.bytes, completion.length, to: wqe(number), sges: maxSGE) { $0 }
    }
}

extension SendRing {
    /// Copies data in a CQE to the SGEs of its READ or atomic WQE. Does nothing if the CQE has no data.
    func scatter(_ completion: Completion, to number: UInt32) -> ibv_wc_status {
        guard let data = completion.inlineData else { return IBV_WC_SUCCESS }
        guard completion.sendLength <= data.capacity else { return IBV_WC_LOC_LEN_ERR }
        let wqe = wqebb(number)
        let before: UInt32
        switch ControlSegment.opcode.get(wqe) {
        case Opcode.read: before = 2
        case Opcode.compareSwap, Opcode.fetchAdd: before = 3
        default: return IBV_WC_REM_INV_REQ_ERR
        }
        let segments = ControlSegment.segments.get(wqe)
        guard segments >= before, segments <= (mask &+ 1) &* 4 else { return IBV_WC_LOC_LEN_ERR }
        let first = wqe + Int(before) * DataSegment.byteCount
        return Mlx5Provider.scatter(data.bytes, completion.sendLength, to: first, sges: segments &- before) {
            wrapped($0)
        }
    }
}
