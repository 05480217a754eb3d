import CIBVerbs
import CKernelABI
import Glibc
import ProviderKit
import TestSupport

@testable import RxeProvider

/// A queue as the kernel maps it, followed by an inaccessible page, so that an access beyond the last entry crashes the
/// test. Its entries are filled with 0xA5.
final class FakeRing {
    let mapping: UnsafeMutableRawPointer
    let byteCount: Int
    let entrySize: Int
    let mask: UInt32
    private let pages: UnsafeMutableRawPointer
    private let pageBytes: Int

    init(entrySize: Int, entries: Int) {
        self.entrySize = entrySize
        mask = UInt32(entries - 1)
        byteCount = MemoryLayout<rxe_queue_buf>.size + entrySize * entries
        let used = (byteCount + 4095) & ~4095
        pageBytes = used + 4096
        pages = mmap(nil, pageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        mprotect(pages + used, 4096, PROT_NONE)
        mapping = pages + (used - byteCount)
        memset(mapping, 0xA5, byteCount)
        memset(mapping, 0, MemoryLayout<rxe_queue_buf>.size)
        head.pointee.log2_elem_size = UInt32(entrySize.trailingZeroBitCount)
        head.pointee.index_mask = mask
    }

    deinit { munmap(pages, pageBytes) }

    var head: UnsafeMutablePointer<rxe_queue_buf> { mapping.assumingMemoryBound(to: rxe_queue_buf.self) }

    var ring: Ring { Ring(mapping: mapping, byteCount: byteCount, entrySize: 1)! }

    func entry(_ index: Int) -> UnsafeMutableRawPointer {
        mapping + MemoryLayout<rxe_queue_buf>.size + (index & Int(mask)) * entrySize
    }

    func send(_ index: Int) -> rxe_send_wqe { entry(index).load(as: rxe_send_wqe.self) }

    func receive(_ index: Int) -> rxe_recv_wqe { entry(index).load(as: rxe_recv_wqe.self) }

    func sges(_ index: Int, offset: Int, _ count: Int) -> [rxe_sge] {
        (0..<count).map { entry(index).load(fromByteOffset: offset + 16 * $0, as: rxe_sge.self) }
    }

    func data(_ index: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { entry(index).load(fromByteOffset: MemoryLayout<rxe_send_wqe>.size + $0, as: UInt8.self) }
    }

    /// The kernel consumes WQEs.
    func consume(_ count: UInt32) { head.pointee.consumer_index = (head.pointee.consumer_index + count) & mask }

    /// The kernel adds a CQE.
    func complete(_ completion: ib_uverbs_wc) {
        entry(Int(head.pointee.producer_index)).storeBytes(of: completion, as: ib_uverbs_wc.self)
        head.pointee.producer_index = (head.pointee.producer_index + 1) & mask
    }
}

/// A queue pair whose queues are anonymous memory and whose doorbell is written to a pipe.
final class FakePair {
    let sends: FakeRing
    let receives: FakeRing
    let pair: QueuePairPointer
    let pipe: (read: Int32, write: Int32)
    static let maxSGE: UInt32 = 4
    static let inline: UInt32 = 100

    init(_ type: ibv_qp_type = IBV_QPT_RC, depth: Int = 8, state: ibv_qp_state = IBV_QPS_RTS, single: Bool = false) {
        sends = FakeRing(entrySize: 512, entries: depth)
        receives = FakeRing(entrySize: 128, entries: depth)
        pair = QueuePairPointer.allocate(isSingleThreaded: single)
        var ends: [Int32] = [0, 0]
        _ = Glibc.pipe(&ends)
        pipe = (ends[0], ends[1])
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        pair.pointee.base.qp_base.qp_type = type
        pair.pointee.base.qp_base.state = state
        pair.pointee.base.qp_base.handle = 77
        var limits = ibv_qp_cap()
        limits.max_send_sge = Self.maxSGE
        limits.max_recv_sge = Self.maxSGE
        limits.max_inline_data = Self.inline
        _ = pair.attach(send: sends.ring, receive: receives.ring, limits: limits, descriptor: ends[1])
        fillBuilders(extended, operations: sendOperations(type) | (type == IBV_QPT_RC ? PlacementOperations.all : 0))
    }

    deinit {
        pair.freeObject()
        close(pipe.read)
        close(pipe.write)
    }

    var extended: UnsafeMutablePointer<ibv_qp_ex> {
        UnsafeMutableRawPointer(pair).assumingMemoryBound(to: ibv_qp_ex.self)
    }

    var producer: UInt32 { sends.head.pointee.producer_index }

    /// The doorbells since the last call, as they were written.
    func doorbells() -> [(ib_uverbs_cmd_hdr, ib_uverbs_post_send)] {
        let headSize = MemoryLayout<ib_uverbs_cmd_hdr>.size
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = max(0, read(pipe.read, &bytes, bytes.count))
        let size = headSize + MemoryLayout<ib_uverbs_post_send>.size
        return bytes.withUnsafeBytes { all in
            (0..<count / size).map { index in
                (
                    all.loadUnaligned(fromByteOffset: index * size, as: ib_uverbs_cmd_hdr.self),
                    all.loadUnaligned(fromByteOffset: index * size + headSize, as: ib_uverbs_post_send.self)
                )
            }
        }
    }

    /// Posts a list of work requests. Returns the result of `post_send`, and the index of `bad_wr`.
    func post(_ requests: [ibv_send_wr]) -> (error: Int32, bad: Int?) {
        guard !requests.isEmpty else { return (postSend(qp: pair.verbs, first: nil, bad: nil), nil) }
        return postChain(requests) { postSend(qp: pair.verbs, first: $0, bad: &$1) }
    }

    func postReceives(_ requests: [ibv_recv_wr]) -> (error: Int32, bad: Int?) {
        postChain(requests) { postReceive(qp: pair.verbs, first: $0, bad: &$1) }
    }
}
