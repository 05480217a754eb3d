import RoCETransport

/// Passes the fuzzer's input to the parser of fault rules, and makes decisions with the rules that parse.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzFaultRules(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    if let violation = violation(UnsafeRawBufferPointer(start: start, count: count)) { fatalError(violation) }
    return 0
}

/// Parses `bytes` and returns the violated property, or nil. An error is at a place in the text; a plan makes the same
/// decisions as another one of the same text.
private func violation(_ bytes: UnsafeRawBufferPointer) -> String? {
    do throws(FaultRuleError) {
        var first = try FaultPlan(parsing: bytes, now: 0)
        var second = try FaultPlan(parsing: bytes, now: 0)
        for step in 0..<20 {
            first.now = UInt64(step) << 30
            second.now = first.now
            if decisions(&first, step) != decisions(&second, step) { return "two plans of one text differ" }
        }
        return nil
    } catch {
        let lines = bytes.count { $0 == UInt8(ascii: "\n") } + 1
        guard (1...lines).contains(error.line), (1...bytes.count + 1).contains(error.column), error.offset >= 0,
            error.count >= 0, error.offset + error.count <= bytes.count
        else { return "a wrong error: \(error)" }
        return nil
    }
}

/// The decisions of one round, as text.
private func decisions(_ plan: inout FaultPlan, _ step: Int) -> String {
    // An RC SEND Only with 4 bytes of payload.
    var packet: [UInt8] = [4, 0, 0xFF, 0xFF, 0, 0, 0, 1, 0, 0, 0, UInt8(step), 1, 2, 3, 4, 0, 0, 0, 0]
    var text = ""
    for direction in [FaultDirection.send, .receive] {
        let faults = packet.withUnsafeMutableBytes { plan.packet($0, direction, queuePair: 1) }
        text += "\(faults) "
    }
    plan.noteCompletion(queuePair: 1)
    text +=
        "\(packet) \(plan.failure(of: .regMR)?.errno ?? 0) \(plan.nextEvent()?.event.rawValue ?? 99) \(plan.isStopped())"
    return text
}
