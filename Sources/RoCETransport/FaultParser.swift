import CIBVerbs

/// A fault rule that does not parse: the place, what was found there, and what is allowed.
public struct FaultRuleError: Error, Sendable {
    /// The line, from 1.
    public let line: Int
    /// The column in bytes, from 1.
    public let column: Int
    /// The offset in the text of what was found.
    public let offset: Int
    /// The number of its bytes, as many as are worth showing; 0 where nothing was found.
    public let count: Int
    /// What is wrong with them.
    public let problem: StaticString
    /// What is allowed instead.
    public let allowed: StaticString
}

/// A word of the rules: `key` or `key=value`, or a part of it.
private struct Word {
    var bytes: UnsafeRawBufferPointer
    var offset: Int
    var line: Int
    var column: Int

    var count: Int { bytes.count }

    /// The part from `start` to `end`.
    func part(_ start: Int, _ end: Int) -> Word {
        Word(
            bytes: UnsafeRawBufferPointer(rebasing: bytes[start..<end]), offset: offset + start, line: line,
            column: column + start)
    }

    /// The words before and after the first "=". The second is nil without one.
    var split: (key: Word, value: Word?) {
        for index in 0..<count where bytes[index] == UInt8(ascii: "=") {
            return (part(0, index), part(index + 1, count))
        }
        return (self, nil)
    }

    /// Whether the word is `name`, without regard to case.
    func matches(_ name: StaticString) -> Bool { matches(name, from: 0) }

    /// Whether the word is `name`, with or without `prefix`, without regard to case.
    func matches(_ name: StaticString, prefix: StaticString) -> Bool {
        if matches(name) { return true }
        let length = prefix.utf8CodeUnitCount
        return count > length && part(0, length).matches(prefix) && matches(name, from: length)
    }

    private func matches(_ name: StaticString, from start: Int) -> Bool {
        guard count - start == name.utf8CodeUnitCount, name.utf8CodeUnitCount > 0 else { return false }
        for index in start..<count where lower(bytes[index]) != lower(name.utf8Start[index - start]) { return false }
        return true
    }

    private func lower(_ byte: UInt8) -> UInt8 {
        UInt8(ascii: "A")...UInt8(ascii: "Z") ~= byte ? byte + 32 : byte
    }

    func error(_ problem: StaticString, _ allowed: StaticString) -> FaultRuleError {
        FaultRuleError(
            line: line, column: column, offset: offset, count: min(count, 40), problem: problem, allowed: allowed)
    }

    /// The decimal number at the start of the word, multiplied by 10^`places`, and the rest of the word, its unit. Nil
    /// when there is no number, or it is 10^12 or more, or it has more decimals.
    func number(decimals: Int) -> (value: UInt64, unit: Word)? {
        var value: UInt64 = 0
        var index = 0
        var places = -1
        while index < count {
            let byte = bytes[index]
            if byte == UInt8(ascii: "."), places < 0, decimals > 0, index > 0 {
                places = 0
            } else if UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte {
                guard value < 100_000_000_000, places < decimals else { return nil }
                value = value * 10 + UInt64(byte - UInt8(ascii: "0"))
                if places >= 0 { places += 1 }
            } else {
                break
            }
            index += 1
        }
        guard index > 0, places != 0 else { return nil }
        for _ in 0..<(decimals - max(places, 0)) {
            guard value < 1_000_000_000_000 else { return nil }
            value *= 10
        }
        return (value, part(index, count))
    }
}

/// The keys of conditions, as bits.
private struct Keys: OptionSet {
    let rawValue: UInt16

    static let probability = Keys(rawValue: 1 << 0)
    static let nth = Keys(rawValue: 1 << 1)
    static let every = Keys(rawValue: 1 << 2)
    static let count = Keys(rawValue: 1 << 3)
    static let after = Keys(rawValue: 1 << 4)
    static let direction = Keys(rawValue: 1 << 5)
    static let type = Keys(rawValue: 1 << 6)
    static let operation = Keys(rawValue: 1 << 7)
    static let jitter = Keys(rawValue: 1 << 8)
    static let icrc = Keys(rawValue: 1 << 9)
    static let errno = Keys(rawValue: 1 << 10)

