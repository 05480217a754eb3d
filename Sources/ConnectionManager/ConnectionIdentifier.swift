import CIBVerbs
import CRDMACM
import Glibc
import Locking
import ProviderLoader
import SystemPackage
import Verbs

/// A communication identifier (`struct rdma_cm_id`; rdma_create_id(3)): a connection, a listener or a datagram service,
/// as a socket is for TCP.
///
/// Each step is one call that returns at once; an event of the channel reports its result. ``Connector`` and
/// ``Listener`` combine the steps. The caller makes and owns the queue pair, so `rdma_create_qp` has no counterpart.
public final class ConnectionIdentifier: @unchecked Sendable {
    // Unchecked: the pointer never changes, and librdmacm allows calls from any thread.
    let raw: UnsafeMutablePointer<rdma_cm_id>
    /// The port space (`rdma_cm_id.ps`).
    public let portSpace: PortSpace
    private let state: Locked<State>

    private struct State {
        var channel: EventChannel
        /// The groups that it has joined or is joining.
        var groups: [ConnectionAddress] = []
    }

    /// Makes an identifier whose events `channel` receives: rdma_create_id(3).
    public convenience init(channel: EventChannel, portSpace: PortSpace = .tcp) throws(ConnectionError) {
        var raw: UnsafeMutablePointer<rdma_cm_id>?
        errno = 0
        let answer = rdma_create_id(channel.raw, &raw, nil, portSpace.raw)
        let code = errno
        guard answer == 0, let raw else {
            throw ConnectionError("rdma_create_id", code: code, operation: "make an identifier of \(portSpace)")
        }
        self.init(adopting: raw, channel: channel)
    }

    /// Takes ownership of an identifier that librdmacm has made, and destroys it.
    init(adopting raw: UnsafeMutablePointer<rdma_cm_id>, channel: EventChannel) {
        self.raw = raw
        portSpace = PortSpace(rawValue: raw.pointee.ps.rawValue)
        state = Locked(State(channel: channel))
        channel.add(self)
    }

    deinit {
        let (channel, groups) = state.withLock { ($0.channel, $0.groups) }
        // librdmacm leaks the memory of a group that is not left.
        for group in groups {
            report { () throws(ConnectionError) in
                try check("rdma_leave_multicast", "leave \(group)", group.withRaw { rdma_leave_multicast(raw, $0) })
            }
        }
        channel.remove(raw)
        let name = description
        // rdma_destroy_id(3) waits for unacknowledged events; readers acknowledge each event as soon as it is read.
        report { () throws(ConnectionError) in try check("rdma_destroy_id", "destroy \(name)", rdma_destroy_id(raw)) }
        withExtendedLifetime(channel) {}
    }

    /// The channel that receives its events (`rdma_cm_id.channel`).
    public var channel: EventChannel { state.withLock { $0.channel } }
    /// The struct of rdma_cma.h, for calls into C. Its `qp` is always null, since the caller owns the queue pair.
    public var unsafeRaw: UnsafeMutablePointer<rdma_cm_id> { raw }

    /// The local address, once it is bound: rdma_get_local_addr(3), rdma_get_src_port(3).
    public var localAddress: ConnectionAddress? { ConnectionAddress(rdma_get_local_addr(raw)) }
    /// The peer's address, once it is resolved or a request has arrived: rdma_get_peer_addr(3), rdma_get_dst_port(3).
    public var peerAddress: ConnectionAddress? { ConnectionAddress(rdma_get_peer_addr(raw)) }

    /// Moves the identifier to another channel: rdma_migrate_id(3). Pending events move with it.
    public func migrate(to channel: EventChannel) throws(ConnectionError) {
        if channel === self.channel { return }
        // Registered with both channels while librdmacm waits for events that another thread has not acknowledged.
        channel.add(self)
        do throws(ConnectionError) {
            try check("rdma_migrate_id", "move \(self) to another channel", rdma_migrate_id(raw, channel.raw))
        } catch {
            channel.remove(raw)
            throw error
        }
        let before = state.withLock { state in
            defer { state.channel = channel }
            return state.channel
        }
        before.remove(raw)
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
            if context.isSoftware {
                "the queue pair is on \(context.deviceName), which exists in userspace only: rdma_cm is the kernel's,"
                    + " and cannot use it"
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
