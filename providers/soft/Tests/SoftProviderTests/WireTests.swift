import CIBVerbs
import CLinux
import CProviderABI
import Glibc
import RoCEWire
import SoftTestSupport
import Testing

@testable import SoftProvider

/// A peer without an engine: a UDP socket that receives the packets as they are on the wire, and can send any bytes.
final class RawPeer {
    let descriptor: Int32
    let gid: [UInt8]
    /// The address of soft0 to which it sends.
    let loopback: [UInt8]
    /// The UDP port of both sides.
    let port: UInt16

    /// A peer at 127.0.0.N, an address of this host that is not in the GID table of soft0.
    convenience init(_ last: UInt8) throws {
        try self.init(at: Self.mapped([127, 0, 0, last]), port: 14791)
    }

    init(at gid: [UInt8], port: UInt16) throws {
        self.gid = gid
        self.port = port
        loopback = gid[0..<12] == Self.mapped([])[0..<12] ? Self.mapped([127, 0, 0, 1]) : Self.loopback6
        descriptor = linux_roce_socket(gid, port, 0)
        if descriptor < 0 { throw Refusal(-descriptor) }
    }

    /// ::ffff:a.b.c.d
    static func mapped(_ address: [UInt8]) -> [UInt8] { [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF] + address }

    static let loopback6 = [UInt8](repeating: 0, count: 15) + [1]

    deinit { close(descriptor) }

    /// Receives the next packet.
    func receive() throws -> [UInt8] {
        let packets = try receiveBatch()
        guard packets.count == 1 else { throw Batch(packets: packets.count) }
        return packets[0]
    }

    /// Several packets arrived where one was expected.
    struct Batch: Error { let packets: Int }

    /// The packets of the next GRO batch, or the one packet that arrived alone.
    func receiveBatch() throws -> [[UInt8]] {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, 20_000) == 1 else { throw Timeout() }
        var bytes = [UInt8](repeating: 0, count: 65_536)
        return try bytes.withUnsafeMutableBytes { buffer in
            var datagram = linux_datagram()
            datagram.bytes = buffer.baseAddress
            datagram.count = UInt32(buffer.count)
            guard linux_receive_datagrams(descriptor, &datagram, 1) == 1 else { throw Refusal(errno) }
            let count = Int(datagram.count)
            let segment = datagram.segment == 0 ? max(count, 1) : Int(datagram.segment)
            return stride(from: 0, to: count, by: segment).map { Array(buffer[$0..<min($0 + segment, count)]) }
        }
    }

    /// Sends bytes unchanged to soft0.
    func send(_ bytes: [UInt8]) {
        var bytes = bytes
        bytes.withUnsafeMutableBytes { buffer in
            var datagram = linux_datagram()
            datagram.bytes = buffer.baseAddress
            datagram.count = UInt32(buffer.count)
            datagram.port = port
            datagram.hop_limit = 64
            withUnsafeMutableBytes(of: &datagram.gid) { $0.copyBytes(from: loopback) }
            var sendsChecksums = false
            var isRefused = false
            var lost: Int32 = 0
            _ = linux_send_datagrams(descriptor, 0, &datagram, 1, &sendsChecksums, &isRefused, &lost)
        }
    }

    /// The ICRC of a packet to or from the peer. `index` is its index in a batch, which is the IPv4 identification.
    func icrc(_ packet: [UInt8], toPeer: Bool, index: Int = 0) -> UInt32 {
        let udp = UDPHeader(sourcePort: port, destinationPort: port, packetByteCount: packet.count)
        let (source, destination) = toPeer ? (loopback, gid) : (gid, loopback)
        guard gid[10] == 0xFF else {
            let ip = IPv6Header(
                source: address6(source), destination: address6(destination), packetByteCount: packet.count)
            return packet.withUnsafeBytes { ICRC(ipv6: ip, udp: udp, packet: ICRC.covered(of: $0)).value }
        }
        var ip = IPv4Header(
            source: UInt32(number(source[12...])), destination: UInt32(number(destination[12...])),
            packetByteCount: packet.count)
        ip.identification = UInt16(index)
        return packet.withUnsafeBytes { ICRC(ipv4: ip, udp: udp, packet: ICRC.covered(of: $0)).value }
    }

    private func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }

    private func address6(_ gid: [UInt8]) -> IPv6Address {
        IPv6Address(high: number(gid[..<8]), low: number(gid[8...]))
    }

    /// The bytes of a packet from the peer, with its ICRC.
    func sealed(_ headers: PacketHeaders, payload: [UInt8] = []) throws -> [UInt8] {
        var packet = [UInt8](repeating: 0, count: headers.packetByteCount(payloadByteCount: payload.count))
        let range = try packet.withUnsafeMutableBytes { try headers.emit(into: $0, payloadByteCount: payload.count) }
        packet.replaceSubrange(range, with: payload)
        let value = icrc(packet, toPeer: false)
        for index in 0..<4 {
            packet[packet.count - 4 + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index)))
        }
        return packet
    }
}