    static let choice: Keys = [.probability, .nth, .every]
    static let frequency: Keys = [.probability, .nth, .every, .count, .after]
    static let selection: Keys = [.direction, .type, .operation]
}

extension FaultKind {
    private static let packetKeys: StaticString =
        "probability, nth, every, count, after, direction, qp_type, operation"

    fileprivate var keys: Keys {
        switch self {
        case .loss, .duplicate, .reorder, .completion: Keys.frequency.union(.selection)
        case .corrupt: Keys.frequency.union(.selection).union(.icrc)
        case .delay: Keys.frequency.union(.selection).union(.jitter)
        case .bandwidth: [.after, .direction]
        case .rnr: .frequency
        case .fail: Keys.frequency.union(.errno)
        case .event, .stop: .after
        }
    }

    fileprivate var keyNames: StaticString {
        switch self {
        case .loss, .duplicate, .reorder, .completion: Self.packetKeys
        case .corrupt: "probability, nth, every, count, after, direction, qp_type, operation, icrc"
        case .delay: "probability, nth, every, count, after, direction, qp_type, operation, jitter"
        case .bandwidth: "after, direction"
        case .rnr: "probability, nth, every, count, after"
        case .fail: "errno, probability, nth, every, count, after"
        case .event, .stop: "after"
        }
    }

    /// The word of the rule.
    public var name: StaticString {
        switch self {
        case .loss: "loss"
        case .duplicate: "duplicate"
        case .reorder: "reorder"
        case .corrupt: "corrupt"
        case .delay: "delay"
        case .bandwidth: "bandwidth"
        case .completion: "completion"
        case .rnr: "rnr"
        case .fail: "fail"
        case .event: "event"
        case .stop: "stop"
        }
    }

    fileprivate init?(_ word: Word) {
        for raw in 0...FaultKind.stop.rawValue {
            if let kind = FaultKind(rawValue: raw), word.matches(kind.name) {
                self = kind
                return
            }
        }
        return nil
    }
}

/// Parses the text of fault rules. See `FaultPlan` for the language.
struct FaultParser {
    private let text: UnsafeRawBufferPointer
    private var position = 0
    private var line = 1
    private var lineStart = 0

    /// The most rules of one plan.
    static var maximumRules: Int { 64 }

    var seed: UInt64 = 0
    private var hasSeed = false

    init(_ text: UnsafeRawBufferPointer) { self.text = text }

    /// Writes the rules to `rules`, which has room for `maximumRules`.
    /// - Returns: The number of rules.
    mutating func parse(into rules: UnsafeMutablePointer<FaultRule>) throws(FaultRuleError) -> Int {
        var count = 0
        while position < text.count {
            guard let first = nextWord() else {
                endRule()
                continue
            }
            let (key, value) = first.split
            if key.matches("seed") {
                try parseSeed(first, value)
                continue
            }
            guard let kind = FaultKind(key) else {
                throw key.error(
                    "is not a rule",
                    "seed, loss, duplicate, reorder, corrupt, delay, bandwidth, completion, rnr, fail, event, stop")
            }
            guard count < Self.maximumRules else { throw key.error("is one rule too many", "64 rules") }
            var rule = FaultRule(kind)
            rule.number = count + 1
            rule.line = first.line
            rule.column = first.column
            var seen: Keys = []
            try setValue(of: &rule, key, value, &seen)
            while let word = nextWord() { try setCondition(of: &rule, word, &seen) }
            if kind == .fail && rule.errno == 0 { throw first.error("has no errno", "fail=VERB errno=NAME") }
            (rules + count).initialize(to: rule)
            count += 1
            endRule()
        }
        return count
    }

    // MARK: Words

