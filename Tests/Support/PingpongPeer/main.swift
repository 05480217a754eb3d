// A peer for Debian's ibv_rc_pingpong, ibv_uc_pingpong, ibv_ud_pingpong and ibv_srq_pingpong, over the Swift API.
//
//     pingpong-peer rc|uc|ud|srq [host=ADDRESS] [port=N] [device=NAME] [gid=N] [count=N] [size=N] [pairs=N] [then …]
// Without a host it is the server. After "then" follow the settings of another run, which begins when the previous one
// has ended. The programs send from the buffer into which they receive, so the bytes that this peer sends come back: it
// sends different bytes each time, and compares every received byte.

import Glibc
import Verbs

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

struct Settings {
    var kind: QueuePairType
    var isShared = false
    var host: String?
    var port: UInt16 = 18515
    var device: String?
    var gidIndex: UInt8?
    var count = 100
    var size = 4096
    var pairs = 1

    init(_ arguments: ArraySlice<String>) throws {
        switch arguments.first {
        case "rc": kind = .reliableConnection
        case "uc": kind = .unreliableConnection
        case "ud": kind = .unreliableDatagram
        case "srq": (kind, isShared) = (.reliableConnection, true)
        default: throw Failure("the first argument must be rc, uc, ud or srq")
        }
        for argument in arguments.dropFirst() {
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw Failure("\(argument): not NAME=VALUE") }
            switch parts[0] {
            case "host": host = parts[1]
            case "port": port = UInt16(parts[1]) ?? port
            case "device": device = parts[1]
            case "gid": gidIndex = UInt8(parts[1])
            case "count": count = Int(parts[1]) ?? count
            case "size": size = Int(parts[1]) ?? size
            case "pairs": pairs = Int(parts[1]) ?? pairs
            default: throw Failure("\(parts[0]): unknown setting")
            }
        }
    }
}

/// One queue pair of this peer, and the events before it may send again.
final class Pair {
    var queuePair: QueuePair
    var destination: DatagramDestination?
    var awaitsSend = false
    var awaitsReceive = true
    /// Number of the message whose bytes are expected next: the last one that was sent. Nil before the first.
    var expected: Int?

    init(_ queuePair: consuming QueuePair) { self.queuePair = queuePair }
}

/// The byte that fills message `number`.
func filling(_ number: Int) -> UInt8 { UInt8(truncatingIfNeeded: 0x80 | number) }

