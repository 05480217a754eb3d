import CNetlink
import Glibc

/// Tells when devices come, go and are renamed, and when network interfaces go up and down.
///
/// The devices' events are those of the kernel's objects (NETLINK_KOBJECT_UEVENT), the interfaces' events rtnetlink's.
/// From Linux 6.12 on, RDMA's own netlink group tells which interface a port has. What belongs to another network
/// namespace than that in which the monitor was made is not told. What happens within a device (a port's or a queue
/// pair's error) comes as asynchronous events of its context.
public struct KernelMonitor: ~Copyable {
    private let devices: NetlinkSocket
    private let interfaces: NetlinkSocket
    private let ports: NetlinkSocket?
    private var states = InterfaceStates()
    /// What the next call has to tell.
    private var failure: NetlinkError?

    /// Begins to listen.
    ///
    /// - Throws: `unavailable` where the kernel has no RDMA subsystem, or the process may not open the sockets.
    public init() throws(NetlinkError) {
        let tellsEvents = try KernelRDMA().system().tellsEvents
        // Group 1 is the kernel itself; others are of udev.
        let devices = try Self.socket(NETLINK_KOBJECT_UEVENT, group: 1)
        let interfaces = try Self.socket(NETLINK_ROUTE, group: Int32(RTNLGRP_LINK.rawValue))
        // RDMA_NL_GROUP_NOTIFY of newer headers.
        let ports = tellsEvents ? try Self.socket(NETLINK_RDMA, group: 4) : nil
        self.devices = devices
        self.interfaces = interfaces
        self.ports = ports
    }

    private static func socket(_ protocol: Int32, group: Int32) throws(NetlinkError) -> NetlinkSocket {
        do throws(SocketFailure) {
            let socket = try NetlinkSocket(protocol: `protocol`, group: group)
            // After the group was joined: what changes from here on is an event.
            if `protocol` == NETLINK_ROUTE { try socket.requestInterfaces() }
            return socket
        } catch {
            throw .noSocket("listen for events of RDMA devices", errno: error.errno)
        }
    }

    /// Readable when events wait, each of them: for poll(2).
    public var descriptors: [Int32] {
        let descriptors = [devices.descriptor, interfaces.descriptor]
        switch ports {
        case .some(let socket): return descriptors + [socket.descriptor]
        case .none: return descriptors
        }
    }

    /// The events that wait, oldest first for each of the sources; empty where none do. Does not block.
    ///
    /// - Throws: `malformed` for a message that cannot be read, which is then gone, after the events in front of it; call
    ///   again.
    public mutating func events() throws(NetlinkError) -> [KernelEvent] {
        if let failure {
            self.failure = nil
            throw failure
        }
        var events: [KernelEvent] = []
        do throws(MalformedMessage) {
            while let datagram = Self.receive(devices, &events) {
                if let event = KernelEvent(kernelObject: datagram) { events.append(event) }
            }
            while let datagram = receiveFromInterfaces(&events) {
                for case .data(let type, let payload) in try Message.all(in: datagram).map(\.kind) {
                    if let event = try states.take(type: type, payload) { events.append(event) }
                }
            }
            while let datagram = receiveFromPorts(&events) {
                for case .data(_, let payload) in try Message.all(in: datagram).map(\.kind) {
                    if let event = try KernelEvent(monitor: payload) { events.append(event) }
                }
            }
        } catch {
            let failure = NetlinkError.malformed("read an event of the kernel", error)
            if events.isEmpty { throw failure }
            self.failure = failure
        }
        return events
    }

    private func receiveFromInterfaces(_ events: inout [KernelEvent]) -> [UInt8]? {
        let count = events.count
        let datagram = Self.receive(interfaces, &events)
        // What was lost: how the interfaces are now tells what has changed.
        if events.count > count { try? interfaces.requestInterfaces() }
        return datagram
    }

    private func receiveFromPorts(_ events: inout [KernelEvent]) -> [UInt8]? {
        switch ports {
        case .some(let socket): Self.receive(socket, &events)
        case .none: nil
        }
    }

    /// The next datagram; an overflow of the socket becomes an event.
    private static func receive(_ socket: borrowing NetlinkSocket, _ events: inout [KernelEvent]) -> [UInt8]? {
        do throws(SocketFailure) {
            return try socket.receive(patience: 0)
        } catch {
            if events.last != .lost { events.append(.lost) }
            return nil
        }
    }
}
