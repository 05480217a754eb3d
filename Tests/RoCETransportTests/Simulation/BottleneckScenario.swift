import RoCETransport
import TestSupport

/// Many queue pairs of one host that send to another host at once, through a queue that drops the packets that it has no
/// room for. The seed determines the number of queue pairs, the queue, the opcode and the sizes.
final class BottleneckScenario {
    private let hosts: [Host]
    private let network: Network
    private var flows: [Flow] = []
    private let opcode: WorkRequestOpcode
    private let size: Int
    private let messages: Int
    private var random: SplitMix
    /// The longest time in which no message of a queue pair was completed, in nanoseconds.
    private(set) var longestWait: UInt64 = 0

    /// A queue pair, and the memory that its messages lead from and to.
    private struct Flow {
        let pair: QueuePair
        let peer: QueuePair
        let source: UnsafeMutableRawBufferPointer
        let target: UnsafeMutableRawBufferPointer
        var posted = 0
        var completed = 0
        /// When the last message was completed.
        var lastCompletion: UInt64 = 0
    }

    /// What the network does besides.
    struct Weather {
        /// Packets of 10,000 that are lost.
        var loss: Int
        /// Percent of the packets that others overtake.
        var reordering: Int
    }

    private static let mtu = 256
    /// Work requests that a queue pair has outstanding.
    private static let depth = 8

    /// - Parameters:
    ///   - sharesWindow: False: the windows of the queue pairs add up, for comparison.
    ///   - weather: With it, there are 64 queue pairs, and the queue is that of a small socket buffer.
    init(seed: UInt64, sharesWindow: Bool = true, weather: Weather? = nil) throws {
        var random = SplitMix(seed: seed)
        let picked = random.pick([2, 8, 32, 64])
        let count = weather == nil ? picked : 64
        opcode = random.pick([.write, .write, .send, .read])
        let size = Self.mtu * random.pick([1, 4, 16])
        self.size = size
        messages = random.pick([16, 40])
        let packets = random.pick([6, 16, 48, 128])
        var profile = NetworkProfile()
        profile.bottleneck = .init(packets: packets, interval: random.pick([500, 1_000, 4_000]))
        profile.delay = random.pick([1_000...1_000, 20_000...20_000])
        profile.pause = random.pick([0, 20_000])
        if let weather {
            profile.bottleneck = .init(packets: 16, interval: 1_000)
            profile.reordering = weather.reordering
        }
        hosts = try (1...2).map { number in
            try Host(
                UInt32(number), seed: random.next(), memory: count * 2 * size + 4096,
                completions: UInt32(count * Self.depth * 4)
            ) { configuration in
                configuration.maximumQueuePairs = 128
                configuration.heldRequests = 256
                if !sharesWindow {
                    configuration.maximumPathWindow = 1 << 20
                    configuration.initialPathWindow = 1 << 20
                }
            }
        }
        network = Network(hosts, seed: random.next(), profile: profile)
        self.random = random
        for _ in 0..<count { try connect() }
        if let weather {
            var lottery = SplitMix(seed: seed)
            network.inspect = { _, _ in lottery.below(10_000) >= weather.loss }
        }
    }

    private func connect() throws {
        let (left, right) = (hosts[0], hosts[1])
        let depth = UInt32(Self.depth)
        let pair = try left.makeQueuePair(sends: depth, receives: depth, maxInlineData: 0)
        let peer = try right.makeQueuePair(sends: depth, receives: depth, maxInlineData: 0)
        var connection = Connection(mtu: UInt32(Self.mtu))
        // 67 ms: a loss that no response reports is found by the measured round-trip time.
        connection.timeout = 14
        connection.retryCount = 7
        connection.rnrRetry = 7
        connection.maxReadAtomic = 16
        connection.maxDestinationReadAtomic = 16
        try left.connect(pair, to: right.gid, number: peer.number, connection)
        try right.connect(peer, to: left.gid, number: pair.number, connection.reversed)
        let (near, far) = (left.take(size), right.take(size))
        let isRead = opcode == .read
        flows.append(Flow(pair: pair, peer: peer, source: isRead ? far : near, target: isRead ? near : far))
        random.fill(flows[flows.count - 1].source)
    }

    private func post(_ index: Int) {
        while flows[index].posted < messages, flows[index].posted - flows[index].completed < Self.depth {
            let flow = flows[index]
            var request = SendWQE(id: UInt64(index), opcode: opcode, flags: .signaled)
            if opcode == .send { hosts[1].postReceive(flow.peer, id: UInt64(index), [hosts[1].sge(flow.target)]) }
            let local = opcode == .read ? flow.target : flow.source
            let remote = opcode == .read ? flow.source : flow.target
            request.remoteAddress = UInt64(UInt(bitPattern: remote.baseAddress!))
            request.rkey = hosts[1].key
            hosts[0].post(flow.pair, request, [hosts[0].sge(local)])
            flows[index].posted += 1
        }
    }

    /// Runs until all messages have arrived.
    func run() throws {
        for index in flows.indices {
            flows[index].lastCompletion = network.now
            post(index)
        }
        let limit = network.now + 60_000_000_000
        while network.step(until: limit) {
            for completion in hosts[0].poll() {
                try require(completion.status == .success, "a work request failed with \(completion.status)")
                let index = Int(completion.id)
                flows[index].completed += 1
                longestWait = max(longestWait, network.now - flows[index].lastCompletion)
                flows[index].lastCompletion = network.now
                post(index)
            }
            for completion in hosts[1].poll() {
                try require(completion.status == .success, "a receive failed with \(completion.status)")
            }
        }
        for (index, flow) in flows.enumerated() {
            try require(flow.completed == messages, "queue pair \(index): \(flow.completed) of \(messages) messages")
            try require(flow.target.elementsEqual(flow.source), "queue pair \(index): wrong bytes")
        }
        // While the window finds the size of the queue, which it exceeds up to twice, and go-back-N sends those packets
        // again: a few times the queue. Then at most one packet of five.
        let first = 192 + 4 * network.profile.bottleneck!.packets
        try require(network.overflowed < first + network.queued / 5, lossText)
        try require(longestWait < 500_000_000, "a queue pair waited for \(longestWait) ns")
    }

    /// The packets with data that were sent, or found the queue full, for each one that is needed.
    var packetsForEach: Double {
        Double(network.queued + network.overflowed) / Double(flows.count * messages * (size / Self.mtu))
    }

    /// The packets that found the queue full, and all others.
    var overflowed: Int { network.overflowed }
    var lossText: String { "\(network.overflowed) packets lost, \(network.queued) queued" }
}
