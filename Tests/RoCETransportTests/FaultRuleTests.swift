import Testing

@testable import RoCETransport

/// Parses rules; throws `FaultRuleError`.
private func parse<Result>(_ text: String, _ body: (borrowing FaultPlan) -> Result) throws -> Result {
    let bytes = Array(text.utf8)
    return try bytes.withUnsafeBytes { bytes in
        let plan = try FaultPlan(parsing: bytes, now: 0)
        return body(plan)
    }
}

/// The error of rules that must not parse.
private func refusal(_ text: String) -> FaultRuleError? {
    do {
        try parse(text) { _ in }
        return nil
    } catch {
        return error as? FaultRuleError
    }
}

@Suite("Fault rules: the language, and decisions from a seed")
struct FaultRuleTests {
    @Test(
        "These rules parse",
        arguments: [
            "seed=7", "loss", "loss=1%", "LOSS=0.0000001%", "loss=100% direction=both qp_type=RC operation=write",
            "loss nth=3", "duplicate every=10 count=2", "reorder=2%", "delay=200us jitter=50us", "delay=1.5ms",
            "corrupt=0.1% icrc=valid", "bandwidth=100Mbit direction=receive", "bandwidth=1.5gbit",
            "completion=IBV_WC_RETRY_EXC_ERR nth=10", "completion=retry_exc_err direction=receive probability=1%",
            "rnr=5% after=10packets", "fail=reg_mr errno=ENOMEM nth=3", "fail=ibv_create_qp errno=eagain",
            "event=IBV_EVENT_PORT_ERR after=2s", "event=gid_change after=1completion", "stop after=100packets",
            "", ";;\n # nothing\n", "seed=1; loss=1% # comment ; not a rule\n\tdelay=1s\r\n",
        ])
    func valid(_ text: String) throws {
        try parse(text) { _ in }
    }

    @Test(
        "A rule that does not parse is reported with its line and column, and with what is allowed",
        arguments: [
            ("losss=1%", 1, 1, "loss, duplicate"), ("seed=7; loss=1", 1, 14, "0% to 100%"),
            ("loss=101%", 1, 6, "0% to 100%"), ("loss=1%% ", 1, 6, "0% to 100%"), ("loss=.5%", 1, 6, "0% to 100%"),
            ("loss=0.00000001%", 1, 6, "7 decimals"), ("seed=x", 1, 6, "NUMBER"), ("seed", 1, 1, "NUMBER"),
            ("seed=1;seed=2", 1, 8, "one seed"), ("seed=1 loss", 1, 8, "semicolon"),
            ("\n\n  delay=3h", 3, 9, "200us"), ("delay", 1, 1, "200us"), ("delay=90000s", 1, 7, "86400s"),
            ("bandwidth=0kbit", 1, 11, "Mbit"), ("bandwidth=5", 1, 11, "Mbit"),
            ("completion=SUCCESS", 1, 12, "RETRY_EXC_ERR"), ("completion=IBV_WC_", 1, 12, "RETRY_EXC_ERR"),
            ("completion=RETRY_EXC_ERR operation=ack", 1, 36, "send, write, read, atomic"),
            ("fail=reg_mr", 1, 1, "errno=NAME"), ("fail=free errno=EIO", 1, 6, "reg_mr"),
            ("fail=reg_mr errno=12", 1, 19, "ENOMEM"),
            ("fail=reg_mr errno=EIO direction=send", 1, 23, "errno, probability"),
            ("event=port_down", 1, 7, "PORT_ERR"), ("event=PORT_ERR after=3", 1, 22, "100packets"),
            ("event=PORT_ERR after=0packets", 1, 22, "100packets"), ("stop=1", 1, 6, "stop after"),
            ("loss nth=0", 1, 10, "from 1"), ("loss nth=1 every=2", 1, 12, "one of"), ("loss=1% nth=1", 1, 9, "one of"),
            ("loss nth", 1, 6, "KEY=VALUE"), ("loss count=1 count=2", 1, 14, "once"),
            ("loss direction=up", 1, 16, "send, receive, both"), ("loss qp_type=XRC", 1, 14, "IBV_QPT_RC"),
            ("corrupt icrc=no", 1, 14, "valid, wrong"), ("loss jitter=1ms", 1, 6, "probability"),
            ("loss nth=99999999999999999999", 1, 10, "from 1"),
        ] as [(String, Int, Int, String)])
    func invalid(_ text: String, _ line: Int, _ column: Int, _ allowed: String) throws {
        let error = try #require(refusal(text))
        #expect(error.line == line && error.column == column, "line \(error.line), column \(error.column)")
        #expect("\(error.allowed)".contains(allowed), "\(error.allowed)")
        #expect(error.offset + error.count <= text.utf8.count)
    }