func run(_ settings: Settings) throws {
    let device = try Device.list().first { settings.device == nil || $0.name == settings.device }
    guard let device else { throw Failure("there is no device \(settings.device ?? "")") }
    let context = try device.open()
    let addresses = try context.addresses()
    guard let address = addresses.first(where: { settings.gidIndex == nil || $0.gidIndex == settings.gidIndex }) else {
        throw Failure("\(context.deviceName) has no such GID: \(addresses)")
    }
    let isDatagram = settings.kind == .unreliableDatagram
    let header = isDatagram ? 40 : 0
    let depth = 16
    let domain = try context.makeProtectionDomain()
    let memory = try domain.makeMemoryRegion(byteCount: header + 2 * settings.size + 64)
    let incoming = try memory.sge(0..<header + settings.size)
    let outgoing = try memory.sge(header + settings.size..<header + 2 * settings.size)
    var completions = try context.makeCompletionQueue(capacity: 2 * settings.pairs * depth)
    var shared = try context.makeShared(domain, settings, depth: depth * settings.pairs)

    // The queue pairs, with their receives.
    var pairs: [Pair] = []
    var endpoints: [Endpoint] = []
    for _ in 0..<settings.pairs {
        let capabilities = QueuePair.Capabilities(
            maxSendWR: UInt32(depth), maxReceiveWR: settings.isShared ? 0 : UInt32(depth))
        let pair: Pair
        if shared != nil {
            pair = Pair(
                try domain.makeQueuePair(
                    settings.kind, sendCompletions: completions, receiveCompletions: completions,
                    sharedReceiveQueue: shared!, capabilities: capabilities))
        } else {
            pair = Pair(
                try domain.makeQueuePair(settings.kind, completions: completions, capabilities: capabilities))
        }
        var endpoint = try pair.queuePair.endpoint(at: address)
        // On InfiniBand, the programs expect a GID only from a peer that uses one, as they do with -g.
        if address.linkLayer == .infiniBand && settings.gidIndex == nil { endpoint.gid = .zero }
        endpoints.append(endpoint)
        if isDatagram {
            var attributes = QueuePair.Attributes()
            attributes.state = .initialized
            attributes.port = address.port
            attributes.pkeyIndex = 0
            attributes.qkey = Handshake.qkey
            try pair.queuePair.modify(attributes)
        } else {
            try pair.queuePair.initialize()
        }
        if shared == nil { for _ in 0..<depth { try pair.queuePair.postReceive(incoming) } }
        pairs.append(pair)
    }
    if shared != nil { for _ in 0..<depth { try shared!.postReceive(incoming) } }

    // Exchange endpoints over TCP. A server connects before it sends its endpoints, because the client sends at once.
    let handshake = try Handshake(settings)
    var peers: [Endpoint] = []
    func connect() throws {
        for (pair, peer) in zip(pairs, peers) {
            if isDatagram {
                try pair.queuePair.activate()
                pair.destination = try domain.makeDestination(peer, from: address)
            } else {
                try pair.queuePair.connect(to: peer)
            }
        }
    }
    if settings.host == nil {
        peers = try handshake.receive(settings.pairs)
        try connect()
        try handshake.send(endpoints)
        try handshake.finish()
    } else {
        try handshake.send(endpoints)
        peers = try handshake.receive(settings.pairs)
        try handshake.finish()
        try connect()
    }

    // Exchange messages.
    var sent = 0
    var received = 0
    var number = 0
    func post(_ pair: Pair, _ index: Int) throws {
        // With several queue pairs, the program has one buffer, which holds the last message of any of them.
        let filled = settings.pairs == 1 ? number : 0
        number += 1
        let place = memory.unsafeBytes[header + settings.size..<header + 2 * settings.size]
        UnsafeMutableRawBufferPointer(rebasing: place).initializeMemory(as: UInt8.self, repeating: filling(filled))
        if let destination = pair.destination {
            try pair.queuePair.postSend(.send, outgoing, to: destination, id: UInt64(index))
        } else {
            try pair.queuePair.postSend(.send, outgoing, id: UInt64(index))
        }
        pair.expected = filled
        pair.awaitsSend = true
        pair.awaitsReceive = true
    }
    if settings.host != nil { for (index, pair) in pairs.enumerated() { try post(pair, index) } }
    while sent < settings.count || received < settings.count {
        let completion = try completions.poll(timeout: .seconds(300))
        try completion.check()
        guard let index = pairs.firstIndex(where: { $0.queuePair.number == completion.queuePairNumber }) else {
            throw Failure("a completion of queue pair \(completion.queuePairNumber), which is unknown")
        }
        let pair = pairs[index]
        if completion.opcode == .receive {
            received += 1
            pair.awaitsReceive = false
            guard completion.byteCount == header + settings.size else {
                throw Failure("\(completion.byteCount) bytes were received instead of \(header + settings.size)")
            }
            let bytes = memory.unsafeBytes[header..<header + settings.size]
            // The queue pairs of the program receive into one buffer and send from it concurrently.
            let first: UInt8 = settings.isShared ? 0 : 0x7b  // The byte that the programs send first.
            let right = settings.pairs == 1 ? [pair.expected.map(filling) ?? first] : [first, filling(0)]
            guard bytes.allSatisfy(right.contains) else {
                throw Failure("message \(received) has wrong bytes: \(Array(bytes.prefix(16)))")
            }
            if shared != nil { try shared!.postReceive(incoming) } else { try pair.queuePair.postReceive(incoming) }
        } else {
            sent += 1
            pair.awaitsSend = false
        }
        if sent < settings.count, !pair.awaitsSend, !pair.awaitsReceive { try post(pair, index) }
    }
    print("sent \(sent), received and compared \(received)")
}

extension Context {
    func makeShared(
        _ domain: ProtectionDomain, _ settings: Settings, depth: Int
    ) throws -> SharedReceiveQueue? {
        guard settings.isShared else { return nil }
        return try domain.makeSharedReceiveQueue(SharedReceiveQueue.Attributes(maxWR: UInt32(depth)))
    }
}

/// Prints a line on standard error.
func say(_ text: String) {
    let line = Array((text + "\n").utf8)
    write(STDERR_FILENO, line, line.count)
}

do {
    let plays = CommandLine.arguments.dropFirst().split(separator: "then", omittingEmptySubsequences: false)
    for settings in try plays.map(Settings.init) { try run(settings) }
} catch {
    say("pingpong-peer: \(error)")
    exit(1)
}
