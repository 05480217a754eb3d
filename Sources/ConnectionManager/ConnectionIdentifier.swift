import CIBVerbs
import CRDMACM
import Glibc
import Locking
import ProviderLoader
import SoftwareConnections
import SystemPackage
import Verbs

/// A communication identifier (`struct rdma_cm_id`; rdma_create_id(3)): a connection, a listener or a datagram service,
/// as a socket is for TCP.
///
/// Each step is one call that returns at once; an event of the channel reports its result. ``Connector`` and
/// ``Listener`` combine the steps. The caller makes and owns the queue pair, so `rdma_create_qp` has no counterpart.
public final class ConnectionIdentifier: @unchecked Sendable {
    // Unchecked: the pointer never changes, and librdmacm allows calls from any thread.
    /// The identifier of librdmacm; nil where the kernel's rdma_cm cannot be used.
    private let kernel: UnsafeMutablePointer<rdma_cm_id>?
    /// The identifier for software devices; nil where the kernel's rdma_cm serves all addresses.
    private let software: SoftwareIdentifier?
    /// The current C struct.
    var raw: UnsafeMutablePointer<rdma_cm_id> { serving?.raw ?? kernel ?? software!.raw }
    /// The port space (`rdma_cm_id.ps`).
    public let portSpace: PortSpace
    private let state: Locked<State>

    private struct State {
        var channel: EventChannel
        /// Whether a software device serves the identifier: known once it is bound or an address resolved, where the
        /// kernel could serve it too.
        var isSoftware: Bool
        /// The groups that it has joined or is joining.
        var groups: [ConnectionAddress] = []
    }

    /// Makes an identifier whose events `channel` receives: rdma_create_id(3).
    public convenience init(channel: EventChannel, portSpace: PortSpace = .tcp) throws(ConnectionError) {
        let software = channel.software.map {
            SoftwareIdentifier(
                .shared, channel: $0, portSpace: portSpace.raw, type: portSpace.isDatagram ? IBV_QPT_UD : IBV_QPT_RC)
        }
        guard let kernelChannel = channel.kernel else {
            self.init(nil, software, portSpace, channel)
            return
        }
        var raw: UnsafeMutablePointer<rdma_cm_id>?
        errno = 0
        let answer = rdma_create_id(kernelChannel, &raw, nil, portSpace.raw)
        let code = errno
        guard answer == 0, let raw else {
            throw ConnectionError("rdma_create_id", code: code, operation: "make an identifier of \(portSpace)")
        }
        self.init(raw, software, portSpace, channel)
    }

    /// Takes ownership of an identifier that librdmacm has made, and destroys it.
    convenience init(adopting raw: UnsafeMutablePointer<rdma_cm_id>, channel: EventChannel) {
        self.init(raw, nil, PortSpace(rawValue: raw.pointee.ps.rawValue), channel)
    }

    /// Takes ownership of an identifier of a software device.
    convenience init(adopting software: SoftwareIdentifier, channel: EventChannel) {
        self.init(nil, software, PortSpace(rawValue: software.raw.pointee.ps.rawValue), channel)
    }

    private init(
        _ kernel: UnsafeMutablePointer<rdma_cm_id>?, _ software: SoftwareIdentifier?, _ portSpace: PortSpace,
        _ channel: EventChannel
    ) {
        self.kernel = kernel
        self.software = software
        self.portSpace = portSpace
        state = Locked(State(channel: channel, isSoftware: kernel == nil))
        channel.add(self)
    }

    /// The keys by which channels find it: the addresses of its C structs.
    var keys: [UInt] {
        [kernel.map { UInt(bitPattern: $0) }, software.map { UInt(bitPattern: $0.raw) }].compactMap(\.self)
    }

    /// The software identifier, if a software device serves this one.
    private var serving: SoftwareIdentifier? { state.withLock { $0.isSoftware } ? software : nil }

    /// Calls librdmacm, or the service for software devices, whichever serves the identifier.
    ///
    /// - Parameters:
    ///   - kernel: The call of librdmacm, which must make no other call after it that could change errno.
    ///   - software: The same for a software device; returns 0 or an errno value.
    func perform(
        _ call: Verb, _ operation: @autoclosure () -> String, kernel: @autoclosure () -> Int32,
        software: (SoftwareService, SoftwareIdentifier) -> Int32
    ) throws(ConnectionError) {
        guard let identifier = serving else { return try check(call, operation(), kernel()) }
        let code = software(.shared, identifier)
        if code != 0 { throw ConnectionError(call, code: code, operation: operation()) }
    }

