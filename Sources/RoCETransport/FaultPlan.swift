import CIBVerbs
import RoCEWire

/// The faults that one packet has.
@frozen
public struct PacketFaults: Sendable {
    /// The packet is not delivered.
    public var isLost = false
    /// The packet is delivered twice.
    public var isDuplicated = false
    /// The packet is delivered after the next one.
    public var isReordered = false
    /// The ICRC of the packet is wrong.
    public var hasWrongICRC = false
    /// When the packet is delivered, in nanoseconds.
    public var deliveredAt: UInt64 = 0
    /// Bit N: rule N, from 0, has caused one of these.
    public var rules: UInt64 = 0
}

/// Fault rules, and the decisions that they make: without input and output, and without a clock.
///
/// The text is a list of rules, separated by semicolons or line ends; `#` begins a comment. A rule is a word, some with a
/// value (`loss=1%`), and conditions (`nth=3`). Documentation/faults.md describes the language.
///
/// Each rule numbers its own occasions (packets, work requests, calls that its conditions select), and draws from a
/// generator of its own, keyed by the seed and the rule's number. So the same seed gives the same decision for the Nth
/// occasion of a rule, whatever the other rules decide. The functions are called one after the other, like those of
/// `Engine`.
public struct FaultPlan: ~Copyable {
    private let rules: UnsafeMutablePointer<FaultRule>
    /// The number of rules.
    public let count: Int
    /// The seed of all decisions.
    public let seed: UInt64
    /// When the device was opened, in nanoseconds of any monotonic clock.
    private let openedAt: UInt64
    /// The time of the current round, by the same clock. The caller sets it.
    public var now: UInt64
    /// Packets sent and received.
    public private(set) var packets: UInt64 = 0
    /// Completions that the application has polled.
    public private(set) var completions: UInt64 = 0
    /// Packets that were dropped because the device has stopped or its port is down.
    public var suppressedPackets: UInt64 = 0

    /// The first packets of requests that the peer is to refuse as invalid.
    private struct Spoiled {
        var number: UInt32 = 0
        var psn: UInt32 = 0
    }
    private var spoiled = InlineArray<16, Spoiled>(repeating: Spoiled())
    private var spoiledCount = 0

    /// Parses the rules.
    /// - Parameters:
    ///   - text: The rules. They are read during the call only.
    ///   - now: The time in nanoseconds, from which `after=TIME` counts.
    public init(parsing text: UnsafeRawBufferPointer, now: UInt64) throws(FaultRuleError) {
        let rules = UnsafeMutablePointer<FaultRule>.allocate(capacity: FaultParser.maximumRules)
        var parser = FaultParser(text)
        do throws(FaultRuleError) {
            count = try parser.parse(into: rules)
        } catch {
            rules.deallocate()
            throw error
        }
        self.rules = rules
        seed = parser.seed
        openedAt = now
        self.now = now
        for index in 0..<count { rules[index].random = KeyedRandom(seed: (parser.seed, UInt64(index + 1))) }
    }

    deinit { rules.deallocate() }

    // MARK: Rules

    /// The number of faults of one kind that were injected.
    public func injections(_ kind: FaultKind) -> UInt64 {
        var sum: UInt64 = 0
        for index in 0..<count where rules[index].kind == kind { sum &+= rules[index].injections }
        return sum
    }

    /// The kind, place, decisions and injections of rule `index`, from 0.
    public func rule(_ index: Int) -> (kind: FaultKind, line: Int, column: Int, decisions: UInt64, injections: UInt64) {
        precondition(index >= 0 && index < count, "there is no such rule")
        let rule = rules[index]
        return (rule.kind, rule.line, rule.column, rule.decisions, rule.injections)
    }

    private func hasBegun(_ rule: borrowing FaultRule) -> Bool {
        switch rule.start {
        case .immediately: true
        case .time: now &- openedAt >= rule.startValue
        case .packets: packets >= rule.startValue
        case .completions: completions >= rule.startValue
        }
    }

    // MARK: Packets