    private var lineEnd: UInt8 { UInt8(ascii: "\n") }

    /// The next word of the current rule; nil at its end.
    private mutating func nextWord() -> Word? {
        while position < text.count {
            let byte = text[position]
            if byte == UInt8(ascii: "#") {
                while position < text.count, text[position] != lineEnd { position += 1 }
            } else if byte == UInt8(ascii: ";") || byte == lineEnd {
                return nil
            } else if isBlank(byte) {
                position += 1
            } else {
                let start = position
                while position < text.count, !isEnd(text[position]) { position += 1 }
                return Word(
                    bytes: UnsafeRawBufferPointer(rebasing: text[start..<position]), offset: start, line: line,
                    column: start - lineStart + 1)
            }
        }
        return nil
    }

    private func isBlank(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 || byte == 13 }

    private func isEnd(_ byte: UInt8) -> Bool {
        isBlank(byte) || byte == UInt8(ascii: ";") || byte == UInt8(ascii: "#") || byte == lineEnd
    }

    /// Passes the separator at the end of a rule.
    private mutating func endRule() {
        guard position < text.count else { return }
        if text[position] == lineEnd {
            line += 1
            lineStart = position + 1
        }
        position += 1
    }

    // MARK: Values

    private mutating func parseSeed(_ word: Word, _ value: Word?) throws(FaultRuleError) {
        guard !hasSeed else { throw word.error("is a second seed", "one seed") }
        guard let value, let (number, unit) = value.number(decimals: 0), unit.count == 0 else {
            throw (value ?? word).error("is not a seed", "seed=NUMBER, from 0 to 999999999999")
        }
        seed = number
        hasSeed = true
        if let other = nextWord() {
            throw other.error("follows the seed", "a semicolon or a new line before the next rule")
        }
        endRule()
    }

    private func setValue(
        of rule: inout FaultRule, _ key: Word, _ value: Word?, _ seen: inout Keys
    ) throws(FaultRuleError) {
        switch rule.kind {
        case .loss, .duplicate, .reorder, .corrupt, .rnr:
            guard let value else { return }
            rule.chance = try probability(value)
            seen.insert(.probability)
        case .stop:
            if let value { throw value.error("is a value, and stop has none", "stop, or stop after=START") }
        case .delay:
            rule.value = try time(value ?? key)
        case .bandwidth:
            rule.value = try rate(value ?? key)
        case .completion:
            rule.value = UInt64(try status(value ?? key))
        case .fail:
            rule.value = UInt64(try verb(value ?? key).rawValue)
        case .event:
            rule.value = UInt64(try event(value ?? key).rawValue)
        }
    }

    private func setCondition(of rule: inout FaultRule, _ word: Word, _ seen: inout Keys) throws(FaultRuleError) {
        let (name, given) = word.split
        guard let key = key(name), rule.kind.keys.contains(key) else {
            throw name.error("is not a condition of this rule", rule.kind.keyNames)
        }
        guard let value = given else { throw word.error("has no value", "KEY=VALUE without blanks") }
        guard seen.isDisjoint(with: key) else { throw word.error("is given twice", "each condition once") }
        if !key.isDisjoint(with: .choice), !seen.isDisjoint(with: .choice) {
            throw word.error("is a second choice of occasions", "one of probability, nth and every")
        }
        seen.insert(key)
        switch key {
        case .probability: rule.chance = try probability(value)
        case .nth: rule.nth = try ordinal(value)
        case .every: rule.every = try ordinal(value)
        case .count: rule.limit = try ordinal(value)
        case .after: try setStart(of: &rule, value)
        case .direction: rule.directions = try directions(value)
        case .type: rule.type = try type(value)
        case .operation: rule.operation = try operation(value, of: rule.kind)
        case .jitter: rule.jitter = try time(value)
        case .icrc: rule.keepsICRC = try keepsICRC(value)
        default: rule.errno = try errno(value)
        }
    }