    /// Lets a software device serve the identifier from now on, where `isWanted` says so and the kernel could serve it
    /// too.
    func chooseSoftware(where isWanted: () -> Bool) {
        guard kernel != nil, software != nil, isWanted() else { return }
        state.withLock { $0.isSoftware = true }
    }

    /// Whether a software device serves it.
    var isSoftware: Bool { serving != nil }

    /// Sets the options where a software device serves, or may serve, the identifier.
    func setSoftware(_ options: ConnectionIdentifierOptions) {
        if let software { SoftwareService.shared.set(SoftwareOptions(options), of: software) }
    }

    /// The software identifier of a listener on every address, which the kernel and software devices serve both; nil
    /// where only one of them does.
    var companion: SoftwareIdentifier? { serving == nil ? software : nil }

    deinit {
        let (channel, groups) = state.withLock { ($0.channel, $0.groups) }
        if let software { SoftwareService.shared.destroy(software) }
        channel.remove(keys)
        guard let raw = kernel else { return }
        // librdmacm leaks the memory of a group that is not left.
        for group in groups {
            report { () throws(ConnectionError) in
                try check("rdma_leave_multicast", "leave \(group)", group.withRaw { rdma_leave_multicast(raw, $0) })
            }
        }
        let name = description
        // rdma_destroy_id(3) waits for unacknowledged events; readers acknowledge each event as soon as it is read.
        report { () throws(ConnectionError) in try check("rdma_destroy_id", "destroy \(name)", rdma_destroy_id(raw)) }
        withExtendedLifetime(channel) {}
    }

    /// The channel that receives its events (`rdma_cm_id.channel`).
    public var channel: EventChannel { state.withLock { $0.channel } }
    /// The struct of rdma_cma.h, for calls into C. Its `qp` is always null, since the caller owns the queue pair. Where a
    /// software device serves the identifier, librdmacm does not know it: read its fields only.
    public var unsafeRaw: UnsafeMutablePointer<rdma_cm_id> { raw }

    /// The local address, once it is bound: rdma_get_local_addr(3), rdma_get_src_port(3).
    public var localAddress: ConnectionAddress? { ConnectionAddress(rdma_get_local_addr(raw)) }
    /// The peer's address, once it is resolved or a request has arrived: rdma_get_peer_addr(3), rdma_get_dst_port(3).
    public var peerAddress: ConnectionAddress? { ConnectionAddress(rdma_get_peer_addr(raw)) }

    /// Moves the identifier to another channel: rdma_migrate_id(3). Pending events move with it.
    public func migrate(to channel: EventChannel) throws(ConnectionError) {
        if channel === self.channel { return }
        if software != nil && channel.software == nil {
            throw ConnectionError(
                .invalid("the channel has no part for software devices"), operation: "move \(self) to another channel",
                hint: "open a new channel, with RDMA_SOFT_INTERFACES as it was for the channel of the identifier")
        }
        // Registered with both channels while librdmacm waits for events that another thread has not acknowledged.
        channel.add(self)
        if let kernel {
            do throws(ConnectionError) {
                guard let target = channel.kernel else {
                    throw ConnectionError(
                        .invalid("the channel was opened when the kernel had no rdma_cm"),
                        operation: "move \(self) to another channel", hint: "open a new channel")
                }
                try check("rdma_migrate_id", "move \(self) to another channel", rdma_migrate_id(kernel, target))
            } catch {
                channel.remove(keys)
                throw error
            }
        }
        if let software, let target = channel.software { SoftwareService.shared.migrate(software, to: target) }
        let before = state.withLock { state in
            defer { state.channel = channel }
            return state.channel
        }
        before.remove(keys)
    }

    /// Records a joined group, which `deinit` leaves; or removes the record.
    func remember(_ group: ConnectionAddress, isMember: Bool) {
        state.withLock { state in
            if isMember {
                state.groups.append(group)
            } else if let index = state.groups.firstIndex(of: group) {
                state.groups.remove(at: index)
            }
        }
    }

    /// Throws unless its port space is one of datagrams, or of connections, as `isDatagram` requires.
    func require(isDatagram: Bool, _ operation: @autoclosure () -> String) throws(ConnectionError) {
        guard portSpace.isDatagram != isDatagram else { return }
        throw ConnectionError(
            .invalid("the identifier is of port space \(portSpace)"), operation: operation(),
            hint: "both sides need portSpace: \(isDatagram ? ".udp" : ".tcp") for that")
    }

