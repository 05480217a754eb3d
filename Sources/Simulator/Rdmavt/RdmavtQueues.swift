import CSimulator

/// The memory and indexes of a queue that program and kernel share (`struct rvt_cq_wc`, `struct rvt_rwq`): head@0, the
/// index that the producer writes next; tail@4, the index that the consumer reads next; then the elements. One element
/// more than the queue's capacity exists, and one is always free: an empty queue has equal indexes.
struct RdmavtRing {
    let memory: QueueMemory
    private let elementCount: UInt32
    private let headerSize: Int
    private let stride: Int

    /// - Parameters:
    ///   - headerSize: Offset of element 0, in bytes.
    ///   - stride: Size of an element, in bytes.
    init(_ mappings: RdmavtMappings, capacity: UInt32, headerSize: Int, stride: Int) throws(Refusal) {
        elementCount = capacity + 1
        self.headerSize = headerSize
        self.stride = stride
        memory = try mappings.allocate(headerSize + Int(elementCount) * stride)
    }

    private var words: UnsafeMutablePointer<UInt32> { memory.bytes.assumingMemoryBound(to: UInt32.self) }

    var head: UInt32 {
        get { index(words) }
        nonmutating set { sim_store(words, newValue) }
    }

    var tail: UInt32 {
        get { index(words + 1) }
        nonmutating set { sim_store(words + 1, newValue) }
    }

    /// An index, which the program can write; 0 in place of an invalid one, as in rdmavt.
    private func index(_ place: UnsafeMutablePointer<UInt32>) -> UInt32 {
        let value = sim_load(place)
        return value < elementCount ? value : 0
    }

    /// Number of elements between tail and head.
    var count: UInt32 { (head + elementCount - tail) % elementCount }

    func index(after index: UInt32) -> UInt32 { index + 1 == elementCount ? 0 : index + 1 }

    func element(_ index: UInt32) -> UnsafeMutableRawPointer { memory.bytes + headerSize + Int(index) * stride }

    /// Calls `body` with the address of each element from tail to head; the indexes stay as they are.
    func forEach(_ body: (UnsafeMutableRawPointer) -> Void) {
        var position = tail
        while position != head {
            body(element(position))
            position = index(after: position)
        }
    }
}

/// A completion queue: `struct rvt_cq_wc`, a ring of `struct ib_uverbs_wc`. The kernel writes head, the program tail.
final class RdmavtCompletions: VendorState {
    private let ring: RdmavtRing

    var memory: QueueMemory { ring.memory }

    init(_ mappings: RdmavtMappings, entries: UInt32) throws(Refusal) {
        ring = try RdmavtRing(
            mappings, capacity: entries, headerSize: MemoryLayout<rvt_cq_wc>.size,
            stride: MemoryLayout<ib_uverbs_wc>.size)
        super.init()
    }

    /// Number of CQEs that the program has not polled.
    var count: UInt32 { ring.count }

    /// Writes a CQE; false when the queue is full.
    func append(_ cqe: ib_uverbs_wc) -> Bool {
        let head = ring.head
        let next = ring.index(after: head)
        guard next != ring.tail else { return false }
        ring.element(head).storeBytes(of: cqe, as: ib_uverbs_wc.self)
        ring.head = next
        return true
    }

    /// Copies the unpolled CQEs to a queue that has room for them.
    func move(to other: RdmavtCompletions) {
        ring.forEach { _ = other.append($0.load(as: ib_uverbs_wc.self)) }
    }
}

/// A receive queue: `struct rvt_rwq`, a ring of `struct rvt_rwqe`: wr_id@0, num_sge@8, `struct rvt_wqe_sge` from 16 on.
/// The program writes head, the kernel tail.
final class RdmavtReceives: VendorState {
    private let ring: RdmavtRing
    private let sges: UInt32
    private let stride: Int

    var memory: QueueMemory { ring.memory }

    init(_ mappings: RdmavtMappings, requests: UInt32, sges: UInt32) throws(Refusal) {
        self.sges = sges
        stride = MemoryLayout<rvt_rwqe>.size + Int(sges) * MemoryLayout<rvt_wqe_sge>.size
        ring = try RdmavtRing(
            mappings, capacity: requests, headerSize: MemoryLayout<rvt_rwq>.size, stride: stride)
        super.init()
    }

    /// Number of posted WQEs.
    var count: UInt32 { ring.count }

    /// Decodes and removes the oldest WQE; false when the queue is empty.
    func consume(_ request: ReceiveRequest) -> Bool {
        let tail = ring.tail
        guard tail != ring.head else { return false }
        let wqe = ring.element(tail)
        request.tag = wqe.load(as: UInt64.self)
        let count = UInt32(wqe.load(fromByteOffset: 8, as: UInt8.self))
        request.isDefect = count > sges
        for index in 0..<min(count, sges) {
            let sge = wqe.load(fromByteOffset: 16 + 16 * Int(index), as: rvt_wqe_sge.self)
            if !request.append(SGE(address: sge.addr, length: sge.length, key: sge.lkey)) {
                request.isDefect = true
            }
        }
        ring.tail = ring.index(after: tail)
        return true
    }

    func clear() {
        ring.head = 0
        ring.tail = 0
    }

    /// Copies the posted WQEs to the beginning of an empty queue that has room for them.
    func move(to other: RdmavtReceives) {
        var next: UInt32 = 0
        ring.forEach {
            other.ring.element(next).copyMemory(from: $0, byteCount: stride)
            next += 1
        }
        other.ring.head = next
    }
}
