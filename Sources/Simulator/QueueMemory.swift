import CSimulator

/// Memory that program and device share: a range of the descriptor's file.
final class QueueMemory {
    let offset: UInt64
    let size: Int
    let bytes: UnsafeMutableRawPointer

    var all: UnsafeMutableRawBufferPointer { .init(start: bytes, count: size) }

    fileprivate init(offset: UInt64, size: Int, bytes: UnsafeMutableRawPointer) {
        self.offset = offset
        self.size = size
        self.bytes = bytes
    }
}

/// The queues' memory of an open device.
struct QueueMemories {
    private let descriptor: Int32
    private var nextOffset: UInt64
    private var all: [QueueMemory] = []

    /// - Parameter firstOffset: The offset of the first memory in the descriptor's file.
    init(_ descriptor: Int32, firstOffset: UInt64 = 0) {
        self.descriptor = descriptor
        nextOffset = firstOffset
    }

    mutating func allocate(_ size: Int) throws(Refusal) -> QueueMemory {
        let size = (size + 4095) & ~4095
        guard let bytes = sim_view(descriptor, nextOffset, size) else { throw Refusal(ENOMEM, "no memory for a queue") }
        let memory = QueueMemory(offset: nextOffset, size: size, bytes: bytes)
        // A page between two queues, so that an overrun of one queue does not reach the next one.
        nextOffset += UInt64(size) + 4096
        all.append(memory)
        return memory
    }

    /// Releases the memory of a destroyed queue; the program's mapping stays until munmap(2).
    mutating func end(_ memory: QueueMemory) {
        all.removeAll { $0 === memory }
        sim_end_view(memory.bytes, memory.size)
    }

    mutating func endAll() {
        for memory in all { sim_end_view(memory.bytes, memory.size) }
        all = []
    }
}
