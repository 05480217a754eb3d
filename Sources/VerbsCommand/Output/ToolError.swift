import ProviderLoader
import RDMANetlink
import Rendezvous
import SystemPackage
import Verbs

/// The exit codes of `verbs`, documented in verbs(1). They are stable: scripts rely on them.
enum ToolExit: Int32, CaseIterable {
    case success = 0
    /// A failure without an exit code of its own.
    case failure = 1
    /// There is no RDMA device, or no device of the given name.
    case noDevice = 2
    /// The device or its provider does not support the request.
    case unsupported = 3
    /// A verb failed in this process.
    case verbFailed = 4
    /// The peer could not be reached, or is not `verbs` of this version.
    case cannotConnect = 5
    /// The connection to the peer was lost during the run, or the peer reported a failure.
    case peerLost = 6
    /// Received data differs from the data that was sent.
    case corrupted = 7
    /// `doctor` found an error.
    case problemFound = 8
    /// The peer was interrupted; the summary covers the run until then.
    case stoppedByPeer = 9
    /// The command line is wrong.
    case usage = 64
    /// SIGINT (Ctrl-C); the summary covers the run until then.
    case interrupted = 130
    /// SIGTERM; the summary covers the run until then.
    case terminated = 143

    var meaning: String {
        switch self {
        case .success: "Success."
        case .failure: "A failure without an exit code of its own."
        case .noDevice: "There is no RDMA device, or no device of the given name."
        case .unsupported: "The device or its provider does not support the request."
        case .verbFailed: "A verb failed in this process."
        case .cannotConnect: "The peer could not be reached, or is not verbs of this version."
        case .peerLost: "The connection to the peer was lost during the run, or the peer reported a failure."
        case .corrupted: "Received data differs from the data that was sent."
        case .problemFound: "doctor found an error."
        case .stoppedByPeer: "The peer was interrupted; the summary covers the run until then."
        case .usage: "The command line is wrong."
        case .interrupted: "SIGINT (Ctrl-C); the summary covers the run until then."
        case .terminated: "SIGTERM; the summary covers the run until then."
        }
    }
}

/// An error for the user: what failed, what to try, and the exit code.
struct ToolError: Error, Codable, Equatable {
    var message: String
    var hint: String
    private var code: Int32

    init(_ exit: ToolExit, _ message: String, hint: String) {
        self.message = message
        self.hint = hint
        code = exit.rawValue
    }

    /// The exit code; `failure` if a peer sent a code that is unknown here.
    var exit: ToolExit { ToolExit(rawValue: code) ?? .failure }

    /// The text that is printed on standard error.
    var text: String { "verbs: \(message)\n  try: \(hint)" }
}

extension ToolError {
    private static let lookForDevices =
        "run verbs doctor; the software device needs the loopback interface (ip link set lo up)"

    static let noDevices = ToolError(.noDevice, "there is no RDMA device", hint: lookForDevices)

    static let noActivePort = ToolError(.noDevice, "no RDMA device has an active port", hint: lookForDevices)

    static func noDevice(_ name: String, among names: [String]) -> ToolError {
        let message = "there is no device \"\(name)\""
        if names.isEmpty { return ToolError(.noDevice, "\(message): \(noDevices.message)", hint: noDevices.hint) }
        let needsAddress =
            name.hasPrefix("soft_") ? "; that device needs an interface that is up and has an address" : ""
        return ToolError(.noDevice, message, hint: "one of these: \(names.joined(separator: ", "))" + needsAddress)
    }

    /// The device that was named is on the loopback interface, and the peer is on another machine.
    static func onLoopback(_ name: String, _ route: Route) -> ToolError {
        let list = try? Device.list()
        let better = list.map { $0 + $0.onRequest }?.first { device in
            device.isSoftware && route.interfaceIndex != 0 && device.details.interfaceIndex == route.interfaceIndex
        }
        let other = better.map { ", or use --device \($0.name)" } ?? ""
        return ToolError(
            .unsupported, "\(name) is on the loopback interface, and does not reach \(route.remote)",
            hint: "leave out --device" + other)
    }

    /// The peer sends no messages over the control connection.
    static func peerSilent(_ peerName: String, _ timeout: UInt64) -> ToolError {
        ToolError(
            .peerLost, "\(peerName) has been silent for \(Units.duration(nanoseconds: timeout))",
            hint: "check whether it is stopped or hangs, and whether its machine is up; --timeout sets how long to wait"
        )
    }

    /// No process has a device of soft open whose counters could be shown.
    static func notOpen(_ name: String) -> ToolError {
        ToolError(
            .noDevice, "no process of this user has \(name) open",
            hint: "start the program first, as the same user and in the same network namespace")
    }

    /// A failed netlink request.
    init(_ error: NetlinkError) {
        self.init(
            error.reason == .unavailable ? .noDevice : .failure, "cannot \(error.request): \(error.message)",
            hint: error.hint)
    }

    /// Messages without an answer.
    static func noAnswer(to count: Int, _ timeout: UInt64) -> ToolError {
        let messages = count == 1 ? "a message" : "\(count) messages"
        return ToolError(
            .peerLost, "no response to \(messages) within \(Units.duration(nanoseconds: timeout))",
            hint: "check the peer, the link (verbs info) and firewalls for UDP port 4791")
    }

    /// A verb that failed in this process.
    init(_ error: VerbsError) {
        let exit: ToolExit =
            switch error.errno {
            case _ where error.completionStatus == .retryExceeded || error.completionStatus == .rnrRetryExceeded:
                .peerLost
            case .operationNotSupportedByDevice where error.verb == .openDevice: .noDevice
            case _ where error.verb == .getDeviceList: .noDevice
            case .notSupported: .unsupported
            default: .verbFailed
            }
        let cause = error.completionStatus.map { "completion status \($0)" } ?? error.errno.description
        let doctor = "run verbs doctor"
        self.init(
            exit, "\(error.verb) failed on \(error.object): \(cause)",
            hint: error.hint.map { exit == .peerLost ? "\($0); \(doctor)" : $0 } ?? doctor)
    }

    /// The control connection could not be established, or was lost.
    init(_ error: RendezvousError) {
        let exit: ToolExit = error.reason == .disconnected || error.reason == .closed ? .peerLost : .cannotConnect
        self.init(exit, error.description, hint: error.hint)
    }
}