extension Soft {
    @Suite("Packets on the wire")
    struct WireTests {
        /// An RC queue pair whose peer is a raw socket.
        private func endpoint(_ peer: RawPeer) throws -> Endpoint {
            let device = try OpenDevice()
            device.useDatagrams(port: peer.port)
            var options = Endpoint.Options()
            options.timeout = 0
            let endpoint = try Endpoint(device, options)
            try endpoint.connect(to: Address(gid: peer.gid, queuePair: 0x1234, psn: 500))
            return endpoint
        }

        private func parse(_ packet: [UInt8]) throws -> TransportPacket {
            try packet.withUnsafeBytes { try TransportPacket(parsing: $0) }
        }

        /// An RC queue pair that allows FLUSH, and can post it. Its peer is a raw socket.
        private func flushing(_ peer: RawPeer) throws -> Endpoint {
            let device = try OpenDevice()
            device.useDatagrams(port: peer.port)
            var options = Endpoint.Options()
            // IBV_ACCESS_FLUSH_GLOBAL of later versions of verbs.h.
            options.access |= 1 << 8
            options.pairAccess |= 1 << 8
            options.operations = UInt64(RDMA_QP_EX_WITH_FLUSH)
            let endpoint = try Endpoint(device, options)
            try endpoint.connect(to: Address(gid: peer.gid, queuePair: 0x1234, psn: 500))
            return endpoint
        }

        /// The ICRC that the kernel's rxe computes for a FLUSH.
        private func icrcOfRxe(_ peer: RawPeer, _ packet: [UInt8], toPeer: Bool, identification: Int = 0) -> UInt32 {
            var packet = packet
            let value = ~peer.icrc(packet, toPeer: toPeer, index: identification)
            packet.removeLast(4)
            // CRC-32, bit by bit.
            return ~packet.reduce(value) { register, byte in
                (0..<8).reduce(register ^ UInt32(byte)) { value, _ in value >> 1 ^ (value & 1 == 0 ? 0 : 0xEDB8_8320) }
            }
        }

        @Test(
            "A FLUSH with the ICRC of the kernel's rxe is executed, whatever its IPv4 identification; any other is dropped"
        )
        func flushOfRxe() throws {
            let peer = try RawPeer(37)
            let a = try flushing(peer)
            for (index, identification) in [0, 7, 0xFFFF].enumerated() {
                let psn = PSN(500 + UInt32(index))
                var headers = PacketHeaders(BTH(opcode: .rcFlush, destinationQPN: a.pair.pointee.qp_num, psn: psn))
                headers.bth.acknowledgeRequest = true
                headers.feth = FETH(placement: 1, selectivity: 0)
                headers.reth = RETH(
                    virtualAddress: UInt64(UInt(bitPattern: a.memory)), rkey: a.region.pointee.rkey, dmaLength: 8)
                var packet = try peer.sealed(headers)
                let icrc = icrcOfRxe(peer, packet, toPeer: false, identification: identification)
                // One bit differs; then none does.
                for fault in [1, 0] as [UInt32] {
                    let bytes = withUnsafeBytes(of: (icrc ^ fault << 30).littleEndian) { Array($0) }
                    packet.replaceSubrange(packet.count - 4..<packet.count, with: bytes)
                    peer.send(packet)
                }
                let response = try peer.receive()
                #expect(response[0] == Opcode.rcReadResponseOnly.rawValue)
                #expect(try parse(response).headers.bth.psn == psn)
            }
            #expect(a.device.context.soft.pointee.counters.pointee.badICRC == 3)
        }