    /// Throws when it is bound to an iWARP device, which has no datagrams; `call` is the call that needs them.
    func requireDatagrams(_ call: Verb, _ operation: @autoclosure () -> String) throws(ConnectionError) {
        guard isIWARP else { return }
        throw ConnectionError(
            .system(call, .notSupported), operation: operation(),
            hint: "\(deviceName ?? "the device") is an iWARP device, which has connections only, no datagrams and no"
                + " multicast: use portSpace: .tcp, or a device of InfiniBand or RoCE")
    }

    /// Throws errno unless the call `answer` returns 0. `answer` must make no other call after it, which could change
    /// errno.
    func check(
        _ call: Verb, _ operation: @autoclosure () -> String, _ answer: @autoclosure () -> Int32
    ) throws(ConnectionError) {
        errno = 0
        guard answer() != 0 else { return }
        let code = errno
        throw ConnectionError(call, code: code, operation: operation())
    }
}

/// Runs `body` at the end of an object's life, where no caller can catch its error, and logs the error.
func report(_ body: () throws(ConnectionError) -> Void) {
    do throws(ConnectionError) { try body() } catch {
        ProviderLoader.record(LogMessage(level: .error, provider: "librdmacm", text: error.description))
    }
}

extension ConnectionIdentifier: CustomStringConvertible {
    /// Text such as `TCP identifier for 192.0.2.1:7471`.
    public var description: String {
        let peer = peerAddress.flatMap { $0.port == 0 && $0.host.isZero ? nil : $0 }
        let address = (peer ?? localAddress).map { " for \($0)" } ?? ""
        return "\(portSpace) identifier\(address)"
    }
}

// MARK: - The device

extension ConnectionIdentifier {
    /// Name of the device that it is bound to (`rdma_cm_id.verbs`); nil before an address is resolved, and for a
    /// listener on all devices.
    public var deviceName: String? {
        guard let verbs = raw.pointee.verbs else { return nil }
        return withUnsafeBytes(of: verbs.pointee.device.pointee.name) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    /// Port of the device, from 1 (`rdma_cm_id.port_num`); nil as `deviceName`.
    public var devicePort: UInt8? { raw.pointee.verbs == nil ? nil : raw.pointee.port_num }

    /// Whether the device is an iWARP adapter, where the kernel modifies the queue pair itself.
    var isIWARP: Bool { raw.pointee.verbs?.pointee.device.pointee.transport_type == IBV_TRANSPORT_IWARP }

    /// Opens the device that it is bound to, to make a queue pair there. Name and GUID are compared, since librdmacm
    /// has opened the device separately.
    ///
    /// - Throws: `invalid` before an address is resolved; otherwise the errors of `Device.open`.
    public func openDevice(from loader: ProviderLoader = .standard) throws(ConnectionError) -> Context {
        let operation = "open the device of \(self)"
        guard let name = deviceName, let verbs = raw.pointee.verbs else {
            throw ConnectionError(.invalid("it is not bound to one: resolve the address first"), operation: operation)
        }
        do throws(VerbsError) {
            let device = try Device.named(name, from: loader)
            if serving != nil { return try device.open() }
            let guid = UInt64(bigEndian: ibv_get_device_guid(verbs.pointee.device))
            guard device.guid == guid || device.guid == 0 else {
                throw VerbsError(
                    .openDevice, errno: .operationNotSupportedByDevice, object: VerbsObject("device", device: name),
                    hint: "another device has taken its name: its GUID was \(String(guid, radix: 16))")
            }
            return try device.open()
        } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
    }

    /// Throws unless the queue pair is on the device of this identifier.
    func require(_ queuePair: borrowing QueuePair, _ operation: @autoclosure () -> String) throws(ConnectionError) {
        let (name, context) = (deviceName, queuePair.context)
        guard name == nil || name != context.deviceName else { return }
        let reason =
            if context.isSoftware, serving == nil, channel.software == nil {
                "the queue pair is on \(context.deviceName), which exists in userspace only, and the kernel's rdma_cm"
                    + " serves this identifier"
            } else if let name {
                "the queue pair is on \(context.deviceName), but the way to the peer leads over \(name)"
            } else {
                "it is not bound to a device: resolve the address first"
            }
        throw ConnectionError(
            .invalid(reason), operation: operation(),
            hint: name.map { "make the queue pair on \($0): openDevice() opens it" })
    }
}
