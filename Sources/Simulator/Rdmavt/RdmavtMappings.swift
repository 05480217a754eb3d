import CSimulator

/// The mappings of an open device: the offsets that can be mapped (`pending_mmaps` of rdmavt).
final class RdmavtMappings: VendorState {
    private var memories: QueueMemories
    private var pending: [QueueMemory] = []

    init(_ descriptor: Int32) {
        memories = QueueMemories(descriptor, firstOffset: 1 << 16)
        super.init()
    }

    func allocate(_ size: Int) throws(Refusal) -> QueueMemory { try memories.allocate(size) }

    func offer(_ memory: QueueMemory) { pending.append(memory) }

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

    func end(_ memory: QueueMemory) {
        pending.removeAll { $0 === memory }
        memories.end(memory)
    }

    func endAll() {
        memories.endAll()
        pending = []
    }
}
