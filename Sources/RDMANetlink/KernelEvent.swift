import CNetlink
import Glibc

/// An event of an RDMA device, or of a network interface.
public enum KernelEvent: Sendable, Hashable {
    /// A device was added (uevent `add` of `infiniband`).
    case deviceAdded(name: String)
    /// A device was removed (uevent `remove` of `infiniband`).
    case deviceRemoved(name: String)
    /// A device was renamed (uevent `move` of `infiniband`); the old name is nil where the kernel does not report it.
    case deviceRenamed(name: String, from: String?)
    /// A device's verbs node, such as `uverbs0`, was removed (uevent `remove` of `infiniband_verbs`); the device
    /// follows. Close the device: if its driver does not support removal while it is open, the kernel waits until every
    /// process has closed it.
    case verbsNodeRemoved(name: String)
    /// A network interface was attached to a port, detached from it, or renamed (`RDMA_NETDEV_ATTACH_EVENT`,
    /// `RDMA_NETDEV_DETACH_EVENT`, `RDMA_NETDEV_RENAME_EVENT`, Linux 6.12).
    case interfaceOfPortChanged(deviceIndex: UInt32, port: UInt32, interface: String?)
    /// A network interface can carry traffic (`RTM_NEWLINK` with `IFF_UP` and `IFF_RUNNING`).
    case interfaceUp(name: String, index: UInt32)
    /// A network interface can no longer carry traffic: it was set down or removed, or has lost its carrier.
    case interfaceDown(name: String, index: UInt32)
    /// Events were lost, because the socket's buffer was full (ENOBUFS): read the state of the devices again.
    case lost

    /// Reads a uevent (NETLINK_KOBJECT_UEVENT): `ACTION@PATH`, then `KEY=VALUE` lines, each with a terminating zero.
    /// Nil for a uevent of another subsystem or action.
    init?(kernelObject datagram: [UInt8]) {
        var values: [String: String] = [:]
        for line in datagram.split(separator: 0) {
            guard let equals = line.firstIndex(of: UInt8(ascii: "=")) else { continue }
            values[String(decoding: line[..<equals], as: UTF8.self)] =
                String(decoding: line[(equals + 1)...], as: UTF8.self)
        }
        func device(_ key: String) -> String? {
            values[key].flatMap { $0.split(separator: "/").last.map { String($0) } }
        }
        guard let name = device("DEVPATH") else { return nil }
        switch (values["SUBSYSTEM"], values["ACTION"]) {
        case ("infiniband", "add"): self = .deviceAdded(name: name)
        case ("infiniband", "remove"): self = .deviceRemoved(name: name)
        case ("infiniband", "move"): self = .deviceRenamed(name: name, from: device("DEVPATH_OLD"))
        case ("infiniband_verbs", "remove"): self = .verbsNodeRemoved(name: name)
        default: return nil
        }
    }

    /// Reads a message of the group RDMA_NL_GROUP_NOTIFY (Linux 6.12: `enum rdma_nl_notify_event_type`). Nil for an
    /// unknown event, and for the events of devices, which uevents report on every kernel.
    init?(monitor payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        // Attached 2, detached 3, renamed 5.
        guard let type = try attributes.number(.eventType, as: UInt8.self), [2, 3, 5].contains(type) else { return nil }
        self = .interfaceOfPortChanged(
            deviceIndex: try attributes.number(.deviceIndex) ?? 0, port: try attributes.number(.portIndex) ?? 0,
            interface: attributes.text(.interfaceName))
    }
}

/// The states of the network interfaces, from their messages: whether each can carry traffic.
struct InterfaceStates {
    private var running: [UInt32: Bool] = [:]

    /// Updates the states from a message of rtnetlink(7), and returns the change, if any. Throws the errno value with
    /// which the kernel refuses to list the interfaces.
    mutating func update(with message: Message.Kind) throws(NetlinkError) -> KernelEvent? {
        switch message {
        case .overrun: return .lost
        // EBUSY: the response to an earlier request is not complete, and continues.
        case .end(let code) where code < 0 && code != -EBUSY:
            throw .refused("list the network interfaces", errno: 0 &- code)
        case .end: return nil
        case .data(let type, let payload):
            do throws(MalformedMessage) { return try update(type: type, payload) } catch {
                throw .malformed(KernelMonitor.request, error)
            }
        }
    }

    /// Reads a message about an interface (`struct ifinfomsg` of <linux/rtnetlink.h>: index at byte 4, flags at byte 8,
    /// attributes from byte 16). Returns an event if the state has changed; nil for the first message about an
    /// interface.
    mutating func update(type: UInt16, _ payload: ArraySlice<UInt8>) throws(MalformedMessage) -> KernelEvent? {
        guard type == RTM_NEWLINK || type == RTM_DELLINK else { return nil }
        guard payload.count >= 16 else {
            throw MalformedMessage(offset: payload.startIndex, message: "\(payload.count) bytes about an interface")
        }
        let index = UInt32(machineNumber(payload.dropFirst(4).prefix(4)))
        let flags = UInt32(machineNumber(payload.dropFirst(8).prefix(4)))
        // The first attribute of type 3 (IFLA_IFNAME).
        let name = try Attributes(payload.dropFirst(16)).text(.interfaceNameOfLink) ?? "interface \(index)"
        let isRunning =
            type == RTM_NEWLINK && flags & UInt32(IFF_UP) != 0
            && flags & UInt32(IFF_RUNNING) != 0
        let before =
            type == RTM_DELLINK ? running.removeValue(forKey: index) : running.updateValue(isRunning, forKey: index)
        guard let before, before != isRunning else { return nil }
        return isRunning ? .interfaceUp(name: name, index: index) : .interfaceDown(name: name, index: index)
    }
}
