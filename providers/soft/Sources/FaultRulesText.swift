import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// The rules in RDMA_SOFT_FAULTS: read when a device is opened, and explained when they do not parse.

private let variable: StaticString = "RDMA_SOFT_FAULTS"
/// The most bytes of a file of rules.
private let fileCapacity = 1 << 16

/// The value of RDMA_SOFT_FAULTS; nil where it is not set, and in a process with raised privileges.
var faultSetting: UnsafePointer<CChar>? { linux_getenv(variable.cString) }

/// Reads the rules of a setting. `injector` stays nil when there are none.
/// - Returns: 0, or an errno value with the reason: EINVAL for a rule that does not parse.
func readFaultRules(
    _ setting: UnsafePointer<CChar>?, _ injector: inout UnsafeMutablePointer<FaultInjector>?,
    why: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    guard let setting, setting.pointee != 0 else { return 0 }
    let error = parseFaultRules(setting, variable, &injector) { $0.store(in: why) }
    if error != 0 || injector == nil { return error }
    var warning = MessageText("faults are injected on request: RDMA_SOFT_FAULTS has ")
    warning.append(injector!.pointee.plan.pointee.count)
    warning.append(" rules, seed ")
    warning.append(Int(injector!.pointee.plan.pointee.seed))
    warning.log(RDMA_LOG_WARNING)
    return 0
}

/// Checks the text of RDMA_SOFT_FAULTS without opening a device: the rules themselves, or "@" and the path of a file with
/// them.
/// - Parameters:
///   - source: The name of the option or variable that has the rules.
///   - explain: Called with the reason, which is valid during the call, if a rule does not parse or the file cannot be
///     read.
public func checkFaultRules(
    _ setting: UnsafePointer<CChar>, from source: StaticString, explain: (UnsafePointer<CChar>) -> Void
) {
    var injector: UnsafeMutablePointer<FaultInjector>?
    _ = parseFaultRules(setting, source, &injector) { $0.withCString(explain) }
    discard(injector)
}

func discard(_ injector: UnsafeMutablePointer<FaultInjector>?) {
    guard let injector else { return }
    injector.deinitialize(count: 1)
    injector.deallocate()
}

private func parseFaultRules(
    _ setting: UnsafePointer<CChar>, _ source: StaticString, _ injector: inout UnsafeMutablePointer<FaultInjector>?,
    explain: (borrowing MessageText) -> Void
) -> Int32 {
    if setting.pointee != CChar(UInt8(ascii: "@")) {
        var count = 0
        while setting[count] != 0 { count += 1 }
        return parse(UnsafeRawBufferPointer(start: setting, count: count), source, nil, &injector, explain: explain)
    }
    let path = setting + 1
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: fileCapacity, alignment: 1)
    defer { bytes.deallocate() }
    let count = linux_read_file(path, bytes, fileCapacity)
    guard count >= 0 else {
        var reason = MessageText("the fault rules in ")
        reason.append(path)
        reason.append(", which ")
        reason.append(source)
        reason.append(" names, cannot be read: ")
        switch Int32(-count) {
        case EINVAL: reason.append("not a regular file")
        case EFBIG: reason.append("more than 65536 bytes")
        case let error: reason.append(error: error)
        }
        explain(reason)
        return Int32(-count)
    }
    return parse(UnsafeRawBufferPointer(start: bytes, count: count), source, path, &injector, explain: explain)
}

private func parse(
    _ text: UnsafeRawBufferPointer, _ source: StaticString, _ path: UnsafePointer<CChar>?,
    _ injector: inout UnsafeMutablePointer<FaultInjector>?, explain: (borrowing MessageText) -> Void
) -> Int32 {
    do throws(FaultRuleError) {
        let plan = try FaultPlan(parsing: text, now: linux_monotonic_ns())
        guard plan.count > 0 else { return 0 }
        let made = UnsafeMutablePointer<FaultInjector>.allocate(capacity: 1)
        made.initialize(to: FaultInjector(plan))
        injector = made
        return 0
    } catch {
        var reason = MessageText(path == nil ? source : "")
        reason.append(path)
        reason.append(": line ")
        reason.append(error.line)
        reason.append(", column ")
        reason.append(error.column)
        reason.append(": ")
        reason.append(found: UnsafeRawBufferPointer(rebasing: text[error.offset..<error.offset + error.count]))
        reason.append(" ")
        reason.append(error.problem)
        reason.append("; allowed: ")
        reason.append(error.allowed)
        explain(reason)
        return EINVAL
    }
}

extension MessageText {
    /// Appends bytes of the user in quotation marks; those that cannot be printed become "?".
    fileprivate mutating func append(found bytes: UnsafeRawBufferPointer) {
        append("\"")
        var character = InlineArray<2, CChar>(repeating: 0)
        for byte in bytes {
            character[0] = 32...126 ~= byte ? CChar(byte) : CChar(UInt8(ascii: "?"))
            withUnsafeBytes(of: &character) {
                append(UnsafePointer($0.baseAddress!.assumingMemoryBound(to: CChar.self)))
            }
        }
        append("\"")
    }
}