    /// Decides about a packet, and corrupts it.
    /// - Parameters:
    ///   - packet: The packet, from the BTH to the end of the ICRC, at least 12 bytes.
    ///   - number: The number of this device's queue pair.
    public mutating func packet(
        _ packet: UnsafeMutableRawBufferPointer, _ direction: FaultDirection, queuePair number: UInt32
    ) -> PacketFaults {
        var faults = PacketFaults()
        faults.deliveredAt = now
        packets &+= 1
        noteCount(.packets, packets, number)
        if direction == .send { spoil(packet, number) }
        let opcode = Opcode(rawValue: packet[0])
        for index in 0..<count {
            let rule = rules + index
            guard rule.pointee.kind.rawValue <= FaultKind.bandwidth.rawValue,
                rule.pointee.directions & direction.rawValue != 0,
                rule.pointee.type.map({ $0.transport == opcode.transport }) ?? true,
                rule.pointee.operation.map({ $0 == opcode.faultOperation }) ?? true,
                !(rule.pointee.keepsICRC && Self.payload(packet) == nil),
                hasBegun(rule.pointee), rule.pointee.decide()
            else { continue }
            if rule.pointee.kind != .bandwidth { faults.rules |= 1 << UInt64(index) }
            apply(rule, packet, direction, &faults)
        }
        return faults
    }

    private func apply(
        _ rule: UnsafeMutablePointer<FaultRule>, _ packet: UnsafeMutableRawBufferPointer, _ direction: FaultDirection,
        _ faults: inout PacketFaults
    ) {
        switch rule.pointee.kind {
        case .loss: faults.isLost = true
        case .duplicate: faults.isDuplicated = true
        case .reorder: faults.isReordered = true
        case .corrupt:
            guard rule.pointee.keepsICRC, let payload = Self.payload(packet) else {
                faults.hasWrongICRC = true
                return
            }
            let bit = rule.pointee.random.next(below: UInt32(payload.count * 8))
            packet[payload.lowerBound + Int(bit / 8)] ^= 1 << UInt8(bit % 8)
        case .delay:
            let jitter = rule.pointee.jitter
            let extra = jitter == 0 ? 0 : rule.pointee.random.next() % (jitter + 1)
            faults.deliveredAt &+= rule.pointee.value &+ extra
        default:
            let time = UInt64(packet.count) * 8 * 1_000_000_000 / rule.pointee.value
            if direction == .send {
                rule.pointee.freeAt.0 = max(rule.pointee.freeAt.0, faults.deliveredAt) &+ time
                faults.deliveredAt = rule.pointee.freeAt.0
            } else {
                rule.pointee.freeAt.1 = max(rule.pointee.freeAt.1, faults.deliveredAt) &+ time
                faults.deliveredAt = rule.pointee.freeAt.1
            }
        }
    }

    /// The bytes of the payload; nil without one.
    private static func payload(_ packet: UnsafeMutableRawBufferPointer) -> Range<Int>? {
        guard let parsed = try? TransportPacket(parsing: UnsafeRawBufferPointer(packet)), parsed.payloadByteCount > 0
        else { return nil }
        return parsed.payloadOffset..<parsed.payloadOffset + parsed.payloadByteCount
    }

    // MARK: Completions

    /// Decides about the status of a send work request of which no packet was sent yet.
    mutating func sendStatus(
        _ type: QueuePairType, _ operation: FaultOperation, length: UInt32
    ) -> CompletionStatus? {
        completionStatus(type, operation, .send) { status in
            switch status {
            // Only RC and XRC have responses, and only a request with an R_Key can be refused for one.
            case .remoteAccessError: type.isReliable && operation != .send && length > 0
            case .remoteInvalidRequestError, .remoteOperationError, .retryExceeded, .rnrRetryExceeded: type.isReliable
            default: true
            }
        }
    }

    /// Decides about the status of a receive work request whose message begins.
    mutating func receiveStatus(_ type: QueuePairType, _ operation: FaultOperation) -> CompletionStatus? {
        completionStatus(type, operation, .receive) { _ in true }
    }

    private mutating func completionStatus(
        _ type: QueuePairType, _ operation: FaultOperation, _ direction: FaultDirection,
        where isPossible: (CompletionStatus) -> Bool
    ) -> CompletionStatus? {
        var found: CompletionStatus?
        for index in 0..<count {
            let rule = rules + index
            let status = CompletionStatus(rawValue: UInt32(truncatingIfNeeded: rule.pointee.value))
            guard rule.pointee.kind == .completion, rule.pointee.directions & direction.rawValue != 0,
                rule.pointee.type.map({ $0 == type }) ?? true,
                rule.pointee.operation.map({ $0 == operation }) ?? true,
                isPossible(status), hasBegun(rule.pointee), rule.pointee.decide()
            else { continue }
            // Of several rules, the first decides. The others have made their decision all the same.
            if found == nil { found = status }
        }
        return found
    }