        @Test("A FLUSH that is sent again has both ICRCs, and so has the next one to that address")
        func flushToRxe() throws {
            let peer = try RawPeer(38)
            let a = try flushing(peer)
            let builder = try #require(a.device.table.qp_to_qp_ex(a.pair))
            for psn in 0..<2 as Range<UInt32> {
                ibv_wr_start(builder)
                builder.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
                rdma_wr_flush_place(builder).pointee!(builder, 5, 0x1000, 64, 1, 0)
                #expect(ibv_wr_complete(builder) == 0)
                if psn == 0 {
                    let first = try peer.receive()
                    #expect(first[0] == Opcode.rcFlush.rawValue)
                    #expect(first.withUnsafeBytes { ICRC.trailer(of: $0) } == peer.icrc(first, toPeer: true))
                }
                let (one, other) = (try peer.receive(), try peer.receive())
                #expect(one.dropLast(4) == other.dropLast(4))
                #expect(one.withUnsafeBytes { ICRC.trailer(of: $0) } == icrcOfRxe(peer, one, toPeer: true))
                #expect(other.withUnsafeBytes { ICRC.trailer(of: $0) } == peer.icrc(other, toPeer: true))
                var response = PacketHeaders(
                    BTH(opcode: .rcReadResponseOnly, destinationQPN: a.pair.pointee.qp_num, psn: PSN(a.psn + psn)))
                response.aeth = AETH(syndrome: AETHSyndrome(rawValue: 0x1F), msn: psn + 1)
                peer.send(try peer.sealed(response))
                try a.success()
            }
        }

