import CIBVerbs
import CRDMACM
import Glibc
import ProviderLoader
import SystemPackage
import Verbs

/// What rdma_cm knows a connection, a listener or a datagram service by (rdma_create_id(3)): to RDMA what a socket is
/// to TCP.
///
/// This is the expert's way: each step is one call that returns at once, and its outcome an event of the channel.
/// ``Connector`` and ``Listener`` put the steps together. The queue pair always stays the caller's.
public final class ConnectionIdentifier: @unchecked Sendable {
    // Unchecked: the pointer never changes, and librdmacm allows calls from any thread.
    let raw: UnsafeMutablePointer<rdma_cm_id>
    /// What its port numbers belong to.
    public let portSpace: PortSpace
    private let state: Locked<State>

    private struct State {
        var channel: EventChannel
        /// The groups that it has joined or is joining.
        var groups: [ConnectionAddress] = []
    }

    /// Makes an identifier whose events come to `channel`.
    public convenience init(channel: EventChannel, portSpace: PortSpace = .tcp) throws(ConnectionError) {
        var raw: UnsafeMutablePointer<rdma_cm_id>?
        let code = rdma_create_id(channel.raw, &raw, nil, portSpace.raw)
        guard code == 0, let raw else {
            throw ConnectionError(
                .system("rdma_create_id", Errno(rawValue: errno)), operation: "make an identifier of \(portSpace)")
        }
        self.init(adopting: raw, channel: channel)
    }

    /// Owns what librdmacm has made, and destroys it.
    init(adopting raw: UnsafeMutablePointer<rdma_cm_id>, channel: EventChannel) {
        self.raw = raw
        portSpace = PortSpace(rawValue: raw.pointee.ps.rawValue)
        state = Locked(State(channel: channel))
        channel.add(self)
    }

    deinit {
        let (channel, groups) = state.withLock { ($0.channel, $0.groups) }
        // librdmacm forgets the memory of a group that is not left.
        for group in groups { _ = group.withRaw { rdma_leave_multicast(raw, $0) } }
        channel.remove(raw)
        // Waits for events that a reader has not acknowledged yet: each does so as soon as it has looked.
        _ = rdma_destroy_id(raw)
        withExtendedLifetime(channel) {}
    }

    /// Where its events come.
    public var channel: EventChannel { state.withLock { $0.channel } }
    /// The struct of rdma_cma.h, for calls into C. Its `qp` is always null: queue pairs stay with their owners.
    public var unsafeRaw: UnsafeMutablePointer<rdma_cm_id> { raw }

    /// Its own address, once it is bound.
    public var localAddress: ConnectionAddress? { ConnectionAddress(rdma_get_local_addr(raw)) }
    /// The peer's address, once it is resolved or the peer has asked.
    public var peerAddress: ConnectionAddress? { ConnectionAddress(rdma_get_peer_addr(raw)) }

    /// Lets its events come to another channel: rdma_migrate_id(3). Those that wait go along.
    public func migrate(to channel: EventChannel) throws(ConnectionError) {
        if channel === self.channel { return }
        // Known in both places while librdmacm waits for the events that somebody reads just now.
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

    /// Remembers a group, to be left before the end; or forgets it.
    func remember(_ group: ConnectionAddress, isMember: Bool) {
        state.withLock { state in
            if isMember {
                state.groups.append(group)
            } else if let index = state.groups.firstIndex(of: group) {
                state.groups.remove(at: index)
            }
        }
    }

    /// Throws unless its port space is one of datagrams, or of connections, as the caller needs.
    func require(isDatagram: Bool, _ operation: @autoclosure () -> String) throws(ConnectionError) {
        guard portSpace.isDatagram != isDatagram else { return }
        throw ConnectionError(
            .invalid("the identifier is of port space \(portSpace)"), operation: operation(),
            hint: "both sides need portSpace: \(isDatagram ? ".udp" : ".tcp") for that")
    }

    /// Throws errno unless the call answered 0.
    func check(_ call: Verb, _ operation: @autoclosure () -> String, _ code: Int32) throws(ConnectionError) {
        guard code != 0 else { return }
        throw ConnectionError(.system(call, Errno(rawValue: errno)), operation: operation())
    }
}

extension ConnectionIdentifier: CustomStringConvertible {
    /// Such as `TCP identifier for 192.0.2.1:7471`.
    public var description: String {
        let peer = peerAddress.flatMap { $0.port == 0 && $0.host.isZero ? nil : $0 }
        let address = (peer ?? localAddress).map { " for \($0)" } ?? ""
        return "\(portSpace) identifier\(address)"
    }
}

// MARK: - The device

extension ConnectionIdentifier {
    /// Name of the device that it is bound to; nil before an address is resolved, and for a listener on all devices.
    public var deviceName: String? {
        guard let verbs = raw.pointee.verbs else { return nil }
        return withUnsafeBytes(of: verbs.pointee.device.pointee.name) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    /// Port of the device, from 1; nil as `deviceName`.
    public var devicePort: UInt8? { raw.pointee.verbs == nil ? nil : raw.pointee.port_num }

    /// Whether the device speaks iWARP, where the kernel moves queue pairs itself.
    var isIWARP: Bool { raw.pointee.verbs?.pointee.device.pointee.transport_type == IBV_TRANSPORT_IWARP }

    /// Opens the device that it is bound to, to make a queue pair there. Name and GUID are compared, since librdmacm
    /// has opened it by itself.
    ///
    /// - Throws: `invalid` before an address is resolved; else as `Device.open`.
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
