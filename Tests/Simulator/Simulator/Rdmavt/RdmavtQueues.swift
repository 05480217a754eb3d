import CSimulator

/// A completion queue: `struct rvt_cq_wc`. head@0 is the kernel's, tail@4 the program's; entries @8.
final class RdmavtCompletions: VendorState {
    let memory: RdmavtMemory
    /// One more than the program asked for: an entry stays free.
    private let slots: UInt32

    private static let first = MemoryLayout<rvt_cq_wc>.size
    private static let stride = MemoryLayout<ib_uverbs_wc>.size

    init(_ mappings: RdmavtMappings, entries: UInt32) throws(Refusal) {
        slots = entries + 1
        memory = try mappings.allocate(Self.first + Int(slots) * Self.stride)
        super.init()
    }

    private var head: UnsafeMutablePointer<UInt32> { memory.bytes.assumingMemoryBound(to: UInt32.self) }
    private var tail: UnsafeMutablePointer<UInt32> { (memory.bytes + 4).assumingMemoryBound(to: UInt32.self) }

    /// An index that the program can write to is taken for 0 where it is none, as rdmavt does.
    private func index(_ place: UnsafeMutablePointer<UInt32>) -> UInt32 {
        let value = sim_load(place)
        return value < slots ? value : 0
    }

    /// Completions that the program has not polled.
    var count: UInt32 { (index(head) + slots - index(tail)) % slots }

    func append(_ entry: ib_uverbs_wc) -> Bool {
        let place = index(head)
        let next = place + 1 == slots ? 0 : place + 1
        guard next != index(tail) else { return false }
        memory.bytes.storeBytes(
            of: entry, toByteOffset: Self.first + Int(place) * Self.stride, as: ib_uverbs_wc.self)
        sim_store(head, next)
        return true
    }

    /// What waits goes over to a queue that has room for it.
    func move(to other: RdmavtCompletions) {
        var place = index(tail)
        while place != index(head) {
            _ = other.append(
                memory.bytes.load(fromByteOffset: Self.first + Int(place) * Self.stride, as: ib_uverbs_wc.self))
            place = place + 1 == slots ? 0 : place + 1
        }
    }
}

/// A receive queue: `struct rvt_rwq`. head@0 is the program's, tail@4 the kernel's; entries @8: wr_id@0, num_sge@8, then
/// `struct rvt_wqe_sge` from 16 on.
final class RdmavtReceives: VendorState {
    let memory: RdmavtMemory
    private let slots: UInt32
    private let elements: UInt32
    private let stride: Int

    private static let first = MemoryLayout<rvt_rwq>.size

    init(_ mappings: RdmavtMappings, requests: UInt32, elements: UInt32) throws(Refusal) {
        slots = requests + 1
        self.elements = elements
        stride = MemoryLayout<rvt_rwqe>.size + Int(elements) * MemoryLayout<rvt_wqe_sge>.size
        memory = try mappings.allocate(Self.first + Int(slots) * stride)
        super.init()
    }

    private var head: UnsafeMutablePointer<UInt32> { memory.bytes.assumingMemoryBound(to: UInt32.self) }
    private var tail: UnsafeMutablePointer<UInt32> { (memory.bytes + 4).assumingMemoryBound(to: UInt32.self) }

    private func index(_ place: UnsafeMutablePointer<UInt32>) -> UInt32 {
        let value = sim_load(place)
        return value < slots ? value : 0
    }

    /// Requests that wait.
    var count: UInt32 { (index(head) + slots - index(tail)) % slots }

    func take(_ request: ReceiveRequest) -> Bool {
        let place = index(tail)
        guard place != index(head) else { return false }
        let entry = memory.bytes + Self.first + Int(place) * stride
        request.tag = entry.load(as: UInt64.self)
        let count = UInt32(entry.load(fromByteOffset: 8, as: UInt8.self))
        request.isDefect = count > elements
        for element in 0..<min(count, elements) {
            let segment = entry.load(fromByteOffset: 16 + 16 * Int(element), as: rvt_wqe_sge.self)
            if !request.append(Segment(address: segment.addr, length: segment.length, key: segment.lkey)) {
                request.isDefect = true
            }
        }
        sim_store(tail, place + 1 == slots ? 0 : place + 1)
        return true
    }

    func clear() {
        sim_store(head, 0)
        sim_store(tail, 0)
    }

    /// What waits goes over to a queue that has room for it.
    func move(to other: RdmavtReceives) {
        var place = index(tail)
        var next: UInt32 = 0
        while place != index(head) {
            (other.memory.bytes + Self.first + Int(next) * stride).copyMemory(
                from: memory.bytes + Self.first + Int(place) * stride, byteCount: stride)
            next += 1
            place = place + 1 == slots ? 0 : place + 1
        }
        sim_store(other.head, next)
    }
}
