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
            "Post and poll allocate nothing",
            arguments: [IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ].map(\.rawValue))
        func allocatesNothing(opcode: UInt32) throws {
            let (first, second) = try Ends.twoDevices.open()
            let (a, b) = try pair(on: first, and: second)
            let target = try b.address
            var piece = a.piece(0, 1000)
            var receivePiece = b.piece(0, 1000)
            // The least of several: see what a datagram for another process takes, in `AllocationTests` of Verbs.
            var counted = UInt64.max
            withUnsafeMutablePointer(to: &piece) { list in
                withUnsafeMutablePointer(to: &receivePiece) { receiveList in
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
                    var entry = ibv_wc()
                    var before: UInt64 = 0
                    // The first rounds take rings into use.
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
                            waiting -= Int(first.context.pointee.ops.poll_cq(a.queue, 1, &entry))
                            waiting -= Int(second.context.pointee.ops.poll_cq(b.queue, 1, &entry))
                        }
                    }
                }
            }
            #expect(counted == 0 || allocation_count_is_blind())
        }

        @Test("Several threads post to one queue pair and poll one queue: nothing is lost, nothing comes twice")
        func manyThreads() throws {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            options.sends = 256
            options.receives = 1024
            options.completions = 4096
            let (a, b) = try pair(options, on: first, and: second)
            let shared = Shared(a, b)
            // Threads of their own: they wait for each other by polling, which tasks must not do.
            var threads = (0..<3).map { number in Thread { shared.send(UInt32(number) * 1000, count: 300) } }
            threads += (0..<2).map { _ in Thread { shared.receive(until: 900) } }
            for thread in threads { thread.start() }
            let received = shared.received(within: 60)
            #expect(received.count == 900)
            #expect(Set(received).count == 900)
        }

        @Test(
            "A post that finds the engine taken is served by who has it, though nobody polls", arguments: connectedTypes
        )
        func servesWhoPostedMeanwhile(type: UInt32) throws {
            let (first, second) = try Ends.twoDevices.open()
            var options = Endpoint.Options()
            options.type = ibv_qp_type(type)
            let (a, b) = try pair(options, on: first, and: second)
            try b.postReceive(id: 5, [b.piece(0, 64)])
            first.context.soft.lockForControl()
            try a.post(IBV_WR_SEND, [a.piece(0, 8)])
            first.context.soft.unlock()
            #expect(try b.success().wr_id == 5)
        }

        @Test("The structs that are handed over as they lie have the engine's layout")
        func layouts() {
            #expect(MemoryLayout<ibv_wc>.stride == MemoryLayout<WorkCompletion>.stride)
            #expect(MemoryLayout<ibv_wc>.offset(of: \.byte_len) == MemoryLayout<WorkCompletion>.offset(of: \.byteCount))
            #expect(MemoryLayout<ibv_wc>.offset(of: \.qp_num) == MemoryLayout<WorkCompletion>.offset(of: \.queuePair))
            #expect(
                MemoryLayout<ibv_wc>.offset(of: \.src_qp) == MemoryLayout<WorkCompletion>.offset(of: \.sourceQueuePair))
            #expect(MemoryLayout<ibv_wc>.offset(of: \.wc_flags) == MemoryLayout<WorkCompletion>.offset(of: \.flags))
            #expect(MemoryLayout<ibv_wc>.offset(of: \.sl) == MemoryLayout<WorkCompletion>.offset(of: \.serviceLevel))
            #expect(MemoryLayout<ibv_sge>.size == MemoryLayout<ScatterGatherElement>.size)
            #expect(MemoryLayout<ibv_sge>.offset(of: \.lkey) == MemoryLayout<ScatterGatherElement>.offset(of: \.key))
            #expect(MemoryLayout<SoftAddressHandle>.offset(of: \.path) == SoftAddressHandle.pathOffset)
        }
    }
}

/// Two connected endpoints that several threads use.
private final class Shared: @unchecked Sendable {
    // Unchecked: the verbs are made for it, and `found` is only touched under its lock.
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

    /// Everything that was received, once all threads have ended.
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
                while (try? a.post(IBV_WR_SEND_WITH_IMM, [a.piece(0, 8)]) { $0.imm_data = first + index }) == nil {
                    // Full: completions make room.
                    var entry = ibv_wc()
                    _ = a.device.context.pointee.ops.poll_cq(a.queue, 1, &entry)
                }
            }
        }
    }

    /// Posts receives and polls both queues, until so many messages have come in all.
    func receive(until all: Int) {
        counted {
            var entry = ibv_wc()
            while lock.withLock({ found.count < all }) {
                try? b.postReceive([b.piece(64, 64)])
                _ = a.device.context.pointee.ops.poll_cq(a.queue, 1, &entry)
                while b.device.context.pointee.ops.poll_cq(b.queue, 1, &entry) == 1 {
                    let value = entry.imm_data
                    lock.withLock { found.append(value) }
                }
            }
        }
    }
}
