import Foundation
import RoCETransport
import Synchronization
import Testing

@Suite("Posting, polling and arming beside the engine")
struct ThreadTests {
    /// Two hosts, driven by one thread, and what other threads need of them.
    private final class World: @unchecked Sendable {
        let left: Host
        let right: Host
        let pair: QueuePair
        let peer: QueuePair
        let isDone = Atomic<Bool>(false)
        let notifications = Atomic<Int>(0)
        /// Something went wrong: everybody stops.
        let hasFailed = Atomic<Bool>(false)

        init() throws {
            left = try Host(1)
            right = try Host(2)
            pair = try left.makeQueuePair(sends: 16)
            peer = try right.makeQueuePair(receives: 16)
            // The time of this world runs ahead of its threads: no wait for a receive may be the last.
            let connection = Connection(rnrRetry: 7)
            try left.connect(pair, to: right.gid, number: peer.number, connection)
            try right.connect(peer, to: left.gid, number: pair.number, connection.reversed)
        }

        /// What the owner of the engines does: nothing else touches them.
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
            let element = left.element(UnsafeMutableRawBufferPointer(rebasing: left.memory[..<8]))
            var posted = 0
            while posted < count && !hasFailed.load(ordering: .relaxed) {
                let request = SendWorkRequest(id: UInt64(posted), opcode: .send, flags: .signaled)
                let result = withUnsafePointer(to: element) { pair.stageSend(request, elements: $0, count: 1) }
                if result == .success { posted += 1 } else { sched_yield() }
                pair.commitSends()
            }
        }

        func postReceives(_ count: Int) {
            let element = right.element(UnsafeMutableRawBufferPointer(rebasing: right.memory[..<8]))
            var posted = 0
            while posted < count && !hasFailed.load(ordering: .relaxed) {
                let result = withUnsafePointer(to: element) {
                    peer.stageReceive(id: UInt64(posted), elements: $0, count: 1)
                }
                if result == .success { posted += 1 } else { sched_yield() }
                peer.commitReceives()
            }
        }

        /// Polls `count` completions, arming in between; true when they came in order.
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

    @Test("Four threads post sends and receives and poll both sides, without a lock; everything completes in order")
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
