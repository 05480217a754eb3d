import CIBVerbs
import Glibc
import ProviderKit
import Synchronization
import TestSupport

@testable import Mlx5Provider

/// Memory that ends at an inaccessible page: an access beyond its end crashes the test. Filled with 0xA5.
final class GuardedMemory {
    let memory: UnsafeMutableRawPointer
    let byteCount: Int
    private let pages: UnsafeMutableRawPointer
    private let pageBytes: Int

    init(_ byteCount: Int) {
        self.byteCount = byteCount
        let used = (byteCount + 4095) & ~4095
        pageBytes = used + 4096
        pages = mmap(nil, pageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
        mprotect(pages + used, 4096, PROT_NONE)
        memory = pages + (used - byteCount)
        memset(memory, 0xA5, byteCount)
    }

    deinit { munmap(pages, pageBytes) }

    func bytes(_ range: Range<Int>) -> [UInt8] { range.map { memory.load(fromByteOffset: $0, as: UInt8.self) } }

    /// A big-endian word.
    func word(_ offset: Int) -> UInt32 {
        UInt32(bigEndian: memory.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
}

/// A queue pair whose queues, doorbell record and BlueFlame register are ordinary memory.
final class FakeQueuePair {
    let sends: GuardedMemory
    let receives: GuardedMemory
    let doorbellRecord = GuardedMemory(8)
    let register: GuardedMemory
    let pair: QueuePairPointer
    let blueFlame: BlueFlamePointer
    let retired = UnsafeMutablePointer<UInt32>.allocate(capacity: 2)
    private let posted: UnsafeMutablePointer<PostedSend>
    private let receiveIDs: UnsafeMutablePointer<UInt64>

    static let number: UInt32 = 0x101
    static let maxSGE: UInt32 = 4
    static let inline: UInt32 = 124
    static let bufferSize = 256

    init(
        _ type: ibv_qp_type = IBV_QPT_RC, wqebbs: UInt32 = 16, posts: UInt32 = 8, receives count: UInt32 = 8,
        allowsBlueFlame: Bool = true, signalsAll: Bool = false
    ) {
        sends = GuardedMemory(64 * Int(wqebbs))
        receives = GuardedMemory(64 * Int(count))
        register = GuardedMemory(2 * Self.bufferSize)
        memset(register.memory, 0, 2 * Self.bufferSize)
        memset(doorbellRecord.memory, 0, 8)
        retired.initialize(repeating: 0, count: 2)
        posted = .allocate(capacity: Int(wqebbs))
        receiveIDs = .allocate(capacity: Int(count))
        blueFlame = .make(
            BlueFlame(
                register: register.memory, bufferSize: UInt32(Self.bufferSize), allowsBlueFlame: allowsBlueFlame,
                isShared: false))
        pair = QueuePairPointer.allocate(isSingleThreaded: false)
        pair.pointee.base.qp_base.qp_type = type
        pair.pointee.base.qp_base.state = IBV_QPS_RTS
        pair.pointee.base.qp_base.qp_num = Self.number
        let limits = ibv_qp_cap(
            max_send_wr: posts, max_recv_wr: count, max_send_sge: Self.maxSGE, max_recv_sge: 4,
            max_inline_data: Self.inline)
        let send = SendQueue(
            ring: SendRing(memory: sends.memory, wqebbs: wqebbs, posted: posted, retired: retired), type: type,
            queuePair: Self.number, limits: limits, signalsAll: signalsAll, hasAtomics: true,
            doorbellRecord: doorbellRecord.memory,
            blueFlame: blueFlame)
        let ring = ReceiveRing(
            memory: receives.memory, count: count, shift: 6, posted: receiveIDs, retired: retired + 1)
        pair.attach(send, ReceiveQueue(ring: ring, doorbellRecord: doorbellRecord.memory))
        fillBuilders(extended, operations: sendOperations(type))
    }

    deinit {
        pair.freeObject()
        blueFlame.freeObject()
        posted.deallocate()
        receiveIDs.deallocate()
        retired.deallocate()
    }

    var extended: UnsafeMutablePointer<ibv_qp_ex> {
        UnsafeMutableRawPointer(pair).assumingMemoryBound(to: ibv_qp_ex.self)
    }

    /// The number of the next WQEBB.
    var wqebb: UInt32 {
        get { pair.sends.pointee.wqebb }
        set { pair.sends.pointee.wqebb = newValue }
    }

    /// Retires all posted send WQEs.
    func retire() { retired[0] = pair.sends.pointee.number }

    /// Posts a chain of work requests. Returns the errno value, and the index of the work request that failed.
    func post(_ requests: [ibv_send_wr]) -> (error: Int32, bad: Int?) {
        postChain(requests) { postSend(qp: pair.verbs, first: $0, bad: &$1) }
    }

    func postReceives(_ requests: [ibv_recv_wr]) -> (error: Int32, bad: Int?) {
        postChain(requests) { postReceive(qp: pair.verbs, first: $0, bad: &$1) }
    }
}
