import SystemPackage
import Verbs

/// An error of the connection manager: the operation, the reason, and what to try.
public struct ConnectionError: Error, Sendable {
    /// The reason of an error.
    public enum Reason: Sendable {
        /// A call of librdmacm failed, or its counterpart of a software device, or a system call that its use needs, such as
        /// `fcntl` or `getaddrinfo`.
        case system(Verb, Errno)
        /// A verb failed, such as moving the queue pair.
        case verbs(VerbsError)
        /// An argument is invalid, or does not fit the state; the text says why.
        case invalid(String)
        /// The host name could not be resolved; the text is that of gai_strerror(3).
        case unresolvable(String)
        /// No RDMA device is on the route to that address, or its host did not respond (`RDMA_CM_EVENT_ADDR_ERROR`).
        case addressNotResolved(Errno)
        /// No route to that address was found (`RDMA_CM_EVENT_ROUTE_ERROR`).
        case routeNotResolved(Errno)
        /// The peer rejected the connection, or no program listens there (`RDMA_CM_EVENT_REJECTED`). The private data
        /// is the peer's, padded with zeroes.
        case rejected(RejectionReason, privateData: [UInt8])
        /// The look-up of a datagram service was refused (`RDMA_CM_EVENT_UNREACHABLE` with the peer's status). The
        /// private data is the peer's, padded with zeroes.
        case serviceRefused(DatagramServiceStatus, privateData: [UInt8])
        /// The peer did not respond, or its response was invalid (`RDMA_CM_EVENT_UNREACHABLE`,
        /// `RDMA_CM_EVENT_CONNECT_ERROR`).
        case unreachable(Errno)
        /// The multicast group could not be joined (`RDMA_CM_EVENT_MULTICAST_ERROR`).
        case multicastNotJoined(Errno)
        /// The time limit of the caller has passed.
        case timedOut(Duration)
        /// The task was cancelled.
        case cancelled
        /// The peer ended the connection (`RDMA_CM_EVENT_DISCONNECTED`).
        case disconnected
        /// The device was removed (`RDMA_CM_EVENT_DEVICE_REMOVAL`): close everything on it.
        case deviceRemoved
    }

    // One reference, as in VerbsError.
    private let storage: Storage

    private final class Storage: Sendable {
        let reason: Reason
        let operation: String
        let hint: String?
        let attempts: [Attempt]

        init(_ reason: Reason, _ operation: String, _ hint: String?, _ attempts: [Attempt] = []) {
            self.reason = reason
            self.operation = operation
            self.hint = hint
            self.attempts = attempts
        }
    }

    /// An address of a host, and the error of resolving it.
    public struct Attempt: Sendable {
        /// The address.
        public let address: ConnectionAddress
        /// The error of resolving it.
        public let error: ConnectionError
    }

    /// An error of that reason in that operation; `hint` says what to try where the reason alone does not.
    public init(_ reason: Reason, operation: String, hint: String? = nil) {
        storage = Storage(reason, operation, hint)
    }

    /// The error of a call that did not return 0; `code` is the errno value.
    init(_ call: Verb, code: Int32, operation: String) {
        let isSilent = code == 0
        self.init(
            .system(call, isSilent ? .ioError : Errno(rawValue: code)), operation: operation,
            hint: isSilent ? "\(call) failed without an errno value: report this to the maintainers of librdmacm" : nil)
    }

    /// The error of a host that has several addresses, of which none could be resolved. At least one attempt.
    init(attempts: [Attempt], operation: String) {
        var hints: [String] = []
        for attempt in attempts {
            if let hint = attempt.error.hint, !hints.contains(hint) { hints.append(hint) }
        }
        storage = Storage(
            attempts[0].error.reason, operation, hints.isEmpty ? nil : hints.joined(separator: "; "), attempts)
    }

    /// The reason; of several attempts that of the first one.
    public var reason: Reason { storage.reason }
    /// The failure of each address of a host, in the order of the attempts; empty where there was one address.
    public var attempts: [Attempt] { storage.attempts }
    /// The operation and its peer, such as `connect to 192.0.2.1:7471`.
    public var operation: String { storage.operation }
    /// What the user can try; nil when there is nothing to add to the reason.
    public var hint: String? { storage.hint ?? reason.hint }
}

extension ConnectionError: CustomStringConvertible {
    /// One line: `cannot OPERATION: REASON; what to try`.
    public var description: String {
        let advice = hint.map { "; \($0)" } ?? ""
        guard attempts.isEmpty else {
            let list = attempts.map { "\($0.address): \($0.error.reason)" }.joined(separator: "; ")
            return "cannot \(operation): none of its \(attempts.count) addresses was resolved: \(list)\(advice)"
        }
        if case .verbs(let error) = reason { return "cannot \(operation): \(error)" }
        return "cannot \(operation): \(reason)\(advice)"
    }
}

extension ConnectionError.Reason: CustomStringConvertible {
    /// The reason as text, without the hint.
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
        case .system(let call, let errno): ConnectionAdvice.message(for: errno, of: call)
        case .addressNotResolved(let errno), .routeNotResolved(let errno), .multicastNotJoined(let errno):
            ConnectionAdvice.message(for: errno)
        case .verbs(let error): error.hint
        case .unresolvable: "check the spelling of the host, or give its IP address"
        case .rejected(.invalidServiceID, _), .serviceRefused(.unsupportedServiceID, _):
            "no program listens at that port of rdma_cm: start the listening side first, and check host and port"
        case .rejected(.consumer, _), .serviceRefused(.rejected, _):
            "the listening program rejected it: its own output, or the private data, may state the reason"
        case .rejected(.refused, _):
            "no program listens at that TCP port of the iWARP device, or the listening program rejected it: start the"
                + " listening side first, and check host and port"
        case .rejected(.reset, _):
            "the listening program rejected it, or ended: its own output, or the private data, may state the reason"
        case .rejected(.staleConnection, _):
            "an earlier connection of this queue pair is not over: wait for TIMEWAIT_EXIT, or make a new one"
        case .unreachable, .timedOut:
            "check that the peer runs, that its address is that of an RDMA device, and that no firewall drops UDP"
                + " port 4791 (RoCE), or the TCP port (iWARP)"
        case .deviceRemoved: "close everything that belongs to it and look again with `verbs devices`"
        default: nil
        }
    }
}