    @Test("There are at most 64 rules")
    func tooMany() throws {
        try parse(String(repeating: "loss;", count: 64)) { #expect($0.count == 64) }
        let error = try #require(refusal(String(repeating: "loss;", count: 65)))
        #expect(error.column == 64 * 5 + 1)
    }

    @Test("Random bytes and random words parse, or are reported at a place in the text")
    func randomText() {
        var random = KeyedRandom(seed: (1, 2))
        let words = [
            "seed=", "loss", "=", "1%", ";", "\n", " ", "#", "delay=", "9999999999999", "s", "us", ".", "completion=",
            "IBV_WC_", "RETRY_EXC_ERR", "after=", "packets", "fail=", "ibv_", "reg_mr", "errno=", "EIO", "event=",
            "nth=",
            "bandwidth=", "Gbit", "\u{0}", "é", "probability=", "count=", "jitter=",
        ]
        for _ in 0..<4_000 {
            var text: [UInt8] = []
            for _ in 0..<random.next(below: 12) {
                if random.next(below: 4) == 0 {
                    text.append(UInt8(truncatingIfNeeded: random.next()))
                } else {
                    text += Array(words[Int(random.next(below: UInt32(words.count)))].utf8)
                }
            }
            do {
                try text.withUnsafeBytes { bytes in
                    let plan = try FaultPlan(parsing: bytes, now: 0)
                    #expect(plan.count <= 64)
                }
            } catch let error as FaultRuleError {
                #expect(error.line >= 1 && error.column >= 1 && error.offset + error.count <= text.count)
            } catch {
                Issue.record("another error")
            }
        }
    }

    /// The numbers of the decisions, of the first 1000, that fail a verb.
    private func history(_ text: String) throws -> [Int] {
        let bytes = Array(text.utf8)
        return try bytes.withUnsafeBytes { bytes in
            var plan = try FaultPlan(parsing: bytes, now: 0)
            return (0..<1000).filter { _ in plan.failure(of: .regMR) != nil }
        }
    }

    @Test("One seed gives one history; another seed gives another, and other rules change nothing")
    func seeds() throws {
        let rule = "fail=reg_mr errno=EIO probability=20%"
        let first = try history("seed=7; \(rule)")
        #expect(try history("seed=7; \(rule)") == first)
        #expect(try history("seed=7; \(rule); fail=create_qp errno=EIO probability=50%; loss=50%") == first)
        #expect(try history("seed=8; \(rule)") != first)
        // 1000 decisions with a chance of 20 %: the expectation is 200, the standard deviation 13.
        #expect((130...270).contains(first.count))
    }

    @Test("nth, every, count and after choose the occasions")
    func occasions() throws {
        #expect(try history("fail=reg_mr errno=EIO nth=3") == [2])
        #expect(try history("fail=reg_mr errno=EIO every=300") == [299, 599, 899])
        #expect(try history("fail=reg_mr errno=EIO every=300 count=1") == [299])
        #expect(try history("fail=reg_mr errno=EIO count=2") == [0, 1])
        #expect(try history("fail=reg_mr errno=EIO probability=0%") == [])
        #expect(try history("fail=reg_mr errno=EIO after=1s") == [])
        #expect(try history("fail=create_qp errno=EIO") == [])
    }
}