    private func key(_ word: Word) -> Keys? {
        if word.matches("probability") { return .probability }
        if word.matches("nth") { return .nth }
        if word.matches("every") { return .every }
        if word.matches("count") { return .count }
        if word.matches("after") { return .after }
        if word.matches("direction") { return .direction }
        if word.matches("qp_type") { return .type }
        if word.matches("operation") { return .operation }
        if word.matches("jitter") { return .jitter }
        if word.matches("icrc") { return .icrc }
        if word.matches("errno") { return .errno }
        return nil
    }

    private func probability(_ word: Word) throws(FaultRuleError) -> UInt32 {
        // Seven decimals of a percentage are billionths.
        guard let (value, unit) = word.number(decimals: 7), unit.matches("%"), value <= UInt64(FaultRule.certain) else {
            throw word.error("is not a probability", "0% to 100%, with up to 7 decimals, such as 0.5%")
        }
        return UInt32(value)
    }

    private func ordinal(_ word: Word) throws(FaultRuleError) -> UInt64 {
        guard let (value, unit) = word.number(decimals: 0), unit.count == 0, value > 0 else {
            throw word.error("is not a count", "a number from 1")
        }
        return value
    }

    private func time(_ word: Word) throws(FaultRuleError) -> UInt64 {
        guard let time = nanoseconds(word) else {
            throw word.error("is not a time", "a number with ns, us, ms or s, up to 86400s, such as 200us or 1.5ms")
        }
        return time
    }

    private func nanoseconds(_ word: Word) -> UInt64? {
        guard let (value, unit) = word.number(decimals: 3) else { return nil }
        let factor: UInt64
        if unit.matches("ns") {
            factor = 1
        } else if unit.matches("us") {
            factor = 1000
        } else if unit.matches("ms") {
            factor = 1_000_000
        } else if unit.matches("s") {
            factor = 1_000_000_000
        } else {
            return nil
        }
        let (product, overflow) = value.multipliedReportingOverflow(by: factor)
        guard !overflow, product / 1000 <= 86_400_000_000_000 else { return nil }
        return product / 1000
    }

    private func rate(_ word: Word) throws(FaultRuleError) -> UInt64 {
        if let (value, unit) = word.number(decimals: 3) {
            var factor: UInt64 = 0
            if unit.matches("kbit") { factor = 1000 }
            if unit.matches("Mbit") { factor = 1_000_000 }
            if unit.matches("Gbit") { factor = 1_000_000_000 }
            let (product, overflow) = value.multipliedReportingOverflow(by: factor)
            if !overflow, product / 1000 >= 1000, product / 1000 <= 1_000_000_000_000 { return product / 1000 }
        }
        throw word.error("is not a bandwidth", "1kbit to 1000Gbit, with kbit, Mbit or Gbit, such as 100Mbit")
    }

    private func status(_ word: Word) throws(FaultRuleError) -> UInt32 {
        for value in 1...IBV_WC_GENERAL_ERR.rawValue where word.matches(faultStatusName(value), prefix: "IBV_WC_") {
            return value
        }
        throw word.error(
            "is not the status of a failed completion",
            """
            IBV_WC_ and LOC_LEN_ERR, LOC_QP_OP_ERR, LOC_EEC_OP_ERR, LOC_PROT_ERR, WR_FLUSH_ERR, MW_BIND_ERR, BAD_RESP_ERR, \
            LOC_ACCESS_ERR, REM_INV_REQ_ERR, REM_ACCESS_ERR, REM_OP_ERR, RETRY_EXC_ERR, RNR_RETRY_EXC_ERR, \
            REM_ABORT_ERR, FATAL_ERR, RESP_TIMEOUT_ERR, GENERAL_ERR
            """)
    }

