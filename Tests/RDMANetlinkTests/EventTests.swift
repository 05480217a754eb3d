import Testing

@testable import RDMANetlink

@Suite("Events of the kernel")
struct EventTests {
    @Test("of its objects: a device that comes, is renamed and goes, its node that goes first, and nothing else")
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

    @Test("of interfaces: down and up again, but not how they are found")
    func interfaces() throws {
        var states = InterfaceStates()
        var events: [KernelEvent] = []
        for datagram in Captured.datagrams("interface") {
            for case .data(let type, let payload) in try Message.all(in: datagram).map(\.kind) {
                if let event = try states.take(type: type, payload) { events.append(event) }
            }
        }
        #expect(
            events == [
                .interfaceUp(name: "dummy9", index: 4), .interfaceUp(name: "veth0", index: 3),
                .interfaceUp(name: "veth1", index: 2), .interfaceDown(name: "dummy9", index: 4),
            ])
    }

    @Test("of RDMA's own group, as Linux 6.12 has it: interfaces of ports; the rest the kernel's objects tell")
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

/// An attribute, with what fills it up to a multiple of four.
func attribute(_ type: UInt16, _ value: [UInt8]) -> [UInt8] {
    let length = 4 + value.count
    return [UInt8(length & 0xff), UInt8(length >> 8), UInt8(type & 0xff), UInt8(type >> 8)] + value
        + [UInt8](repeating: 0, count: -length & 3)
}