        @Test("Sent RoCEv2 packets: headers, payload, pad and ICRC are correct; an ACK completes the work request")
        func sendsPackets() throws {
            let peer = try RawPeer(11)
            let a = try endpoint(peer)
            a.fill(0, 1500, seed: 4)
            try a.post(IBV_WR_SEND_WITH_IMM, [a.sge(0, 1501)]) { $0.imm_data = UInt32(0xA0B0_C0D0).bigEndian }
            var payload: [UInt8] = []
            for (index, opcode) in [0x00, 0x03].enumerated() {
                let bytes = try peer.receive()
                let packet = try parse(bytes)
                let bth = packet.headers.bth
                #expect(bth.opcode.rawValue == UInt8(opcode))
                #expect(bth.destinationQPN == 0x1234)
                #expect(bth.psn == PSN(a.psn &+ UInt32(index)))
                #expect(bth.pkey == 0xFFFF)
                #expect(bth.acknowledgeRequest == (index == 1))
                #expect(bytes.withUnsafeBytes { ICRC.trailer(of: $0) } == peer.icrc(bytes, toPeer: true))
                payload += bytes[packet.payload]
                if index == 1 { #expect(packet.headers.immDt.value == 0xA0B0_C0D0) }
            }
            #expect(payload == a.bytes(0, 1501))

            var ack = PacketHeaders(
                BTH(opcode: .init(rawValue: 0x11), destinationQPN: a.pair.pointee.qp_num, psn: PSN(a.psn &+ 1)))
            ack.aeth = AETH(syndrome: AETHSyndrome(rawValue: 0x1F), msn: 1)
            peer.send(try peer.sealed(ack))
            try a.success()
        }

        @Test("A received packet is acknowledged, and completes a receive")
        func receivesPackets() throws {
            let peer = try RawPeer(12)
            let a = try endpoint(peer)
            try a.postReceive(id: 8, [a.sge(0, 64)])
            let bth = BTH(
                opcode: .init(rawValue: 0x04), destinationQPN: a.pair.pointee.qp_num, psn: PSN(500),
                acknowledgeRequest: true)
            peer.send(try peer.sealed(PacketHeaders(bth), payload: [1, 2, 3]))
            let received = try a.success()
            #expect(received.wr_id == 8)
            #expect(received.byte_len == 3)
            #expect(a.bytes(0, 3) == [1, 2, 3])
            let ack = try parse(peer.receive())
            #expect(ack.headers.bth.opcode.rawValue == 0x11)
            #expect(ack.headers.aeth.msn == 1)
        }

        @Test("Truncated, corrupted and spoofed packets are dropped and counted, and the connection continues")
        func dropsBadPackets() throws {
            let peer = try RawPeer(13)
            let other = try RawPeer(14)
            let a = try endpoint(peer)
            try a.postReceive(id: 1, [a.sge(0, 64)])
            let bth = BTH(
                opcode: .init(rawValue: 0x04), destinationQPN: a.pair.pointee.qp_num, psn: PSN(500),
                acknowledgeRequest: true)
            let good = try peer.sealed(PacketHeaders(bth), payload: [1, 2, 3, 4])

            peer.send(Array(good.prefix(10)))
            peer.send([UInt8](repeating: 0, count: 5000))
            a.waitForLink { $0.badLength == 2 }
            for index in [0, 5, 8, 13, good.count - 1] {
                var bad = good
                bad[index] ^= 0x10
                peer.send(bad)
            }
            peer.send(Array(good.prefix(good.count - 4)))
            a.waitForLink { $0.badICRC == 6 }
            // A valid packet from another address than the peer's.
            other.send(try other.sealed(PacketHeaders(bth), payload: [9, 9, 9, 9]))
            a.poll { $0.droppedAddress == 1 }

            peer.send(good)
            #expect(try a.success().byte_len == 4)
            #expect(a.bytes(0, 4) == [1, 2, 3, 4])
        }

        @Test("Open devices that share a UDP port forward packets to the device of the destination queue pair")
        func forwards() throws {
            // The devices share the port. The kernel delivers all packets of one peer to one of them, by a hash.
            let peer = try RawPeer(20)
            let devices = try (0..<4).map { _ in try OpenDevice() }
            let endpoints = try devices.enumerated().map { index, device in
                device.useDatagrams(port: peer.port)
                var options = Endpoint.Options()
                options.timeout = 0
                let endpoint = try Endpoint(device, options)
                try endpoint.connect(to: Address(gid: peer.gid, queuePair: 0x1234, psn: 500))
                try endpoint.postReceive(id: UInt64(index), [endpoint.sge(0, 64)])
                return endpoint
            }
            for (index, endpoint) in endpoints.enumerated() {
                let bth = BTH(
                    opcode: .init(rawValue: 0x04), destinationQPN: endpoint.pair.pointee.qp_num, psn: PSN(500))
                peer.send(try peer.sealed(PacketHeaders(bth), payload: [UInt8(index)]))
                #expect(try endpoint.success().wr_id == index)
                #expect(endpoint.bytes(0, 1) == [UInt8(index)])
            }
            let forwarded = devices.reduce(0) { $0 + $1.linkCounters.forwarded }
            #expect(forwarded == 3)
        }
    }
}

extension Endpoint {
    /// Polls until the counters of the sockets and rings fulfil the condition.
    func waitForLink(
        _ condition: (LinkCounters) -> Bool, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        poll({ _ in condition(device.linkCounters) }, sourceLocation: sourceLocation)
    }
}
