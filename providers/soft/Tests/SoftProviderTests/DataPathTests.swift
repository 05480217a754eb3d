import CAllocationCounter
import CIBVerbs
import Foundation
import RoCETransport
import SoftTestSupport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("The data path")
    struct DataPathTests {
        @Test(
            "post_send, post_recv and poll_cq allocate no memory",
            arguments: [IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ].map(\.rawValue))
        func allocatesNothing(opcode: UInt32) throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            let target = try b.address
            var sge = a.sge(0, 1000)
            var receiveSGE = b.sge(0, 1000)
            // The minimum of several runs: forwarding a datagram to another process allocates, see `AllocationTests` of
            // Verbs.
            var counted = UInt64.max
            withUnsafeMutablePointer(to: &sge) { list in
                withUnsafeMutablePointer(to: &receiveSGE) { receiveList in
                    var request = ibv_send_wr()
                    request.opcode = ibv_wr_opcode(opcode)
                    request.send_flags = IBV_SEND_SIGNALED.rawValue
                    request.sg_list = list
                    request.num_sge = 1
                    request.wr.rdma.remote_addr = target.memory
                    request.wr.rdma.rkey = target.key
                    var receive = ibv_recv_wr(wr_id: 0, next: nil, sg_list: receiveList, num_sge: 1)
                    var badSend: UnsafeMutablePointer<ibv_send_wr>?
                    var badReceive: UnsafeMutablePointer<ibv_recv_wr>?
                    var wc = ibv_wc()
                    var before: UInt64 = 0
                    // The first rounds open the rings.
                    for round in 0...1000 where counted > 0 {
                        if round % 200 == 0 {
                            if round > 200 { counted = min(counted, allocation_count() &- before) }
                            before = allocation_count()
                        }
                        let isSend = opcode == IBV_WR_SEND.rawValue
                        if isSend { _ = second.context.pointee.ops.post_recv(b.pair, &receive, &badReceive) }
                        _ = first.context.pointee.ops.post_send(a.pair, &request, &badSend)
                        var waiting = isSend ? 2 : 1
                        while waiting > 0 {
                            waiting -= Int(first.context.pointee.ops.poll_cq(a.queue, 1, &wc))
                            waiting -= Int(second.context.pointee.ops.poll_cq(b.queue, 1, &wc))
                        }
                    }
                }
            }
            #expect(counted == 0 || allocation_count_is_blind())
        }

        @Test("Several threads post to one queue pair and poll one queue: no message is lost or received twice")
        func manyThreads() throws {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            options.sends = 256
            options.receives = 1024
            options.completions = 4096
            let (a, b) = try pair(options, on: first, and: second)
            let shared = Shared(a, b)
            // Threads and not tasks, because they wait for each other by polling.
            var threads = (0..<3).map { number in Thread { shared.send(UInt32(number) * 1000, count: 300) } }
            threads += (0..<2).map { _ in Thread { shared.receive(until: 900) } }
            for thread in threads { thread.start() }
            let received = shared.received(within: 300)
            #expect(received.count == 900)
            #expect(Set(received).count == 900)
        }

        @Test(
            "A post while the engine is locked is processed by the thread that unlocks it", arguments: connectedTypes
        )
        func postWhileLocked(type: UInt32) throws {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            options.type = ibv_qp_type(type)
            let (a, b) = try pair(options, on: first, and: second)
            try b.postReceive(id: 5, [b.sge(0, 64)])
            first.context.soft.lockForControl()
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            first.context.soft.unlock()
            #expect(try b.success().wr_id == 5)
        }

        @Test("The structs of verbs.h that are passed without conversion have the engine's layout")
        func layouts() {
            #expect(MemoryLayout<ibv_wc>.stride == MemoryLayout<WorkCompletion>.stride)
            #expect(MemoryLayout<ibv_wc>.offset(of: \.byte_len) == MemoryLayout<WorkCompletion>.offset(of: \.byteCount))
            #expect(
                MemoryLayout<ibv_wc>.offset(of: \.qp_num) == MemoryLayout<WorkCompletion>.offset(of: \.queuePairNumber))
            #expect(
                MemoryLayout<ibv_wc>.offset(of: \.src_qp)
                    == MemoryLayout<WorkCompletion>.offset(of: \.sourceQueuePairNumber))
            #expect(MemoryLayout<ibv_wc>.offset(of: \.wc_flags) == MemoryLayout<WorkCompletion>.offset(of: \.flags))
            #expect(MemoryLayout<ibv_wc>.offset(of: \.sl) == MemoryLayout<WorkCompletion>.offset(of: \.serviceLevel))
            #expect(MemoryLayout<ibv_sge>.size == MemoryLayout<SGE>.size)
            #expect(MemoryLayout<ibv_sge>.offset(of: \.lkey) == MemoryLayout<SGE>.offset(of: \.lkey))
            #expect(MemoryLayout<SoftAddressHandle>.offset(of: \.path) == SoftAddressHandle.pathOffset)
        }
    }
}

/// Two connected endpoints that several threads use.
private final class Shared: @unchecked Sendable {
    // Unchecked: the verbs are thread-safe, and `found` is accessed under its lock only.
    private let a: Endpoint
    private let b: Endpoint
    private let lock = NSCondition()
    private var found: [UInt32] = []
    private var running = 0

    init(_ a: Endpoint, _ b: Endpoint) {
        self.a = a
        self.b = b
    }

    private func counted(_ body: () -> Void) {
        lock.withLock { running += 1 }
        body()
        lock.withLock {
            running -= 1
            lock.broadcast()
        }
    }

    /// All messages that were received, once all threads have ended.
    func received(within seconds: Double) -> [UInt32] {
        let end = Date(timeIntervalSinceNow: seconds)
        return lock.withLock {
            while found.count < 900 || running > 0 { if !lock.wait(until: end) { break } }
            return found
        }
    }

    /// Posts sends with immediate data `first` and up.
    func send(_ first: UInt32, count: UInt32) {
        counted {
            for index in 0..<count {
                while (try? a.post(IBV_WR_SEND_WITH_IMM, [a.sge(0, 8)]) { $0.imm_data = first + index }) == nil {
                    // The queue is full. Polling frees WQEs.
                    var wc = ibv_wc()
                    _ = a.device.context.pointee.ops.poll_cq(a.queue, 1, &wc)
                }
            }
        }
    }

    /// Posts receives and polls both queues, until `all` messages have been received.
    func receive(until all: Int) {
        counted {
            var wc = ibv_wc()
            while lock.withLock({ found.count < all }) {
                try? b.postReceive([b.sge(64, 64)])
                _ = a.device.context.pointee.ops.poll_cq(a.queue, 1, &wc)
                while b.device.context.pointee.ops.poll_cq(b.queue, 1, &wc) == 1 {
                    let value = wc.imm_data
                    lock.withLock { found.append(value) }
                }
            }
        }
    }
}
