import CIBVerbs
import CKernelABI
import Glibc

@testable import Hfi1Provider

/// A queue as rdmavt would map it, with no accessible page behind it: a write or read behind the last entry is a crash of
/// the test. Its entries are filled with 0xA5.
final class FakeRing {
    let mapping: Mapping
    let entrySize: Int
    let places: Int
    private let pages: UnsafeMutableRawPointer
    private let pageBytes: Int

    init(entrySize: Int, places: Int) {
        self.entrySize = entrySize
        self.places = places
        let byteCount = MemoryLayout<rvt_rwq>.size + entrySize * places
        let used = (byteCount + 4095) & ~4095
        pageBytes = used + 4096
        pages = mmap(nil, pageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        mprotect(pages + used, 4096, PROT_NONE)
        mapping = Mapping(memory: pages + (used - byteCount), byteCount: byteCount)
        memset(mapping.memory, 0xA5, byteCount)
        memset(mapping.memory, 0, MemoryLayout<rvt_rwq>.size)
    }

    deinit { munmap(pages, pageBytes) }

    /// The two indices, through the kernel's struct.
    var indices: UnsafeMutablePointer<rvt_rwq> { mapping.memory.assumingMemoryBound(to: rvt_rwq.self) }

    func entry(_ index: Int) -> UnsafeMutableRawPointer {
        mapping.memory + MemoryLayout<rvt_rwq>.size + (index % places) * entrySize
    }

    func receive(_ index: Int) -> rvt_rwqe { entry(index).loadUnaligned(as: rvt_rwqe.self) }

    func elements(_ index: Int, _ count: Int) -> [rvt_wqe_sge] {
        (0..<count).map {
            entry(index).loadUnaligned(fromByteOffset: MemoryLayout<rvt_rwqe>.size + 16 * $0, as: rvt_wqe_sge.self)
        }
    }

    /// What the kernel does: takes requests, or puts completions.
    func consume(_ count: Int) {
        indices.pointee.tail.val = UInt32((Int(indices.pointee.tail.val) + count) % places)
    }

    func complete(_ completion: ib_uverbs_wc) {
        entry(Int(indices.pointee.head.val)).storeBytes(of: completion, as: ib_uverbs_wc.self)
        indices.pointee.head.val = UInt32((Int(indices.pointee.head.val) + 1) % places)
    }
}

/// A receive queue of memory.
final class FakeReceives {
    let ring: FakeRing
    let queue: ReceiveQueue

    init(_ requests: Int, elements: UInt32 = 3) {
        ring = FakeRing(entrySize: ReceiveQueue.entrySize(elements), places: requests + 1)
        queue = ReceiveQueue(
            mapping: ring.mapping, maximumRequests: UInt32(requests), maximumElements: elements)
    }

    /// Posts a chain: the answer, and the index of the request that was not taken.
    func post(_ requests: [ibv_recv_wr]) -> (error: Int32, bad: Int?) {
        var requests = requests
        return requests.withUnsafeMutableBufferPointer { chain in
            for index in 0..<chain.count - 1 { chain[index].next = chain.baseAddress! + index + 1 }
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            let error = queue.post(chain.baseAddress, &bad)
            return (error, bad.map { $0 - chain.baseAddress! })
        }
    }
}
