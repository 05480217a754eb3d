import RDMANetlink
import SystemPackage
import Verbs

/// The exit codes of `verbs`. They are stable: scripts rely on them, verbs(1) documents them.
enum ToolExit: Int32, CaseIterable {
    case success = 0
    /// Something failed that has no code of its own.
    case failure = 1
    /// There is no RDMA device, or not the one that was named.
    case noDevice = 2
    /// The device or its provider cannot do what was asked.
    case unsupported = 3
    /// A verb failed on this side.
    case verbFailed = 4
    /// The other side could not be reached, or is not `verbs` of this version.
    case cannotMeet = 5
    /// The other side was lost during the run, or reported a failure of its own.
    case peerLost = 6
    /// Data arrived that is not what was sent.
    case corrupted = 7
    /// `doctor` found something that stands in the way.
    case faultFound = 8
    /// The other side was interrupted; the summary covers the run so far.
    case stoppedByPeer = 9
    /// The command line is wrong.
    case usage = 64
    /// Ctrl-C; the summary covers the run so far.
    case interrupted = 130
    /// SIGTERM; the summary covers the run so far.
    case terminated = 143

    var meaning: String {
        switch self {
        case .success: "It is done."
        case .failure: "Something failed that has no code of its own."
        case .noDevice: "There is no RDMA device, or not the one that was named."
        case .unsupported: "The device or its provider cannot do what was asked."
        case .verbFailed: "A verb failed on this side."
        case .cannotMeet: "The other side could not be reached, or is not verbs of this version."
        case .peerLost: "The other side was lost during the run, or reported a failure of its own."
        case .corrupted: "Data arrived that is not what was sent."
        case .faultFound: "doctor found something that stands in the way."
        case .stoppedByPeer: "The other side was interrupted; the summary covers the run so far."
        case .usage: "The command line is wrong."
        case .interrupted: "Ctrl-C; the summary covers the run so far."
        case .terminated: "SIGTERM; the summary covers the run so far."
        }
    }
}

/// An error as the user sees it: what failed, what to try, and the exit code.
struct ToolError: Error, Codable, Equatable {
    var message: String
    var hint: String
    private var code: Int32

    init(_ exit: ToolExit, _ message: String, hint: String) {
        self.message = message
        self.hint = hint
        code = exit.rawValue
    }

    /// The exit code; one that came from a peer and is unknown here counts as a plain failure.
    var exit: ToolExit { ToolExit(rawValue: code) ?? .failure }

    /// What is printed on standard error.
    var text: String { "verbs: \(message)\n  try: \(hint)" }
}

extension ToolError {
    private static let lookForDevices =
        "verbs doctor says what is missing; the software device needs the loopback interface (ip link set lo up)"

    static let noDevices = ToolError(.noDevice, "there is no RDMA device", hint: lookForDevices)

    static let noActivePort = ToolError(.noDevice, "no RDMA device has an active port", hint: lookForDevices)

    static func noDevice(_ name: String, among names: [String]) -> ToolError {
        let hint = names.isEmpty ? noDevices.hint : "one of these: \(names.joined(separator: ", "))"
        return ToolError(.noDevice, "there is no device \"\(name)\"", hint: hint)
    }

    /// A software device, where only the kernel could answer.
    static func notInKernel(_ name: String) -> ToolError {
        ToolError(
            .unsupported, "\(name) is a software device: the kernel knows nothing of its objects and counters",
            hint: "verbs info \(name) shows the device, verbs watch \(name) its events")
    }

    /// Something that the kernel did not tell.
    init(_ error: NetlinkError) {
        self.init(
            error.reason == .unavailable ? .noDevice : .failure, "cannot \(error.request): \(error.sentence)",
            hint: error.hint)
    }

    /// Messages that nobody answered.
    static func noAnswer(to count: Int, _ patience: UInt64) -> ToolError {
        let messages = count == 1 ? "a message" : "\(count) messages"
        return ToolError(
            .peerLost, "no answer to \(messages) within \(Units.duration(nanoseconds: patience))",
            hint: "look at the other side, at the link (verbs info) and at firewalls for UDP port 4791")
    }

    /// A verb that failed on this side.
    init(_ error: VerbsError) {
        let exit: ToolExit =
            switch error.errno {
            case _ where error.completionStatus == .retryExceeded || error.completionStatus == .rnrRetryExceeded:
                .peerLost
            case .operationNotSupportedByDevice where error.verb == .openDevice: .noDevice
            case .notSupported: .unsupported
            default: .verbFailed
            }
        let cause = error.completionStatus.map { "completion status \($0)" } ?? error.errno.description
        let doctor = "verbs doctor looks for what stands in the way"
        self.init(
            exit, "\(error.verb) failed on \(error.object): \(cause)",
            hint: error.hint.map { exit == .peerLost ? "\($0); \(doctor)" : $0 } ?? doctor)
    }

    /// The two sides could not meet, or lost each other.
    init(_ error: RendezvousError) {
        let exit: ToolExit = error.reason == .disconnected || error.reason == .closed ? .peerLost : .cannotMeet
        self.init(exit, error.description, hint: error.hint)
    }
}
