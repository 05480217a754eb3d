import CIBVerbs
import CMlx5Extension
import Glibc
import PeerSupport
import Synchronization

/// Sends through the queues of an mlx5 device without its provider: WQEs, doorbells and CQEs are written and read here, in
/// two passes over each ring. The receiver uses its provider.
func direct() {
    let bench = Bench()
    guard bench.isNamed("mlx5") else { return bench.close() }
    let (first, second) = Queue.connected(bench, IBV_QPT_RC)
    var sender = DirectSender(library.directQueues(first.pair, bench.sends), first.number)
    let count = 2 * max(sender.queues.pair.sq.wqe_cnt, sender.queues.completions.cqe_cnt) + 3
    for number in 0..<count {
        let length = 1 + Int(number) % 999
        bench.fill(0, length, seed: Int(number))
        equal(second.postReceive([bench.sge(Bench.half, length)], id: UInt64(number)), 0, "posting a receive")
        sender.post(bench.sge(0, length))
        bench.succeeds(receive: UInt64(number))
        check(bench.isFilled(Bench.half, length, seed: Int(number)), "message \(number) arrives as it was")
        var tries = 0
        while !sender.isComplete() && tries < 1000 {
            _ = sim?.pointee.step(0)
            tries += 1
        }
        check(tries < 1000, "the CQE of message \(number)")
    }
    first.destroy()
    second.destroy()
    bench.close()
}

/// The send queue of a queue pair and its completion queue, by the formats of mlx5dv.h.
struct DirectSender {
    let queues: DirectQueues
    private let number: UInt32
    /// The next WQE, the next CQE, and the offset of the doorbell's buffer.
    private var wqe: UInt32 = 0
    private var cqe: UInt32 = 0
    private var offset = 0

    init(_ queues: DirectQueues, _ number: UInt32) {
        self.queues = queues
        self.number = number
        equal(queues.pair.qpn, number, "the QPN of the direct queues")
        equal(queues.pair.sq.stride, 64, "the size of a WQEBB")
    }

    /// Posts a signaled SEND of one SGE, and rings the doorbell.
    mutating func post(_ sge: ibv_sge) {
        let ring = queues.pair.sq
        let target = ring.buf! + Int(wqe & (ring.wqe_cnt - 1)) * Int(ring.stride)
        // The control segment: MLX5_OPCODE_SEND, two segments of 16 bytes, MLX5_WQE_CTRL_CQ_UPDATE.
        let words: [UInt32] = [
            (wqe & 0xFFFF) << 8 | 0x0A, number << 8 | 2, 8, 0, sge.length, sge.lkey, UInt32(sge.addr >> 32),
            UInt32(truncatingIfNeeded: sge.addr),
        ]
        for (index, word) in words.enumerated() {
            target.storeBytes(of: word.bigEndian, toByteOffset: 4 * index, as: UInt32.self)
        }
        wqe += 1
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        queues.pair.dbrec[1] = (wqe & 0xFFFF).bigEndian
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        (queues.pair.bf.reg + offset).storeBytes(of: target.load(as: UInt64.self), as: UInt64.self)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        offset ^= Int(queues.pair.bf.size)
    }

    /// Consumes a CQE, if there is one.
    mutating func isComplete() -> Bool {
        let ring = queues.completions
        let next = ring.buf! + Int(cqe & (ring.cqe_cnt - 1)) * Int(ring.cqe_size) + Int(ring.cqe_size) - 64
        let last = next.load(fromByteOffset: 63, as: UInt8.self)
        // MLX5_CQE_INVALID, or the owner bit of another pass.
        guard last >> 4 != 0xF, (last & 1 != 0) == (cqe & ring.cqe_cnt != 0) else { return false }
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        equal(last >> 4, 0, "a CQE of a requester without error")
        let counter = UInt16(bigEndian: next.load(fromByteOffset: 60, as: UInt16.self))
        equal(UInt32(counter), (wqe - 1) & 0xFFFF, "the WQE of the CQE")
        cqe += 1
        ring.dbrec[0] = (cqe & 0xFF_FFFF).bigEndian
        return true
    }
}
