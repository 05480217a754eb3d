/// The local ACK timeouts and RNR timers of the queue pairs (`retrans_timer`, `rnr_nak_timer` of the kernel's rxe): a
/// binary heap in a flat array, with at most one entry for each queue pair.
///
/// A later deadline, which every acknowledgement sets, does not change the heap: the entry keeps the earlier time, and
/// when that expires the queue pair is inserted again with its deadline.
struct TimerHeap {
    struct Entry {
        var time: UInt64
        var queuePair: UnsafeMutablePointer<QueuePairStorage>
    }

    private let entries: UnsafeMutablePointer<Entry>
    private let capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        entries = .allocate(capacity: capacity)
    }

    func deallocate() { entries.deallocate() }

    /// The earliest time at which a timer may expire.
    var earliest: UInt64? { count == 0 ? nil : entries[0].time }

    /// Ensures that the heap has an entry of the queue pair at `time` or before.
    mutating func schedule(_ queuePair: UnsafeMutablePointer<QueuePairStorage>, at time: UInt64) {
        let position = queuePair.pointee.timerPosition
        if position >= 0 {
            guard time < entries[position].time else { return }
            entries[position].time = time
            siftUp(position)
        } else {
            precondition(count < capacity, "more timers than queue pairs")
            count += 1
            place(Entry(time: time, queuePair: queuePair), at: count - 1)
            siftUp(count - 1)
        }
    }

    /// Whether the heap has an entry of the queue pair at its deadline or before.
    func covers(_ queuePair: UnsafeMutablePointer<QueuePairStorage>) -> Bool {
        let position = queuePair.pointee.timerPosition
        return position >= 0 && position < count && entries[position].time <= queuePair.pointee.deadline
    }

    /// Removes the earliest entry when its time is at or before `now`.
    mutating func pop(at now: UInt64) -> UnsafeMutablePointer<QueuePairStorage>? {
        guard count > 0, entries[0].time <= now else { return nil }
        let queuePair = entries[0].queuePair
        remove(queuePair)
        return queuePair
    }

    /// Removes the entry of the queue pair, if it has one.
    mutating func remove(_ queuePair: UnsafeMutablePointer<QueuePairStorage>) {
        let position = queuePair.pointee.timerPosition
        guard position >= 0 else { return }
        queuePair.pointee.timerPosition = -1
        count -= 1
        guard position != count else { return }
        place(entries[count], at: position)
        siftUp(position)
        siftDown(position)
    }

    private mutating func place(_ entry: Entry, at position: Int) {
        (entries + position).initialize(to: entry)
        entry.queuePair.pointee.timerPosition = position
    }

    private mutating func siftUp(_ start: Int) {
        var position = start
        let entry = entries[position]
        while position > 0 {
            let parent = (position - 1) / 2
            guard entry.time < entries[parent].time else { break }
            place(entries[parent], at: position)
            position = parent
        }
        place(entry, at: position)
    }

    private mutating func siftDown(_ start: Int) {
        var position = start
        let entry = entries[position]
        while true {
            var child = 2 * position + 1
            guard child < count else { break }
            if child + 1 < count, entries[child + 1].time < entries[child].time { child += 1 }
            guard entries[child].time < entry.time else { break }
            place(entries[child], at: position)
            position = child
        }
        place(entry, at: position)
    }
}
