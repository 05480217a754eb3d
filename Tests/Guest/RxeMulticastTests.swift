import Foundation
import Testing
import ToolSupport
import Verbs

extension Guest {
    @Suite("rxe with every provider: multicast")
    struct RxeMulticastTests {
        private static let qkey: UInt32 = 0x1122_3344

        @Test(
            "a queue pair of either provider receives a group's datagrams while it is attached",
            arguments: ["239.77.3.1", "ff0e::77:3:1"], [NativeDevice.Provider.native, .crxe])
        func group(_ text: String, _ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let (native, other) = (try device.open(provider), try device.open(.libibverbs))
                let group = MulticastGroup(gid: try #require(GID(text)))
                // The verb attaches only the queue pair; the host joins the group by a socket.
                let membership = try Membership(of: group.gid, on: "veth0")
                for (here, there) in [(native, other), (other, native)] {
                    var sender = try end(here)
                    var near = try end(here)
                    var far = try end(there)
                    var outsider = try end(there)
                    try near.queuePair.attach(to: group)
                    try far.queuePair.attach(to: group)
                    try send("first", from: &sender, to: group)
                    try expect("first", at: &near)
                    try expect("first", at: &far)
                    try far.queuePair.detach(from: group)
                    try send("second", from: &sender, to: group)
                    try expect("second", at: &near)
                    // The next datagram at the queue pairs that are not attached is one to their own QP number.
                    try send("to you", from: &sender, to: &far)
                    try expect("to you", at: &far)
                    try send("to you", from: &sender, to: &outsider)
                    try expect("to you", at: &outsider)
                    #expect(throws: VerbsError.self) { try far.queuePair.detach(from: group) }
                }
                withExtendedLifetime(membership) {}
            }
        }

