import SystemPackage
import Verbs

/// Why something about a connection failed: what was wanted, why it did not work, and what to try.
public struct ConnectionError: Error, Sendable {
    /// Why it did not work.
    public enum Reason: Sendable {
        /// A call of librdmacm failed.
        case system(Verb, Errno)
        /// A verb failed, such as moving the queue pair.
        case verbs(VerbsError)
        /// What was asked for makes no sense; the text says why.
        case invalid(String)
        /// The host name has no meaning here; the text is the resolver's.
        case unresolvable(String)
        /// No RDMA device leads to that address, or the host there did not answer.
        case addressNotResolved(Errno)
        /// No way to that address was found.
        case routeNotResolved(Errno)
        /// The peer refused, or nobody listens there. The private data is the peer's, filled up with zeroes.
        case rejected(RejectionReason, privateData: [UInt8])
        /// The look-up of a datagram service was refused. The private data is the peer's, filled up with zeroes.
        case serviceRefused(DatagramServiceStatus, privateData: [UInt8])
        /// The peer did not answer, or its answer could not be used.
        case unreachable(Errno)
        /// The group could not be joined.
        case multicastNotJoined(Errno)
        /// The time that the caller gave was over first.
        case timedOut(Duration)
        /// The task was cancelled.
        case cancelled
        /// The peer ended the connection.
        case disconnected
        /// The device was removed: everything on it must be closed.
        case deviceRemoved
    }

    // One reference, as in VerbsError.
    private let storage: Storage

    private final class Storage: Sendable {
        let reason: Reason
        let operation: String
        let hint: String?

        init(_ reason: Reason, _ operation: String, _ hint: String?) {
            self.reason = reason
            self.operation = operation
            self.hint = hint
        }
    }

    /// An error of that reason in that operation; `hint` says what to try where the reason alone does not.
    public init(_ reason: Reason, operation: String, hint: String? = nil) {
        storage = Storage(reason, operation, hint)
    }

    /// Why it did not work.
    public var reason: Reason { storage.reason }
    /// What was being done and with whom, such as `connect to 192.0.2.1:7471`.
    public var operation: String { storage.operation }
    /// What a person can try; nil where nothing better is known than what the reason says.
    public var hint: String? { storage.hint ?? reason.hint }
}

extension ConnectionError: CustomStringConvertible {
    /// One line: `cannot OPERATION: REASON; what to try`.
    public var description: String {
        if case .verbs(let error) = reason { return "cannot \(operation): \(error)" }
        return "cannot \(operation): \(reason)" + (hint.map { "; \($0)" } ?? "")
    }
}

extension ConnectionError.Reason: CustomStringConvertible {
    /// What went wrong, without what to try.
    public var description: String {
        switch self {
        case .system(let call, let errno): "\(call) failed: \(named(errno))"
        case .verbs(let error): error.description
        case .invalid(let text), .unresolvable(let text): text
        case .addressNotResolved(let errno): "no way to that address: \(named(errno))"
        case .routeNotResolved(let errno): "no route to that address: \(named(errno))"
        case .rejected(let reason, _): "rejected: \(reason) (\(reason.rawValue))"
        case .serviceRefused(let status, _): "refused: \(status) (\(status.rawValue))"
        case .unreachable(let errno): "the peer cannot be reached: \(named(errno))"
        case .multicastNotJoined(let errno): "the group was not joined: \(named(errno))"
        case .timedOut(let time): "nothing came within \(time)"
        case .cancelled: "the task was cancelled"
        case .disconnected: "the peer ended the connection"
        case .deviceRemoved: "the device was removed"
        }
    }

    private func named(_ errno: Errno) -> String { "\(errno.symbol) (\(errno))" }

    var hint: String? {
        switch self {
        case .system(_, let errno): ConnectionAdvice.sentence(for: errno)
        case .verbs(let error): error.hint
        case .unresolvable: "check the spelling of the host, or give its IP address"
        case .rejected(.invalidServiceID, _), .serviceRefused(.unsupportedServiceID, _):
            "nobody listens at that port of rdma_cm: start the listening side first, and check host and port"
        case .rejected(.consumer, _), .serviceRefused(.rejected, _):
            "the listening program did not want it: its own output, or the private data, says why"
        case .rejected(.staleConnection, _):
            "an earlier connection of this queue pair is not over: wait for TIMEWAIT_EXIT, or make a new one"
        case .unreachable, .timedOut:
            "check that the peer runs, that its address is that of an RDMA device, and that no firewall drops UDP"
                + " port 4791"
        case .deviceRemoved: "close everything that belongs to it and look again with `verbs devices`"
        default: nil
        }
    }
}

/// What to try about errors of librdmacm.
enum ConnectionAdvice {
    /// Meanings that do not depend on the call.
    static func sentence(for errno: Errno) -> String? {
        switch errno {
        case .operationNotSupportedByDevice, .noSuchAddressOrDevice: noDevice()
        case .noSuchFileOrDirectory:
            "/dev/infiniband/rdma_cm is not there: load the kernel's module with `modprobe rdma_ucm`"
        case .permissionDenied:
            "the process may not open /dev/infiniband/rdma_cm: see its permissions, or run `verbs doctor`"
        case .notPermitted:
            "the process may not do that, or librdmacm does not know this kernel's rdma_cm: run `verbs doctor`"
        case .addressInUse: "choose another port, or end the program that listens there (`rdma resource show cm_id`)"
        case .addressNotAvailable: "give an address that an interface with an RDMA device has: \(addresses())"
        case .networkUnreachable, .noRouteToHost: "check the address and the route to it (`ip route get`)"
        default: nil
        }
    }

    /// No device of the kernel serves the wanted address, or there is none at all, or librdmacm cannot open it.
    static func noDevice() -> String {
        let devices = Device.all
        let sentence =
            "rdma_cm needs a device of the kernel with that address, or on the way to it; there is: "
            + addresses(of: devices)
        // Whatever provider serves it here.
        guard devices.contains(where: { !$0.isSoftware }) else { return sentence }
        return sentence + "; librdmacm opens it with the distribution's provider: apt install ibverbs-providers"
    }

    /// The devices of this host and their addresses, for a person.
    private static func addresses(of devices: [Device] = Device.all) -> String {
        let names = devices.map { device in
            if device.isSoftware { return "\(device) (in userspace only, rdma_cm cannot use it)" }
            let addresses = (try? device.open().addresses())?.map(\.gid.description) ?? []
            return addresses.isEmpty ? "\(device) (no address)" : "\(device) (\(addresses.joined(separator: ", ")))"
        }
        return names.isEmpty ? "no RDMA device" : names.joined(separator: ", ")
    }
}
