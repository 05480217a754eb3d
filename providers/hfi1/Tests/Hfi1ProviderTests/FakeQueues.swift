import CIBVerbs
import CKernelABI
import Glibc

@testable import Hfi1Provider

/// A queue as rdmavt maps it, followed by an inaccessible page, so that an access beyond the last entry crashes the
/// test. Its entries are filled with 0xA5.
final class FakeRing {
    let mapping: Mapping
    let entrySize: Int
    let entryCount: Int
    private let pages: UnsafeMutableRawPointer
    private let pageBytes: Int

    init(entrySize: Int, entryCount: Int) {
        self.entrySize = entrySize
        self.entryCount = entryCount
        let byteCount = MemoryLayout<rvt_rwq>.size + entrySize * entryCount
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
        mapping.memory + MemoryLayout<rvt_rwq>.size + (index % entryCount) * entrySize
    }

    func receive(_ index: Int) -> rvt_rwqe { entry(index).loadUnaligned(as: rvt_rwqe.self) }

    func sges(_ index: Int, _ count: Int) -> [rvt_wqe_sge] {
        (0..<count).map {
            entry(index).loadUnaligned(fromByteOffset: MemoryLayout<rvt_rwqe>.size + 16 * $0, as: rvt_wqe_sge.self)
        }
    }

    /// The kernel consumes WQEs.
    func consume(_ count: Int) {
        indices.pointee.tail.val = UInt32((Int(indices.pointee.tail.val) + count) % entryCount)
    }

    /// The kernel adds a CQE.
    func complete(_ completion: ib_uverbs_wc) {
        entry(Int(indices.pointee.head.val)).storeBytes(of: completion, as: ib_uverbs_wc.self)
        indices.pointee.head.val = UInt32((Int(indices.pointee.head.val) + 1) % entryCount)
    }
}

/// A receive queue in anonymous memory.
final class FakeReceives {
    let ring: FakeRing
    let queue: ReceiveQueue

    init(_ requests: Int, sges: UInt32 = 3) {
        ring = FakeRing(entrySize: ReceiveQueue.entrySize(sges), entryCount: requests + 1)
        queue = ReceiveQueue(
            mapping: ring.mapping, maxWR: UInt32(requests), maxSGE: sges)
    }

    /// Posts a list of work requests. Returns the result of `post_recv`, and the index of `bad_wr`.
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
