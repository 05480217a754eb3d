import CNetlink
import Glibc

/// Something that happened to a device, or to a network interface under one.
public enum KernelEvent: Sendable, Hashable {
    /// There is a new device.
    case deviceAdded(name: String)
    /// A device has gone.
    case deviceRemoved(name: String)
    /// A device has another name now; the old one is known where the kernel tells it.
    case deviceRenamed(name: String, from: String?)
    /// A device's verbs node, such as `uverbs0`, has gone; the device follows. Where its driver cannot take it away from
    /// the processes that have it open, the kernel waits until they have closed it: close it.
    case verbsNodeRemoved(name: String)
    /// A port has got a network interface, or lost it, or the interface has another name now (Linux 6.12).
    case interfaceOfPortChanged(deviceIndex: UInt32, port: UInt32, interface: String?)
    /// A network interface can carry traffic now.
    case interfaceUp(name: String, index: UInt32)
    /// A network interface can carry none any more: it was taken down, or its carrier is lost.
    case interfaceDown(name: String, index: UInt32)
    /// Events were lost: the kernel had more of them than the socket holds. What is shown may be stale.
    case lost

    /// Reads a datagram of the kernel's objects (NETLINK_KOBJECT_UEVENT): `ACTION@PATH`, then `KEY=VALUE` lines, each
    /// with a zero at its end. nil for what is not about an RDMA device.
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

    /// Reads a message of RDMA's own group (Linux 6.12: `enum rdma_nl_notify_event_type`). nil for an event that this
    /// package does not know, and for those of devices: the kernel's objects tell them too, on every kernel.
    init?(monitor payload: ArraySlice<UInt8>) throws(MalformedMessage) {
        let attributes = try Attributes(payload)
        // Attached 2, detached 3, renamed 5.
        guard let type = try attributes.number(.eventType, as: UInt8.self), [2, 3, 5].contains(type) else { return nil }
        self = .interfaceOfPortChanged(
            deviceIndex: try attributes.number(.deviceIndex) ?? 0, port: try attributes.number(.portIndex) ?? 0,
            interface: attributes.text(.interfaceName))
    }
}

/// The network interfaces as far as their messages have told: which of them can carry traffic.
struct InterfaceStates {
    private var running: [UInt32: Bool] = [:]

    /// Reads a message about an interface (`struct ifinfomsg` of <linux/rtnetlink.h>: index at byte 4, flags at byte 8,
    /// attributes from byte 16). Answers an event where its state is another one than before; none for the first
    /// message about an interface, which is how it was found.
    mutating func take(type: UInt16, _ payload: ArraySlice<UInt8>) throws(MalformedMessage) -> KernelEvent? {
        guard type == RTM_NEWLINK || type == RTM_DELLINK else { return nil }
        guard payload.count >= 16 else {
            throw MalformedMessage(offset: payload.startIndex, sentence: "\(payload.count) bytes about an interface")
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
