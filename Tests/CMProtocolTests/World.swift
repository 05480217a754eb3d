import CMProtocol
import TestSupport

/// Two endpoints, a network between them that loses, repeats, delays and reorders messages, and a clock.
struct World {
    enum Side: Int, CaseIterable {
        case client, server
        var other: Side { self == .client ? .server : .client }
        var gid: PortGID { PortGID(low: 0xFFFF_0A4D_0001 + UInt64(rawValue)) }
        var path: CMPath { CMPath(local: gid, remote: other.gid, device: UInt8(rawValue + 1)) }
    }

    struct Flight {
        let to: Side
        let bytes: [UInt8]
        let arrival: UInt64
    }

    var endpoints: [CMEndpoint]
    var now: UInt64 = 0
    var inFlight: [Flight] = []
    var random: SplitMix
    /// Percentages.
    var loss = 0
    var duplication = 0
    /// The longest delay in nanoseconds.
    var delay: UInt64 = 0
    var events: [[CMEvent]] = [[], []]
    /// All messages that were sent.
    var log: [(from: Side, message: CMMessage)] = []

    static let serviceID = IPService.identifier(portSpace: 0x0106, port: 7174)
    static let datagramServiceID = IPService.identifier(portSpace: 0x0111, port: 7174)

    init(seed: UInt64, timing: CMTiming = CMTiming()) {
        random = SplitMix(seed: seed)
        endpoints = [
            CMEndpoint(random: SplitMix.numbers(seed: random.next()), timing: timing),
            CMEndpoint(random: SplitMix.numbers(seed: random.next()), timing: timing),
        ]
    }

    /// Takes what the endpoints have to send and to say.
    mutating func collect() {
        for side in Side.allCases {
            while let transmission = endpoints[side.rawValue].nextTransmission() {
                precondition(transmission.path.local == side.gid && transmission.path.remote == side.other.gid)
                log.append((side, transmission.message))
                if random.chance(loss) { continue }
                for _ in 0..<(random.chance(duplication) ? 2 : 1) {
                    let arrival = now + (delay == 0 ? 0 : random.next() % delay)
                    inFlight.append(Flight(to: side.other, bytes: transmission.message.bytes, arrival: arrival))
                }
            }
            while let event = endpoints[side.rawValue].nextEvent() { events[side.rawValue].append(event) }
        }
    }

    /// Delivers the next message, or lets the next timer expire. Returns false when nothing will happen any more.
    mutating func step() -> Bool {
        collect()
        let deadline = endpoints.compactMap(\.nextDeadline).min()
        if let index = inFlight.indices.min(by: { inFlight[$0].arrival < inFlight[$1].arrival }),
            inFlight[index].arrival <= deadline ?? .max
        {
            let flight = inFlight.remove(at: index)
            now = max(now, flight.arrival)
            // Every message passes through its bytes.
            let message = try! CMMessage(parsing: flight.bytes)
            endpoints[flight.to.rawValue].receive(message, on: flight.to.path, now: now)
        } else if let deadline {
            now = max(now, deadline)
            for side in Side.allCases { endpoints[side.rawValue].advance(to: now) }
        } else {
            return false
        }
        collect()
        return true
    }

    /// Delivers all messages, without letting timers expire.
    mutating func deliver() {
        collect()
        while !inFlight.isEmpty {
            let flight = inFlight.removeFirst()
            endpoints[flight.to.rawValue].receive(
                try! CMMessage(parsing: flight.bytes), on: flight.to.path, now: now)
            collect()
        }
    }

    /// Takes the events of a side.
    mutating func take(_ side: Side) -> [CMEvent] {
        collect()
        defer { events[side.rawValue] = [] }
        return events[side.rawValue]
    }

    subscript(side: Side) -> CMEndpoint {
        get { endpoints[side.rawValue] }
        set { endpoints[side.rawValue] = newValue }
    }

    static func request() -> ConnectRequest {
        var request = ConnectRequest()
        request.serviceID = serviceID
        request.localGUID = 0xC11E
        request.queuePairNumber = 0x1234
        request.privateData =
            IPAddresses(source: Side.client.gid, destination: Side.server.gid, sourcePort: 1000).bytes + [1, 2, 3]
        return request
    }

    static func reply() -> ConnectReply {
        var reply = ConnectReply()
        reply.queuePairNumber = 0x5678
        reply.localGUID = 0x5E4E
        reply.privateData = [4, 5, 6]
        return reply
    }
}
