import TestSupport
import Testing

@testable import CMProtocol

/// Random histories of connections over a bad network. A failure names the seed.
@Suite("Simulated networks")
struct SimulationTests {
    /// A program on each side that does its part of the protocol, and at random leaves or refuses.
    private struct Programs {
        var world: World
        var random: SplitMix
        /// How the programs of a side see their connections.
        var views: [[CMIdentifier: View]] = [[:], [:]]
        var violation: String?
        var established = 0

        enum View: Hashable { case begun, replied, connected, ended, over }

        init(seed: UInt64) {
            var random = SplitMix(seed: seed)
            world = World(seed: random.next())
            world.loss = random.below(40)
            world.duplication = random.below(40)
            world.delay = random.chance(50) ? 10_000_000 : 3 * CMTiming().retransmission
            self.random = random
        }

        mutating func run() {
            _ = try! world[.server].listen(serviceID: World.serviceID, address: nil)
            for number in 0..<20 {
                var request = World.request()
                request.queuePairNumber = UInt32(number) + 1
                let identifier = world[.client].connect(request, on: World.Side.client.path, now: world.now)
                views[0][identifier] = .begun
                for _ in 0..<random.below(10) { if world.step() { react() } }
            }
            var steps = 0
            while world.step() {
                react()
                steps += 1
                if steps > 100_000 {
                    violation = "the history does not end"
                    return
                }
            }
            // A side that is connected still disconnects, or gives up.
            for side in World.Side.allCases {
                for identifier in views[side.rawValue].keys.sorted(by: { $0.rawValue < $1.rawValue }) {
                    if random.chance(50) {
                        try? world[side].disconnect(identifier, now: world.now)
                    } else {
                        world[side].release(identifier, now: world.now)
                    }
                    while world.step() { react() }
                }
            }
            for side in World.Side.allCases where world[side].connectionCount != 0 {
                violation = violation ?? "\(world[side].connectionCount) connections of the \(side) do not end"
            }
        }

        private mutating func react() {
            for side in World.Side.allCases {
                for event in world.take(side) { handle(event, side) }
            }
        }

        private mutating func handle(_ event: CMEvent, _ side: World.Side) {
            let identifier = event.identifier
            let before = views[side.rawValue][identifier]
            func expect(_ allowed: [View?], _ next: View) {
                if !allowed.contains(before) {
                    violation = violation ?? "\(side): \(event.kind) in \(String(describing: before))"
                }
                views[side.rawValue][identifier] = next
            }
            switch event.kind {
            case .requested:
                expect([nil], .begun)
                if random.chance(15) {
                    try! world[side].reject(identifier, now: world.now)
                    views[side.rawValue][identifier] = .over
                } else {
                    var reply = World.reply()
                    reply.queuePairNumber = identifier.rawValue & 0xFF_FFFF
                    try! world[side].accept(identifier, reply, now: world.now)
                    views[side.rawValue][identifier] = .replied
                }
            case .replied:
                expect([.begun], .replied)
                if random.chance(15) {
                    try! world[side].reject(identifier, now: world.now)
                    views[side.rawValue][identifier] = .ended
                } else {
                    try! world[side].establish(identifier, now: world.now)
                    views[side.rawValue][identifier] = .connected
                }
            case .established:
                expect([.replied], .connected)
                established += 1
                if random.chance(50) { try! world[side].disconnect(identifier, now: world.now) }
            case .disconnected:
                expect([.replied, .connected], .ended)
                try? world[side].disconnect(identifier, now: world.now)
            case .rejected, .unreachable: expect([.begun, .replied, .connected], .ended)
            case .timeWaitExit: expect([.ended], .over)
            case .serviceRequested, .serviceReplied: violation = violation ?? "\(event.kind)"
            }
        }
    }

    @Test("Events come in order, nothing hangs and nothing is left, whatever the network does", arguments: 0..<150)
    func histories(_ seed: Int) {
        var programs = Programs(seed: UInt64(seed))
        programs.run()
        if let violation = programs.violation { Issue.record("seed \(seed): \(violation)") }
    }

    @Test("The histories do reach established connections")
    func reach() {
        var count = 0
        for seed in 0..<20 {
            var programs = Programs(seed: UInt64(seed))
            programs.run()
            count += programs.established
        }
        #expect(count > 100, "\(count) connections of 400")
    }

    @Test("The same seed gives the same messages")
    func determinism() {
        func log() -> [[UInt8]] {
            var programs = Programs(seed: 4)
            programs.run()
            return programs.world.log.map(\.message.bytes)
        }
        #expect(log() == log())
    }
}
