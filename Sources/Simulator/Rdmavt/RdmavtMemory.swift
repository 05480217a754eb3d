import CSimulator

/// The memory of a queue: a range of the descriptor's file, which program and kernel map.
final class RdmavtMemory {
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

/// The mappings of an open device: the offsets that can be mapped (`pending_mmaps` of rdmavt).
final class RdmavtMappings: VendorState {
    private let descriptor: Int32
    private var next: UInt64 = 1 << 16
    private var pending: [RdmavtMemory] = []
    private var all: [RdmavtMemory] = []

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        super.init()
    }

    func allocate(_ size: Int) throws(Refusal) -> RdmavtMemory {
        let size = (size + 4095) & ~4095
        guard let bytes = sim_view(descriptor, next, size) else { throw Refusal(ENOMEM, "no memory for a queue") }
        let memory = RdmavtMemory(offset: next, size: size, bytes: bytes)
        // A page between two queues, so that an overrun of one queue does not reach the next one.
        next += UInt64(size) + 4096
        all.append(memory)
        return memory
    }

    func offer(_ memory: RdmavtMemory) { pending.append(memory) }

    func map(offset: UInt64, length: Int) throws(Refusal) {
        guard let index = pending.firstIndex(where: { $0.offset == offset }) else {
            throw Refusal(
                EINVAL, "nothing can be mapped at this offset: no command returned it, or it is mapped already",
                has: Int(truncatingIfNeeded: offset))
        }
        let size = pending[index].size
        try demand(length <= size, EINVAL, "a mapping longer than the queue, in bytes", has: length, wants: size)
        pending.remove(at: index)
    }

    /// Releases the memory of a destroyed queue; the program's mapping stays until munmap(2).
    func end(_ memory: RdmavtMemory) {
        pending.removeAll { $0 === memory }
        all.removeAll { $0 === memory }
        sim_end_view(memory.bytes, memory.size)
    }

    func endAll() {
        for memory in all { sim_end_view(memory.bytes, memory.size) }
        all = []
        pending = []
    }
}
