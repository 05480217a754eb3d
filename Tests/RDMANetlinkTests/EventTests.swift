import CNetlink
import Glibc
import Testing

@testable import RDMANetlink

@Suite("Kernel events")
struct EventTests {
    @Test("uevents: a device is added, renamed and removed; its uverbs node is removed first; others are ignored")
    func objects() {
        let events = Captured.datagrams("kernel-object").compactMap(KernelEvent.init(kernelObject:))
        #expect(
            events == [.deviceAdded(name: "rxe9"), .verbsNodeRemoved(name: "uverbs1"), .deviceRemoved(name: "rxe9")])
        let lines = [
            "move@/devices/virtual/infiniband/rocep1", "ACTION=move", "DEVPATH=/devices/virtual/infiniband/rocep1",
            "SUBSYSTEM=infiniband", "DEVPATH_OLD=/devices/virtual/infiniband/rxe0", "",
        ]
        let renamed = KernelEvent(kernelObject: Array(lines.joined(separator: "\0").utf8))
        #expect(renamed == .deviceRenamed(name: "rocep1", from: "rxe0"))
    }

    @Test("rtnetlink: an interface goes down and up; its state in the initial list is no event")
    func interfaces() throws {
        var states = InterfaceStates()
        var events: [KernelEvent] = []
        for datagram in Captured.datagrams("interface") {
            for case .data(let type, let payload) in try Message.all(in: datagram).map(\.kind) {
                if let event = try states.update(type: type, payload) { events.append(event) }
            }
        }
        #expect(
            events == [
                .interfaceUp(name: "dummy9", index: 4), .interfaceUp(name: "veth0", index: 3),
                .interfaceUp(name: "veth1", index: 2), .interfaceDown(name: "dummy9", index: 4),
            ])
    }

    @Test("RDMA netlink monitor (Linux 6.12): changes of a port's interface; other events come from uevents")
    func monitor() throws {
        func message(_ event: UInt8) -> [UInt8] {
            attribute(1, [7, 0, 0, 0]) + attribute(2, Array("mlx5_0".utf8) + [0]) + attribute(3, [1, 0, 0, 0])
                + attribute(51, Array("eth2".utf8) + [0]) + attribute(102, [event])
        }
        let events = try (0...6).map { try KernelEvent(monitor: message($0)[...]) }
        let changed = KernelEvent.interfaceOfPortChanged(deviceIndex: 7, port: 1, interface: "eth2")
        #expect(events == [nil, nil, changed, changed, nil, changed, nil])
    }
}

/// A netlink attribute, padded to a multiple of four bytes.
func attribute(_ type: UInt16, _ value: [UInt8]) -> [UInt8] {
    let length = 4 + value.count
    return [UInt8(length & 0xff), UInt8(length >> 8), UInt8(type & 0xff), UInt8(type >> 8)] + value
        + [UInt8](repeating: 0, count: -length & 3)
}

@Suite("Errors of kernel events")
struct EventErrorTests {
    @Test("ENOBUFS is the event lost; every other errno value is an error")
    func reading() throws {
        #expect(try KernelMonitor.event(of: SocketFailure(errno: ENOBUFS)) == .lost)
        let error = #expect(throws: NetlinkError.self) {
            try KernelMonitor.event(of: SocketFailure(errno: ENETDOWN))
        }
        #expect(error?.errno == ENETDOWN && error?.reason == .refused, "\(String(describing: error))")
    }

    @Test("an error response to the list of interfaces is an error, except EBUSY (a dump is in progress)")
    func interfaces() throws {
        var states = InterfaceStates()
        #expect(try states.update(with: .overrun) == .lost)
        #expect(try states.update(with: .end(0)) == nil && states.update(with: .end(-EBUSY)) == nil)
        let error = #expect(throws: NetlinkError.self) { try states.update(with: .end(-EPERM)) }
        #expect(error?.errno == EPERM)
        #expect(error?.description.hasPrefix("cannot list the network interfaces: ") == true)
    }

    @Test("a failure of libnl without errno has an errno value, never 0")
    func libnl() {
        #expect(SocketFailure(libnl: -NLE_NOMEM, errno: 0).errno == ENOMEM)
        #expect(SocketFailure(libnl: -NLE_BAD_SOCK, errno: 0).errno == EIO)
        #expect(SocketFailure(libnl: -NLE_PERM, errno: EACCES).errno == EACCES)
    }

    @Test("EPROTONOSUPPORT means a kernel without RDMA only for NETLINK_RDMA")
    func protocols() {
        let other = NetlinkError.noSocket("listen", errno: EPROTONOSUPPORT, protocol: NETLINK_ROUTE)
        #expect(!other.description.contains("no RDMA subsystem") && !other.hint.contains("modprobe"), "\(other)")
        let rdma = NetlinkError.noSocket("listen", errno: EPROTONOSUPPORT, protocol: NETLINK_RDMA)
        #expect(rdma.description.contains("no RDMA subsystem") && rdma.hint.contains("modprobe"), "\(rdma)")
    }
}
