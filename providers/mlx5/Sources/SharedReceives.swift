import CIBVerbs
import CLinux
import KernelVerbs
import ProviderKit

/// A shared receive queue's memory: work requests that are linked by their first segments. What is free is a list; what
/// completes, in whatever order, is put at its end.
struct SharedReceives {
    let memory: DeviceMemory
    /// The number of requests less one, and the logarithm of the size of each.
    let mask: UInt32
    let shift: UInt32
    /// The ids of what was posted.
    let posted: UnsafeMutablePointer<UInt64>
    let record: UnsafeMutableRawPointer
    /// The free requests: the first, and the last, which is never given away.
    private var head: UInt32 = 0
    private var tail: UInt32
    /// How many were posted.
    private var count: UInt32 = 0

    /// - Parameters:
    ///   - entries: a power of two.
    ///   - posted: room for as many.
    ///   - record: 4 bytes.
    init(
        memory: DeviceMemory, size: SharedReceiveSize, posted: UnsafeMutablePointer<UInt64>,
        record: UnsafeMutableRawPointer
    ) {
        self.memory = memory
        mask = size.entries - 1
        shift = size.shift
        self.posted = posted
        self.record = record
        tail = mask
        posted.initialize(repeating: 0, count: Int(size.entries))
        for index in 0..<mask {
            NextSegment.next.put(UInt16(truncatingIfNeeded: index + 1), in: place(index))
        }
    }

    @inline(__always)
    private func place(_ index: UInt32) -> UnsafeMutableRawPointer {
        memory.start + Int(truncatingIfNeeded: UInt64(index) &<< UInt64(shift))
    }

    @inline(__always)
    private var maximumElements: UInt32 { (1 &<< (shift &- 4)) &- 1 }

    /// The request of an index; nil when there is none.
    @inline(__always)
    func entry(_ index: UInt32) -> UnsafeMutableRawPointer? { index <= mask ? place(index) : nil }

    /// Puts a chain of requests into the queue. 0; or ENOMEM (full) or EINVAL, and which request that was.
    @inline(__always)
    mutating func post(
        _ first: UnsafeMutablePointer<ibv_recv_wr>?, _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
    ) -> Int32 {
        var request = first
        var error: Int32 = 0
        var next = head
        var more: UInt32 = 0
        while let current = request {
            if _slowPath(next == tail) {
                error = ENOMEM
                break
            }
            let entry = place(next)
            guard current.writePieces(to: entry + NextSegment.byteCount, room: maximumElements) else {
                error = EINVAL
                break
            }
            posted[Int(next)] = current.pointee.wr_id
            // The device reads the link, and nobody but us writes it.
            next = UInt32(NextSegment.next.get(entry)) & mask
            more &+= 1
            request = current.pointee.next
        }
        if _fastPath(more != 0) {
            head = next
            count &+= more
            linux_barrier_to_device()
            SharedReceiveRecord.receives.put(count, in: record)
        }
        if _slowPath(error != 0) { bad?.pointee = request }
        return error
    }

    /// Makes a request free again.
    @inline(__always)
    mutating func free(_ index: UInt32) {
        NextSegment.next.put(UInt16(truncatingIfNeeded: index), in: place(tail))
        tail = index
    }

    /// Copies what a completion holds to the memory of the request that it is for.
    func scatter(_ completion: Completion, to entry: UnsafeMutableRawPointer) -> ibv_wc_status {
        guard let data = completion.inlineData else { return IBV_WC_SUCCESS }
        guard completion.length <= data.capacity else { return IBV_WC_LOC_LEN_ERR }
        return Mlx5Provider.scatter(
            data.bytes, completion.length, to: entry + NextSegment.byteCount, pieces: maximumElements
        ) { $0 }
    }
}

extension SharedReceiveQueuePointer {
    /// Makes a request free again, for the completion queue's side.
    @inline(__always)
    func free(_ index: UInt32) {
        pointee.lock.lock()
        queue.pointee.free(index)
        pointee.lock.unlock()
    }
}

/// Where another thread holds the lock, the function begins anew and waits: then it is a call like any other.
@inline(never)
func postSharedReceive(
    srq: UnsafeMutablePointer<ibv_srq>?, first: UnsafeMutablePointer<ibv_recv_wr>?,
    bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    let shared = srq.unsafelyUnwrapped.native
    guard _fastPath(shared.pointee.lock.tryLock()) else { return postAfterWaiting(shared, first, bad) }
    return shared.pointee.lock.unlock(answering: shared.queue.pointee.post(first, bad))
}

@inline(never)
private func postAfterWaiting(
    _ shared: SharedReceiveQueuePointer, _ first: UnsafeMutablePointer<ibv_recv_wr>?,
    _ bad: UnsafeMutablePointer<UnsafeMutablePointer<ibv_recv_wr>?>?
) -> Int32 {
    shared.pointee.lock.lock()
    return shared.pointee.lock.unlock(answering: shared.queue.pointee.post(first, bad))
}
