import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// Connections that end under load, from either side and in each way, on shared completion queues: every work request is
/// completed once, in the order of its queue, and nothing succeeds after the first error. In every second round the queue
/// pairs have a shared receive queue, where the device has them: no work request of it is completed twice.
///
/// libcxgb4 44 flushes one queue pair at a time correctly, if no other one has CQEs in the queue (see `Queue.connect`):
/// with it there is one connection.
func iWARPStorm() {
    for seed in 1...12 as ClosedRange<UInt64> {
        var storm = Storm(seed: seed, connections: library is NativeLibrary ? 6 : 1)
        storm.run()
    }
}

private struct Storm {
    private final class Side {
        let queue: Queue
        var sent: UInt64 = 0
        var received: UInt64 = 0
        /// Completions of sends and receives.
        var sends: [ibv_wc] = []
        var receives: [ibv_wc] = []

        init(_ queue: Queue) { self.queue = queue }
    }

    private let seed: UInt64
    private var state: UInt64
    private let bench = Bench(entries: 2048)
    private let shared: UnsafeMutablePointer<ibv_srq>?
    private var sharedRequests: UInt64 = 0
    private let connections: [(Side, Side)]

    init(seed: UInt64, connections: Int) {
        self.seed = seed
        state = seed
        let bench = bench
        var attributes = ibv_srq_init_attr()
        attributes.attr.max_wr = 100
        attributes.attr.max_sge = 1
        let shared = seed & 1 == 0 ? library.createShared(bench.domain, &attributes) : nil
        self.shared = shared
        self.connections = (0..<connections).map { _ in
            let (first, second) = Queue.connected(bench, IBV_QPT_RC, requests: 40, shared: shared)
            return (Side(first), Side(second))
        }
    }

    private mutating func random(_ bound: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33) % bound
    }

    mutating func run() {
        let sim = have(sim, "a simulator")
        var open = connections
        while !open.isEmpty {
            let index = random(open.count)
            let (first, second) = random(2) == 0 ? open[index] : (open[index].1, open[index].0)
            for _ in 0..<1 + random(6) { receive(second) }
            for _ in 0..<1 + random(4) { send(first) }
            if random(3) == 0 { _ = sim.pointee.step(0) }
            if random(3) == 0 { collect() }
            guard random(8) == 0 else { continue }
            end(first)
            open.remove(at: index)
        }
        _ = sim.pointee.step(0)
        for _ in 0..<20 { collect() }
        for (first, second) in connections { for side in [first, second] { check(side) } }
        let ids = connections.flatMap { $0.0.receives + $0.1.receives }.map(\.wr_id)
        if shared != nil {
            PeerSupport.check(
                Set(ids).count == ids.count && ids.allSatisfy { $0 < sharedRequests }, "requests, seed \(seed)")
        }
        for (first, second) in connections {
            first.queue.destroy()
            second.queue.destroy()
        }
        if let shared { equal(library.destroyShared(shared), 0, "destroying the shared receive queue") }
        sim.pointee.forgive(0)
        bench.close()
    }

    private mutating func receive(_ side: Side) {
        if let shared {
            if postReceive(shared, [bench.sge(Bench.half, 64)], id: sharedRequests) == 0 { sharedRequests += 1 }
            return
        }
        if side.queue.postReceive([bench.sge(Bench.half, 64)], id: side.received) == 0 { side.received += 1 }
    }

    /// Posts a send if the peer has a receive WR for it, or a READ or WRITE.
    private mutating func send(_ side: Side) {
        let opcode = [IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE, IBV_WR_SEND][random(3)]
        let error = side.queue.post(opcode, [bench.sge(random(100), 1 + random(60))], id: side.sent) {
            $0.wr.rdma.remote_addr = bench.address(Bench.half + 1000)
            $0.wr.rdma.rkey = bench.region.pointee.rkey
        }
        if error == 0 { side.sent += 1 }
    }

    private mutating func end(_ side: Side) {
        let ways = [UVERBS_SIM_CLOSE, UVERBS_SIM_TERMINATE, UVERBS_SIM_ABORT]
        switch random(5) {
        case 0: _ = side.queue.enter(IBV_QPS_ERR)
        case 1: _ = side.queue.enter(IBV_QPS_SQD)
        default:
            // A SEND without receive WR may have ended the connection before.
            _ = sim?.pointee.disconnect(0, side.queue.number, Int32(ways[random(3)].rawValue))
        }
    }

    private func collect() {
        var completions = [ibv_wc](repeating: ibv_wc(), count: 16)
        for isSend in [true, false] {
            let count = ibv_poll_cq(isSend ? bench.sends : bench.receives, 16, &completions)
            PeerSupport.check(count >= 0, "polling: \(count), seed \(seed)")
            for completion in completions[..<Int(max(0, count))] {
                for (first, second) in connections {
                    for side in [first, second] where side.queue.number == completion.qp_num {
                        if isSend { side.sends.append(completion) } else { side.receives.append(completion) }
                    }
                }
            }
        }
    }

    private func check(_ side: Side) {
        let what = "of queue pair \(side.queue.number), seed \(seed)"
        equal(side.sends.map(\.wr_id), Array(0..<side.sent), "sends \(what)")
        if shared == nil { equal(side.receives.map(\.wr_id), Array(0..<side.received), "receives \(what)") }
        for found in [side.sends, side.receives] {
            let firstError = found.firstIndex { $0.status != IBV_WC_SUCCESS } ?? found.count
            PeerSupport.check(found[firstError...].allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR }, "statuses \(what)")
        }
    }
}