        @Test(
            "attaching a connected queue pair, or to a GID that is not multicast, is refused",
            arguments: NativeDevice.Provider.ofRxe)
        func refusals(_ provider: NativeDevice.Provider) async throws {
            try await Bench.run { _ in
                let device = try NativeDevice(.rxe)
                let context = try device.open(provider)
                let connected = try Link(context, context)
                let datagrams = try end(context)
                let group = MulticastGroup(gid: try #require(GID("239.77.3.1")))
                let host = MulticastGroup(gid: try #require(GID("10.9.0.1")))
                let kind = #expect(throws: VerbsError.self) { try connected.left.queuePair.attach(to: group) }
                #expect(kind?.errno == .invalidArgument && kind?.hint?.contains("only UD") == true)
                let address = #expect(throws: VerbsError.self) { try datagrams.queuePair.attach(to: host) }
                #expect(address?.errno == .invalidArgument && address?.hint?.contains("not a multicast GID") == true)
            }
        }

        @Test(
            "soft on another host sends datagrams to a group of rxe's, and receives those of rxe",
            arguments: ["239.77.3.1", "ff0e::77:3:1"])
        func soft(_ text: String) async throws {
            try await Bench.run { bench in
                let device = try NativeDevice(.rxe)
                let context = try device.open(.native)
                let group = MulticastGroup(gid: try #require(GID(text)))
                let membership = try Membership(of: group.gid, on: "veth0")
                var sender = try end(context)
                var receiver = try end(context)
                try receiver.queuePair.attach(to: group)
                let program =
                    URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path + "/multicast-peer"
                let peer =
                    (bench.other.entrance + ["env", "RDMA_SOFT_INTERFACES=eth0", program, "soft_eth0", text])
                    .joined(separator: " ")
                try await bench.other.shell("ip route replace 239.0.0.0/8 dev eth0")
                try await Bench.shell("\(peer) send 'from soft'")
                try expect("from soft", at: &receiver)
                let file = "/dev/shm/multicast-peer"
                async let received = Bench.shell("\(peer) receive \(file)")
                while access(file, F_OK) != 0 { try await Task.sleep(for: .milliseconds(20)) }
                try send("from rxe", from: &sender, to: group)
                #expect(try await received.contains("from rxe"))
                unlink(file)
                try expect("from rxe", at: &receiver)
                withExtendedLifetime(membership) {}
            }
        }

        /// A UD queue pair with the group's Q_Key and two receives.
        private func end(_ context: Context) throws -> Link.End {
            var end = try Link.End(context, .unreliableDatagram)
            try end.queuePair.activate()
            var key = QueuePair.Attributes()
            key.qkey = Self.qkey
            try end.queuePair.modify(key)
            for start in [0, 256] { try end.queuePair.postReceive(try end.region.sge(start..<start + 256)) }
            return end
        }

        /// Sends to the group's GID and the multicast QP number 0xFFFFFF (IBTA volume 1, 10.5).
        private func send(_ text: String, from sender: inout Link.End, to group: MulticastGroup) throws {
            let endpoint = Endpoint(
                queuePairNumber: 0xff_ffff, packetSequenceNumber: 0, gid: group.gid, lid: 0, mtu: .bytes1024,
                qkey: Self.qkey)
            try send(text, from: &sender, to: endpoint)
        }

        private func send(_ text: String, from sender: inout Link.End, to receiver: inout Link.End) throws {
            var endpoint = try receiver.queuePair.endpoint()
            endpoint.qkey = Self.qkey
            try send(text, from: &sender, to: endpoint)
        }

        private func send(_ text: String, from sender: inout Link.End, to endpoint: Endpoint) throws {
            let domain = sender.region.protectionDomain
            let source = try #require(
                try domain.context.addresses().first {
                    $0.gid.isIPv4Mapped == endpoint.gid.isIPv4Mapped && !$0.gid.isLinkLocal
                })
            let destination = try domain.makeDestination(endpoint, from: source)
            try sender.region.copyBytes(from: Array(text.utf8).span.bytes, at: 1024)
            try sender.queuePair.postSend(.send, try sender.region.sge(1024..<1024 + text.utf8.count), to: destination)
            try sender.next().check()
        }

        /// The receive buffers are adjacent, each with 40 bytes for the GRH before the data.
        private func expect(_ text: String, at receiver: inout Link.End) throws {
            let completion = try receiver.next()
            #expect(completion.opcode == .receive && completion.byteCount == 40 + text.utf8.count, "\(text)")
            let starts = [40, 296].filter { start in
                (try? receiver.region.copyBytes(start..<start + text.utf8.count)) == Array(text.utf8)
            }
            #expect(!starts.isEmpty, "\(text)")
        }
    }
}

/// The host's membership of a group on one interface, until deinit.
private final class Membership {
    private let socket: CInt

    init(of group: GID, on interface: String) throws {
        let family = group.isIPv4Mapped ? AF_INET : AF_INET6
        socket = Glibc.socket(family, CInt(SOCK_DGRAM.rawValue), 0)
        let index = if_nametoindex(interface)
        let code: CInt
        if group.isIPv4Mapped {
            var request = ip_mreqn()
            request.imr_multiaddr.s_addr = UInt32(truncatingIfNeeded: group.interfaceID).bigEndian
            request.imr_ifindex = CInt(index)
            code = setsockopt(
                socket, CInt(IPPROTO_IP), IP_ADD_MEMBERSHIP, &request, socklen_t(MemoryLayout<ip_mreqn>.size))
        } else {
            var request = ipv6_mreq()
            withUnsafeMutableBytes(of: &request.ipv6mr_multiaddr) { $0.copyBytes(from: group.bytes) }
            request.ipv6mr_interface = index
            code = setsockopt(
                socket, CInt(IPPROTO_IPV6), IPV6_JOIN_GROUP, &request, socklen_t(MemoryLayout<ipv6_mreq>.size))
        }
        try #require(code == 0, "errno \(errno)")
    }

    deinit { close(socket) }
}