    /// Decides whether a request that consumes a receive work request is answered with an RNR NAK.
    mutating func answersRNR() -> Bool {
        var answer = false
        for index in 0..<count where rules[index].kind == .rnr {
            if hasBegun(rules[index]), rules[index].decide() { answer = true }
        }
        return answer
    }

    /// Marks the packet with this PSN: it leaves with a reserved BTH.OpCode whenever it is sent, so the peer refuses it.
    mutating func spoil(_ number: UInt32, psn: UInt32) {
        spoiled[spoiledCount % 16] = Spoiled(number: number, psn: psn)
        spoiledCount &+= 1
    }

    private func spoil(_ packet: UnsafeMutableRawBufferPointer, _ number: UInt32) {
        guard spoiledCount > 0, packet.count >= BTH.byteCount else { return }
        let psn = UInt32(packet[9]) << 16 | UInt32(packet[10]) << 8 | UInt32(packet[11])
        let opcode = Opcode(rawValue: packet[0])
        for index in 0..<min(spoiledCount, 16) where spoiled[index].number == number && spoiled[index].psn == psn {
            // A response can have the same PSN.
            if opcode.isRequest { packet[0] |= Self.reservedOpcode }
        }
    }

    /// The low five bits of a BTH.OpCode that is reserved on RC and on XRC, whose requests alone are spoiled.
    private static var reservedOpcode: UInt8 { 0x1F }

    /// Counts a completion that the application has polled.
    public mutating func noteCompletion(queuePair number: UInt32) {
        completions &+= 1
        noteCount(.completions, completions, number)
    }

    // MARK: Verbs

    /// Decides whether a call of a verb fails. Returns its errno value and the number of the rule, from 0, or nil.
    public mutating func failure(of verb: FaultVerb) -> (errno: Int32, rule: Int)? {
        var found: (Int32, Int)?
        for index in 0..<count where rules[index].kind == .fail && rules[index].value == UInt64(verb.rawValue) {
            if hasBegun(rules[index]), rules[index].decide(), found == nil { found = (rules[index].errno, index) }
        }
        return found
    }

    // MARK: Events

    private func noteCount(_ unit: FaultRule.Start, _ reached: UInt64, _ number: UInt32) {
        for index in 0..<count
        where rules[index].kind == .event && rules[index].start == unit && rules[index].startValue == reached {
            rules[index].subject = number
        }
    }

    /// The next event that is due, once for each rule; nil when there is none. For `IBV_EVENT_QP_FATAL`, `queuePair` is
    /// the number of the queue pair whose packet or completion the count ended with, or 0 for every queue pair.
    public mutating func nextEvent() -> (event: FaultEvent, queuePair: UInt32, rule: Int)? {
        for index in 0..<count
        where rules[index].kind == .event && rules[index].injections == 0 && hasBegun(rules[index]) {
            guard let event = FaultEvent(rawValue: UInt8(truncatingIfNeeded: rules[index].value)) else { continue }
            rules[index].decisions = 1
            rules[index].injections = 1
            return (event, rules[index].subject, index)
        }
        return nil
    }

    /// Whether a rule has stopped the device.
    public mutating func isStopped() -> Bool {
        var result = false
        for index in 0..<count where rules[index].kind == .stop && hasBegun(rules[index]) {
            rules[index].decisions = 1
            rules[index].injections = 1
            result = true
        }
        return result
    }

    /// The time of the next event that comes after a time; nil when there is none.
    public var nextDeadline: UInt64? {
        var earliest = UInt64.max
        for index in 0..<count
        where rules[index].kind == .event && rules[index].start == .time && rules[index].injections == 0 {
            earliest = min(earliest, openedAt &+ rules[index].startValue)
        }
        return earliest == .max ? nil : earliest
    }
}

extension Opcode {
    /// The operation of a packet, for `operation=`.
    var faultOperation: FaultOperation {
        switch operation {
        case .send: .send
        case .write, .atomicWrite, .flush: .write
        case .readRequest, .readResponse: .read
        case .compareAndSwap, .fetchAndAdd, .atomicAcknowledge: .atomic
        case .acknowledge: .ack
        default: .other
        }
    }
}
