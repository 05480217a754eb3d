import CSimulator

/// A doorbell page as the program maps it: of a send queue, a receive queue or a completion queue. On hardware, queues
/// whose numbers differ in the bits of `qid_mask` alone share a page; here every mapping has memory of its own, so that
/// a trapped store does not hide one to another queue.
final class Cxgb4Page {
    let context: Context
    let number: UInt32
    let memory: QueueMemory
    /// The lowest QID of the page.
    let firstQID: UInt32
    /// The segment of the last stores to a write-combining buffer, and its bytes that were stored: bit 0 for byte 0.
    var segment = 0
    var stored: UInt64 = 0

    init(_ context: Context, number: UInt32, memory: QueueMemory, firstQID: UInt32) {
        self.context = context
        self.number = number
        self.memory = memory
        self.firstQID = firstQID
    }
}

/// The mappings of an open device (`c4iw_ucontext` of Linux): keys, which are tokens one page apart, whatever the length
/// of the mapping. A key can be mapped once, with exactly the length of its memory.
final class Cxgb4Mappings: VendorState {
    static let pageSize = 4096

    struct Entry {
        let key: UInt32
        let memory: QueueMemory
        let isDoorbell: Bool
        /// Number of a doorbell page.
        let page: UInt32
    }

    private var memories: QueueMemories
    private var nextKey: UInt32 = 0
    private var pending: [Entry] = []
    /// The numbers that this context may use for its next queues.
    var egress: [UInt32] = []
    var ingress: [UInt32] = []
    /// CREATE_CQ was called without driver data.
    var hasShortCQEs = false
    /// The device's status page (`t4_dev_status_page`).
    var statusPage: QueueMemory?

    init(_ descriptor: Int32) {
        memories = QueueMemories(descriptor)
        super.init()
    }

    func allocate(_ size: Int) throws(Refusal) -> QueueMemory { try memories.allocate(size) }

    /// Returns a key for the memory.
    func offer(_ memory: QueueMemory, page: UInt32? = nil) -> UInt32 {
        let key = nextKey
        nextKey &+= UInt32(Cxgb4Mappings.pageSize)
        pending.append(Entry(key: key, memory: memory, isDoorbell: page != nil, page: page ?? 0))
        return key
    }

    func map(key: UInt32, length: Int) throws(Refusal) -> Entry {
        guard let index = pending.firstIndex(where: { $0.key == key }) else {
            throw Refusal(
                EINVAL, "nothing can be mapped with this key: no command returned it, or it is mapped already",
                has: Int(key))
        }
        let entry = pending[index]
        // mmap(2) rounds the length up to whole pages.
        try demand(
            (length + 4095) & ~4095 == entry.memory.size, EINVAL,
            "a mapping of another length than the key's, in bytes",
            has: length, wants: entry.memory.size)
        return pending.remove(at: index)
    }

    func end(_ memory: QueueMemory) {
        pending.removeAll { $0.memory === memory }
        memories.end(memory)
    }

    func endAll() {
        memories.endAll()
        pending = []
        statusPage = nil
    }
}