/// The hints for errors of librdmacm.
enum ConnectionAdvice {
    /// The hint for an errno value; `call` is the call that returned it, nil for the status of an event.
    static func message(for errno: Errno, of call: Verb? = nil) -> String? {
        if let call, let message = message(for: errno, onlyOf: call) { return message }
        if let message = resources(errno) { return message }
        // An errno value of the resolver, fcntl or epoll does not concern devices and addresses.
        guard call?.rawValue.hasPrefix("rdma_") != false else { return nil }
        return switch errno {
        case .operationNotSupportedByDevice, .noSuchAddressOrDevice: noDevice()
        case .addressInUse:
            "choose another port, or end the program that listens there (`rdma resource show cm_id`)"
        case .addressNotAvailable: "give an address that an interface with an RDMA device has: \(addresses())"
        case .networkUnreachable, .noRouteToHost: "check the address and the route to it (`ip route get`)"
        default: nil
        }
    }

    /// The meanings that an errno value has for one call.
    private static func message(for errno: Errno, onlyOf call: Verb) -> String? {
        switch (call, errno) {
        case ("rdma_create_event_channel", .noSuchFileOrDirectory):
            "/dev/infiniband/rdma_cm is not there: load the kernel's module with `modprobe rdma_ucm`"
        case ("rdma_create_event_channel", .permissionDenied):
            "the process may not open /dev/infiniband/rdma_cm: see its permissions, or run `verbs doctor`"
        case ("rdma_create_event_channel", .notPermitted):
            "the process may not do that, or librdmacm does not know this kernel's rdma_cm: run `verbs doctor`"
        case ("rdma_bind_addr", .permissionDenied):
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE: choose another port"
        case ("rdma_init_qp_attr", .invalidArgument), ("rdma_accept", .invalidArgument),
            ("rdma_establish", .invalidArgument), ("rdma_disconnect", .invalidArgument):
            "the connection is no longer there: the peer, or its host, may have gone"
        case ("getaddrinfo", _):
            resources(errno) ?? "see /etc/nsswitch.conf, /etc/hosts and /etc/resolv.conf, or give the IP address"
        default: nil
        }
    }

    /// The hint when the process or the system lacks a resource or a permission; nil for other
    /// errno values.
    static func resources(_ errno: Errno) -> String? {
        switch errno {
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory, .noFunction, .permissionDenied, .notPermitted:
            errno.advice
        default: nil
        }
    }

    /// The hint when an address or a route cannot be resolved.
    static func unresolved(_ error: ConnectionError, isMulticast: Bool, from source: ConnectionAddress?) -> String? {
        let errno: Errno
        switch error.reason {
        case .system(_, let value), .addressNotResolved(let value): errno = value
        default: return error.hint
        }
        if resources(errno) != nil { return error.hint }
        if isMulticast && source == nil { return "say over which device, with its address as the own one (from:)" }
        switch errno {
        case .operationNotSupportedByDevice, .noSuchAddressOrDevice: return noDevice()
        default: return [error.hint, noDevice()].compactMap(\.self).joined(separator: "; ")
        }
    }

    /// No device of the kernel serves the wanted address, or there is none at all, or librdmacm cannot open it. Where the
    /// kernel has no rdma_cm: no software device.
    static func noDevice() -> String {
        let devices = listedDevices()
        if !devices.contains(where: { !$0.isSoftware }) {
            return
                "no device has that address, or is on the way to it: see `ip address` and `ip route get ADDRESS`; there is: "
                + (devices.isEmpty ? "no RDMA device" : devices.map(\.description).joined(separator: ", "))
        }
        let message =
            "rdma_cm needs a device of the kernel with that address, or on the way to it; there is: "
            + addresses(of: devices)
        // This holds for every provider that serves the device in this process.
        return message + "; librdmacm opens it with the distribution's provider: apt install ibverbs-providers"
    }

    /// Whether a device of the kernel is listed.
    static var kernelHasDevices: Bool { listedDevices().contains { !$0.isSoftware } }

    /// The devices of this host; none where they cannot be listed.
    private static func listedDevices() -> [Device] { (try? Device.list()).map(Array.init) ?? [] }

    /// The devices of this host and their addresses, for a person.
    private static func addresses(of devices: [Device] = listedDevices()) -> String {
        let names = devices.map { device in
            if device.isSoftware { return "\(device) (in software; RDMA_SOFT_INTERFACES selects it)" }
            return entry(device.description) { () throws(VerbsError) in try device.open().addresses().map(\.gid) }
        }
        return names.isEmpty ? "no RDMA device" : names.joined(separator: ", ")
    }

    /// A device with its addresses, or with the errno value for which they are not known.
    static func entry(_ device: String, _ addresses: () throws(VerbsError) -> [GID]) -> String {
        do throws(VerbsError) {
            let list = try addresses().map(\.description).joined(separator: ", ")
            return "\(device) (\(list.isEmpty ? "no address" : list))"
        } catch {
            return "\(device) (addresses unknown: \(error.verb) failed with \(error.errno.symbol))"
        }
    }
}
