import CSimulator

/// A descriptor from which a program reads events: a completion channel, or the asynchronous events of an open device.
/// poll(2) reports it as readable while an event is waiting.
final class EventFile {
    let descriptor: Int32
    let context: Context
    let isAsynchronous: Bool
    private var waiting: [Record] = []
    /// The device has failed: read(2) returns the waiting events, then EIO.
    private var isDead = false

    private struct Record {
        let source: EventSource?
        let handle: UInt64
        let type: UInt32
    }

    init(_ context: Context, isAsynchronous: Bool) throws(Refusal) {
        let descriptor = sim_counter()
        try demand(descriptor >= 0, -descriptor, "no descriptor is left for events")
        self.descriptor = descriptor
        self.context = context
        self.isAsynchronous = isAsynchronous
    }

    /// Adds an event of an object.
    func add(_ source: EventSource, type: UInt32 = 0) {
        add(Record(source: source, handle: source.userHandle, type: type))
    }

    /// Adds an event of a port or the device: `element` is the port's number (`ib_uverbs_async_event_desc.element`).
    func add(element: UInt64, type: UInt32) {
        add(Record(source: nil, handle: element, type: type))
    }

    private func add(_ record: Record) {
        waiting.append(record)
        sim_count_up(descriptor)
    }

    /// Removes the unread events of an object that is destroyed.
    func forget(_ source: EventSource) {
        for index in waiting.indices.reversed() where waiting[index].source === source {
            waiting.remove(at: index)
            sim_count_down(descriptor)
        }
    }

    func die() {
        isDead = true
        // The descriptor stays readable, which wakes a waiting reader.
        sim_count_up(descriptor)
    }

    /// read(2): the size of one event, 0 when none is waiting, or a negative errno value.
    func read(_ buffer: UnsafeMutableRawPointer, _ size: Int) -> Int {
        guard let record = waiting.first else { return isDead ? -Int(EIO) : 0 }
        let wanted =
            isAsynchronous
            ? MemoryLayout<ib_uverbs_async_event_desc>.size : MemoryLayout<ib_uverbs_comp_event_desc>.size
        guard size >= wanted else { return -Int(EINVAL) }
        waiting.removeFirst()
        sim_count_down(descriptor)
        buffer.storeBytes(of: record.handle, as: UInt64.self)
        guard isAsynchronous else {
            if let source = record.source, source.kind == .completionQueue {
                unsafeDowncast(source, to: CompletionQueue.self).completionEventsReported &+= 1
            }
            return wanted
        }
        buffer.storeBytes(of: record.type, toByteOffset: 8, as: UInt32.self)
        buffer.storeBytes(of: 0, toByteOffset: 12, as: UInt32.self)
        record.source?.reported &+= 1
        return wanted
    }
}
