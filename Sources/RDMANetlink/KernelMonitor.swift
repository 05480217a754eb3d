import CNetlink
import Glibc

/// Reports when devices are added, removed and renamed, and when network interfaces go up and down.
///
/// Events of devices are uevents (NETLINK_KOBJECT_UEVENT), events of interfaces are rtnetlink messages. From Linux
/// 6.12, the netlink group RDMA_NL_GROUP_NOTIFY reports changes of a port's interface. The monitor reports events of
/// the network namespace in which it was created. Events within a device, such as an error of a port or a queue pair,
/// are asynchronous events of its context (ibv_get_async_event(3)).
public struct KernelMonitor: ~Copyable {
    private let devices: NetlinkSocket
    private let interfaces: NetlinkSocket
    private let ports: NetlinkSocket?
    private var states = InterfaceStates()
    /// The error that the next call of `events` throws.
    private var failure: NetlinkError?

    /// Opens the sockets; later events are reported.
    ///
    /// - Throws: `unavailable` if the kernel has no RDMA subsystem, or the process may not open the sockets.
    public init() throws(NetlinkError) {
        let tellsEvents = try KernelRDMA().system().tellsEvents
        // Group 1 has the kernel's uevents, the other groups those of udev.
        let devices = try Self.socket(NETLINK_KOBJECT_UEVENT, group: 1)
        let interfaces = try Self.socket(NETLINK_ROUTE, group: Int32(RTNLGRP_LINK.rawValue))
        // 4: RDMA_NL_GROUP_NOTIFY of newer headers.
        let ports = tellsEvents ? try Self.socket(NETLINK_RDMA, group: 4) : nil
        self.devices = devices
        self.interfaces = interfaces
        self.ports = ports
    }

    private static func socket(_ protocol: Int32, group: Int32) throws(NetlinkError) -> NetlinkSocket {
        do throws(SocketFailure) {
            let socket = try NetlinkSocket(protocol: `protocol`, group: group)
            // After the group was joined, so that no change is missed between the two.
            if `protocol` == NETLINK_ROUTE { try socket.requestInterfaces() }
            return socket
        } catch {
            throw .noSocket("listen for events of RDMA devices", errno: error.errno, protocol: `protocol`)
        }
    }

    /// The descriptors of the sockets, for poll(2): each is readable when it has events.
    public var descriptors: [Int32] {
        let descriptors = [devices.descriptor, interfaces.descriptor]
        switch ports {
        case .some(let socket): return descriptors + [socket.descriptor]
        case .none: return descriptors
        }
    }

    /// Reads the queued events, oldest first for each socket; empty when there are none. Does not block.
    ///
    /// - Throws: `malformed` for a message that does not follow the format, which is dropped; `refused` with the errno
    ///   value when the kernel does not list the network interfaces, or reading fails (an overflow is the event `lost`,
    ///   not an error). If events precede the error, they are returned, and the next call throws the error.
    public mutating func events() throws(NetlinkError) -> [KernelEvent] {
        if let failure {
            self.failure = nil
            throw failure
        }
        var events: [KernelEvent] = []
        do throws(NetlinkError) {
            while let datagram = try Self.receive(devices, &events) {
                if let event = KernelEvent(kernelObject: datagram) { events.append(event) }
            }
            while let datagram = try receiveFromInterfaces(&events) {
                for message in try Self.messages(datagram) {
                    if let event = try states.update(with: message) { events.append(event) }
                }
            }
            while let datagram = try receiveFromPorts(&events) {
                for case .data(_, let payload) in try Self.messages(datagram) {
                    do throws(MalformedMessage) {
                        if let event = try KernelEvent(monitor: payload) { events.append(event) }
                    } catch {
                        throw .malformed(Self.request, error)
                    }
                }
            }
        } catch {
            if events.isEmpty { throw error }
            failure = error
        }
        return events
    }

    static let request = "read an event of the kernel"

    private static func messages(_ datagram: [UInt8]) throws(NetlinkError) -> [Message.Kind] {
        do throws(MalformedMessage) { return try Message.all(in: datagram).map(\.kind) } catch {
            throw .malformed(request, error)
        }
    }

    private func receiveFromInterfaces(_ events: inout [KernelEvent]) throws(NetlinkError) -> [UInt8]? {
        let count = events.count
        let datagram = try Self.receive(interfaces, &events)
        guard events.count > count else { return datagram }
        // Events were lost: a new list of the interfaces shows which of them have changed.
        do throws(SocketFailure) { try interfaces.requestInterfaces() } catch {
            throw .refused("list the network interfaces", errno: error.errno)
        }
        return datagram
    }

    private func receiveFromPorts(_ events: inout [KernelEvent]) throws(NetlinkError) -> [UInt8]? {
        switch ports {
        case .some(let socket): try Self.receive(socket, &events)
        case .none: nil
        }
    }

    /// The next datagram; an overflow of the socket adds the event `lost`.
    private static func receive(
        _ socket: borrowing NetlinkSocket, _ events: inout [KernelEvent]
    ) throws(NetlinkError) -> [UInt8]? {
        do throws(SocketFailure) { return try socket.receive(patience: 0) } catch {
            let event = try event(of: error)
            if events.last != event { events.append(event) }
            return nil
        }
    }

    /// `lost` for ENOBUFS, an overflow of the socket; every other errno value is thrown.
    static func event(of failure: SocketFailure) throws(NetlinkError) -> KernelEvent {
        if failure.errno == ENOBUFS { return .lost }
        throw .refused(request, errno: failure.errno)
    }
}
