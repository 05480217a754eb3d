import Foundation
import RoCETransport
import Synchronization
import Testing

@Suite("Posting, polling and arming without the lock of the engine")
struct ThreadTests {
    /// Two hosts whose engines one thread runs, and the objects that other threads use.
    private final class World: @unchecked Sendable {
        let left: Host
        let right: Host
        let pair: QueuePair
        let peer: QueuePair
        let isDone = Atomic<Bool>(false)
        let notifications = Atomic<Int>(0)
        /// A check failed: all threads stop.
        let hasFailed = Atomic<Bool>(false)

        init() throws {
            left = try Host(1)
            right = try Host(2)
            pair = try left.makeQueuePair(sends: 16)
            peer = try right.makeQueuePair(receives: 16)
            // The simulated time advances faster than the threads run, so the number of RNR retries must be infinite.
            let connection = Connection(rnrRetry: 7)
            try left.connect(pair, to: right.gid, number: peer.number, connection)
            try right.connect(peer, to: left.gid, number: pair.number, connection.reversed)
        }

        /// Runs the engines; no other thread does.
        func drive() {
            var now: UInt64 = 0
            while !isDone.load(ordering: .acquiring) {
                now += 100_000
                for (from, to) in [(left, right), (right, left)] {
                    let source = PacketSource(
                        source: from.gid, destination: to.gid, header: UnsafeRawBufferPointer(start: nil, count: 0))
                    while let packet = from.engine.transmit(into: from.packet, now: now) {
                        to.engine.receive(
                            UnsafeRawBufferPointer(rebasing: from.packet[..<packet.byteCount]), from: source, now: now)
                    }
                    from.engine.advance(to: now)
                    while let event = from.engine.nextEvent() {
                        if case .completion = event { notifications.wrappingAdd(1, ordering: .relaxed) }
                    }
                }
            }
        }

        func post(_ count: Int) {
            let sge = left.sge(UnsafeMutableRawBufferPointer(rebasing: left.memory[..<8]))
            var posted = 0
            while posted < count && !hasFailed.load(ordering: .relaxed) {
                let request = SendWQE(id: UInt64(posted), opcode: .send, flags: .signaled)
                let result = withUnsafePointer(to: sge) { pair.stageSend(request, sgList: $0, count: 1) }
                if result == .success { posted += 1 } else { sched_yield() }
                pair.commitSends()
            }
        }

        func postReceives(_ count: Int) {
            let sge = right.sge(UnsafeMutableRawBufferPointer(rebasing: right.memory[..<8]))
            var posted = 0
            while posted < count && !hasFailed.load(ordering: .relaxed) {
                let result = withUnsafePointer(to: sge) {
                    peer.stageReceive(id: UInt64(posted), sgList: $0, count: 1)
                }
                if result == .success { posted += 1 } else { sched_yield() }
                peer.commitReceives()
            }
        }

        /// Polls `count` completions, and arms the queue when it is empty. Returns true when they are in order.
        func poll(_ queue: CompletionQueue, _ count: Int) -> Bool {
            var next: UInt64 = 0
            var completion = WorkCompletion()
            while next < UInt64(count) && !hasFailed.load(ordering: .relaxed) {
                if queue.poll(into: &completion, count: 1) == 0 {
                    queue.arm(solicitedOnly: false)
                    sched_yield()
                    continue
                }
                if completion.id != next || completion.status != .success {
                    hasFailed.store(true, ordering: .relaxed)
                }
                next += 1
            }
            return !hasFailed.load(ordering: .relaxed)
        }
    }

    @Test("Four threads post and poll both queue pairs without a lock, and all work requests complete in order")
    func threads() async throws {
        let world = try World()
        let count = 3000
        let inOrder = await withTaskGroup(of: Bool.self) { group in
            func start(_ body: @escaping @Sendable () -> Bool) {
                group.addTask {
                    await withCheckedContinuation { continuation in
                        Thread { continuation.resume(returning: body()) }.start()
                    }
                }
            }
            let driver = Thread { world.drive() }
            driver.start()
            start {
                world.post(count)
                return true
            }
            start {
                world.postReceives(count)
                return true
            }
            start { world.poll(world.left.completions, count) }
            start { world.poll(world.right.completions, count) }
            var result = true
            for await one in group { result = one && result }
            world.isDone.store(true, ordering: .releasing)
            return result
        }
        #expect(inOrder)
        #expect(world.notifications.load(ordering: .relaxed) > 0)
    }
}