    private func verb(_ word: Word) throws(FaultRuleError) -> FaultVerb {
        for raw in 0...FaultVerb.postSRQRecv.rawValue {
            if let verb = FaultVerb(rawValue: raw), word.matches(verb.name, prefix: "ibv_") { return verb }
        }
        throw word.error(
            "is not a verb that can fail",
            """
            query_device, query_port, query_gid, alloc_pd, alloc_td, alloc_parent_domain, reg_mr, rereg_mr, \
            create_comp_channel, create_cq, resize_cq, create_srq, modify_srq, query_srq, create_qp, modify_qp, \
            query_qp, create_ah, post_send, post_recv, post_srq_recv
            """)
    }

    private func event(_ word: Word) throws(FaultRuleError) -> FaultEvent {
        for raw in 0...FaultEvent.deviceFatal.rawValue {
            if let event = FaultEvent(rawValue: raw), word.matches(event.name, prefix: "IBV_EVENT_") { return event }
        }
        throw word.error(
            "is not an event that can be caused",
            "IBV_EVENT_ and PORT_ERR, PORT_ACTIVE, GID_CHANGE, QP_FATAL or DEVICE_FATAL")
    }

    private func setStart(of rule: inout FaultRule, _ word: Word) throws(FaultRuleError) {
        if let time = nanoseconds(word) {
            rule.start = .time
            rule.startValue = time
            return
        }
        if let (value, unit) = word.number(decimals: 0), value > 0 {
            rule.startValue = value
            if unit.matches("packets") || unit.matches("packet") {
                rule.start = .packets
                return
            }
            if unit.matches("completions") || unit.matches("completion") {
                rule.start = .completions
                return
            }
        }
        throw word.error(
            "is not a time or a count", "a time such as 2s, or a count without a blank: 100packets or 10completions")
    }

    private func directions(_ word: Word) throws(FaultRuleError) -> UInt8 {
        if word.matches("send") { return FaultDirection.send.rawValue }
        if word.matches("receive") { return FaultDirection.receive.rawValue }
        if word.matches("both") { return FaultDirection.send.rawValue | FaultDirection.receive.rawValue }
        throw word.error("is not a direction", "send, receive, both")
    }

    private func type(_ word: Word) throws(FaultRuleError) -> QueuePairType {
        if word.matches("RC", prefix: "IBV_QPT_") { return .rc }
        if word.matches("UC", prefix: "IBV_QPT_") { return .uc }
        if word.matches("UD", prefix: "IBV_QPT_") { return .ud }
        if word.matches("XRC_SEND", prefix: "IBV_QPT_") { return .xrcSend }
        if word.matches("XRC_RECV", prefix: "IBV_QPT_") { return .xrcReceive }
        throw word.error(
            "is not a queue pair type",
            "IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, IBV_QPT_XRC_SEND, IBV_QPT_XRC_RECV, with or without IBV_QPT_")
    }

    private func operation(_ word: Word, of kind: FaultKind) throws(FaultRuleError) -> FaultOperation {
        if word.matches("send") { return .send }
        if word.matches("write") { return .write }
        if word.matches("read") { return .read }
        if word.matches("atomic") { return .atomic }
        if word.matches("ack"), kind != .completion { return .ack }
        throw word.error(
            "is not an operation of this rule",
            kind == .completion ? "send, write, read, atomic" : "send, write, read, atomic, ack")
    }

    private func keepsICRC(_ word: Word) throws(FaultRuleError) -> Bool {
        if word.matches("valid") { return true }
        if word.matches("wrong") { return false }
        throw word.error("does not say how the ICRC is", "valid, wrong")
    }

    private func errno(_ word: Word) throws(FaultRuleError) -> Int32 {
        var index = 0
        while let (name, value) = faultErrno(index) {
            if word.matches(name) { return value }
            index += 1
        }
        throw word.error(
            "is not an errno value that a rule can have",
            """
            EPERM, EINTR, EIO, ENXIO, EAGAIN, ENOMEM, EACCES, EFAULT, EBUSY, ENODEV, EINVAL, EMFILE, ENFILE, ENOSPC, ENOSYS, \
            EOPNOTSUPP, ETIMEDOUT
            """)
    }
}
