import CIBVerbs
import CLinux
import ProviderKit

/// The memory of a receive queue: work requests of one size, a power of two of them. Nothing here changes once the queue
/// pair is made.
struct ReceiveRing {
    let start: UnsafeMutableRawPointer
    /// The number of requests less one, and the logarithm of the size of each.
    let mask: UInt32
    let shift: UInt32
    /// The ids of what was posted.
    let posted: UnsafeMutablePointer<UInt64>
    /// How many requests have completed, which the completion queue's side writes.
    let retired: SharedIndex

    /// - Parameters:
    ///   - count: a power of two.
    ///   - shift: at least 4.
    ///   - posted: room for `count`.
    ///   - retired: a word.
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

    /// The request of a number, whatever it is.
    @inline(__always)
    func entry(_ number: UInt32) -> UnsafeMutableRawPointer {
        start + Int(truncatingIfNeeded: UInt64(number & mask) &<< UInt64(shift))
    }

    /// How many pieces of memory a request can name.
    @inline(__always)
    var maximumElements: UInt32 { 1 &<< (shift &- 4) }
}

/// The receive queue of a queue pair.
struct ReceiveQueue {
    /// Nil with a shared receive queue, or when none was asked for.
    let ring: ReceiveRing?
    /// Number of the next request.
    fileprivate var number: UInt32 = 0
    private let record: UnsafeMutableRawPointer

    init(ring: ReceiveRing?, record: UnsafeMutableRawPointer) {
        self.ring = ring
        self.record = record
    }

    /// As after a reset.
    mutating func rewind() {
        number = 0
        ring?.retired.storeReleasing(0)
    }

    /// Puts a chain of requests into the queue. 0; or ENOMEM (full) or EINVAL, and which request that was.
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
            guard current.writePieces(to: ring.entry(next), room: ring.maximumElements) else {
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
            QueuePairRecord.receives.put(next, in: record)
        }
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }
}

extension UnsafeMutablePointer<ibv_recv_wr> {
    /// Writes the pieces of memory of a request, and their end. False when they are too many.
    @inline(__always)
    func writePieces(to entry: UnsafeMutableRawPointer, room: UInt32) -> Bool {
        let count = UInt32(bitPattern: pointee.num_sge)
        guard count <= room else { return false }
        var target = entry
        var used: UInt32 = 0
        if _fastPath(count != 0) {
            guard var element = pointee.sg_list else { return false }
            var rest = count
            repeat {
                if _fastPath(element.pointee.length != 0) {
                    target.putPiece(element.pointee.length, element.pointee.lkey, element.pointee.addr)
                    target += DataSegment.byteCount
                    used &+= 1
                }
                element += 1
                rest &-= 1
            } while rest != 0
        }
        if used < room { target.putPiece(0, endOfListKey, 0) }
        return true
    }
}

// MARK: - Data in the completion

/// Copies data to the pieces of memory that a work request names: what the device has written into the completion in
/// place of them. IBV_WC_LOC_LEN_ERR when there is more of it than they take.
/// - Parameters:
///   - pieces: at most so many.
///   - wrapped: where a piece really lies.
func scatter(
    _ bytes: UnsafeRawPointer, _ count: UInt32, to first: UnsafeMutableRawPointer, pieces: UInt32,
    wrapped: (UnsafeMutableRawPointer) -> UnsafeMutableRawPointer
) -> ibv_wc_status {
    var source = bytes
    var rest = count
    var piece = first
    var left = pieces
    while rest != 0 {
        guard left != 0 else { return IBV_WC_LOC_LEN_ERR }
        piece = wrapped(piece)
        let length = min(rest, DataSegment.length.get(piece))
        // What lies behind the end of a list is of an older request.
        if length == 0 && DataSegment.key.get(piece) == endOfListKey { return IBV_WC_LOC_LEN_ERR }
        if length != 0 {
            guard let target = UnsafeMutableRawPointer(bitPattern: UInt(DataSegment.address.get(piece))) else {
                return IBV_WC_LOC_PROT_ERR
            }
            target.copyMemory(from: source, byteCount: Int(length))
        }
        source += Int(length)
        rest &-= length
        piece += DataSegment.byteCount
        left &-= 1
    }
    return IBV_WC_SUCCESS
}

extension ReceiveRing {
    /// Copies what a completion holds to the memory of the request that it is for.
    func scatter(_ completion: Completion, to number: UInt32) -> ibv_wc_status {
        guard let data = completion.inlineData else { return IBV_WC_SUCCESS }
        guard completion.length <= data.capacity else { return IBV_WC_LOC_LEN_ERR }
        return Mlx5Provider.scatter(data.bytes, completion.length, to: entry(number), pieces: maximumElements) { $0 }
    }
}

extension SendRing {
    /// Copies what a completion holds to the memory of the READ or atomic operation that it is for.
    func scatter(_ completion: Completion, to number: UInt32) -> ibv_wc_status {
        guard let data = completion.inlineData else { return IBV_WC_SUCCESS }
        guard completion.sendLength <= data.capacity else { return IBV_WC_LOC_LEN_ERR }
        let entry = block(number)
        let before: UInt32
        switch ControlSegment.opcode.get(entry) {
        case Opcode.read: before = 2
        case Opcode.compareSwap, Opcode.fetchAdd: before = 3
        default: return IBV_WC_REM_INV_REQ_ERR
        }
        let segments = ControlSegment.segments.get(entry)
        guard segments >= before, segments <= (mask &+ 1) &* 4 else { return IBV_WC_LOC_LEN_ERR }
        let first = entry + Int(before) * DataSegment.byteCount
        return Mlx5Provider.scatter(data.bytes, completion.sendLength, to: first, pieces: segments &- before) {
            wrapped($0)
        }
    }
}
