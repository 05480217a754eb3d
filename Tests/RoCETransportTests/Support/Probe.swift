import RoCETransport
import RoCEWire

/// One queue pair of an engine whose peer is the test: the test makes the packets of the peer, and checks the
/// responses.
final class Probe {
    let host: Host
    let pair: QueuePair
    let peer = GID(ipv4: 0x0A00_00FE)
    let peerNumber: UInt32 = 0x77
    var connection: Connection
    var now: UInt64 = 1_000_000
    /// The shared receive queue, if the queue pair has one.
    let shared: SharedReceiveQueue?
    /// The memory of the host for receives and READs.
    let memory: UnsafeMutableRawBufferPointer

    init(
        _ type: QueuePairType = .rc, _ connection: Connection = Connection(), upTo state: QueuePairState = .readyToSend,
        shared isShared: Bool = false, completions capacity: UInt32 = 1024, sqSigAll: Bool = true,
        configure: (inout Configuration) -> Void = { _ in }
    ) throws {
        host = try Host(1, completions: capacity, configure: configure)
        self.connection = connection
        shared = isShared ? try host.makeSharedReceiveQueue() : nil
        pair = try host.makeQueuePair(type, shared: shared, sqSigAll: sqSigAll)
        memory = host.take(16384)
        if type == .ud {
            try host.activate(pair, qkey: 0x1234)
        } else {
            try host.connect(pair, to: peer, number: peerNumber, connection, upTo: state)
        }
    }

    // MARK: - Packets of the peer

    /// A packet of the peer. `offset` counts from the connection's first PSN.
    func packet(
        _ opcode: Opcode, _ offset: Int = 0, payload: [UInt8] = [], acknowledge: Bool = true,
        adjust: (inout PacketHeaders) -> Void = { _ in }
    ) -> [UInt8] {
        let first = opcode.isResponse ? connection.psn : connection.peerPSN
        let psn = PSN(first &+ UInt32(truncatingIfNeeded: offset))
        var headers = PacketHeaders(
            BTH(opcode: opcode, destinationQPN: pair.number, psn: psn, acknowledgeRequest: acknowledge))
        adjust(&headers)
        var bytes = [UInt8](repeating: 0, count: headers.packetByteCount(payloadByteCount: payload.count))
        bytes.withUnsafeMutableBytes { room in
            // The opcode is known and the buffer is long enough, so emit does not throw.
            guard let range = try? headers.emit(into: room, payloadByteCount: payload.count) else { return }
            for (index, byte) in zip(range, payload) { room[index] = byte }
        }
        return bytes
    }

    /// Passes a packet to the engine, with the peer or `source` as its sender.
    func receive(_ bytes: [UInt8], from source: GID? = nil, to destination: GID? = nil) {
        bytes.withUnsafeBytes { bytes in
            host.engine.receive(
                bytes,
                from: PacketSource(
                    source: source ?? peer, destination: destination ?? host.gid,
                    header: UnsafeRawBufferPointer(start: nil, count: 0)), now: now)
        }
    }

    func receive(
        _ opcode: Opcode, _ offset: Int = 0, payload: [UInt8] = [], acknowledge: Bool = true,
        adjust: (inout PacketHeaders) -> Void = { _ in }
    ) {
        receive(packet(opcode, offset, payload: payload, acknowledge: acknowledge, adjust: adjust))
    }

    func receiveWrite(
        _ opcode: Opcode, _ offset: Int = 0, at address: UInt64? = nil, key: UInt32? = nil, length: Int,
        payload: [UInt8]
    ) {
        receive(opcode, offset, payload: payload) { headers in
            headers.reth = RETH(
                virtualAddress: address ?? self.address, rkey: key ?? self.host.key, dmaLength: UInt32(length))
        }
    }

    func receiveRead(_ offset: Int = 0, at address: UInt64? = nil, key: UInt32? = nil, length: Int) {
        receive(.rcReadRequest, offset) { headers in
            headers.reth = RETH(
                virtualAddress: address ?? self.address, rkey: key ?? self.host.key, dmaLength: UInt32(length))
        }
    }

    func receiveFetchAdd(_ offset: Int = 0, at address: UInt64? = nil, add: UInt64) {
        receive(.rcFetchAndAdd, offset) { headers in
            headers.atomicETH = AtomicETH(
                virtualAddress: address ?? self.address, rkey: self.host.key, swapOrAdd: add)
        }
    }

    func acknowledge(_ offset: Int, _ syndrome: AETHSyndrome = .ack) {
        receive(.rcAcknowledge, offset) { $0.aeth = AETH(syndrome: syndrome, msn: 0) }
    }

    // MARK: - Packets of the engine

    struct Sent {
        let headers: PacketHeaders
        let payload: [UInt8]
        let path: Path
        let isExpendable: Bool

        var opcode: Opcode { headers.bth.opcode }
        var psn: UInt32 { headers.bth.psn.rawValue }
        var syndrome: UInt8 { headers.aeth.syndrome.rawValue }
    }

    /// All packets that the engine has to send now.
    func sent(limit: Int = .max) -> [Sent] {
        var result: [Sent] = []
        while result.count < limit, let packet = host.engine.transmit(into: host.packet, now: now) {
            let bytes = UnsafeRawBufferPointer(rebasing: host.packet[..<packet.byteCount])
            guard let parsed = try? TransportPacket(parsing: bytes) else { continue }
            result.append(
                Sent(
                    headers: parsed.headers, payload: Array(bytes[parsed.payload]), path: packet.path,
                    isExpendable: packet.isExpendable))
        }
        return result
    }

    /// The offsets of the PSNs of requests that the engine has to send now.
    func sentOffsets() -> [Int] { sent().map { Int(PSN(connection.psn).distance(to: $0.headers.bth.psn)) } }

    func advance(_ nanoseconds: UInt64) {
        now += nanoseconds
        host.engine.advance(to: now)
    }

    // MARK: - Work requests

    var address: UInt64 { UInt64(UInt(bitPattern: memory.baseAddress!)) }

    @discardableResult
    func post(
        _ opcode: WorkRequestOpcode, id: UInt64 = 0, bytes: Int = 8, flags: SendFlags = [],
        path: UnsafePointer<Path>? = nil, adjust: (inout SendWQE) -> Void = { _ in }
    ) -> Errno {
        var request = SendWQE(id: id, opcode: opcode, flags: flags)
        request.remoteAddress = 0x10000
        request.rkey = 0x4242
        adjust(&request)
        return host.post(pair, request, [sge(bytes)], path: path)
    }

    func postReceive(id: UInt64 = 0, bytes: Int) { host.postReceive(pair, id: id, [sge(bytes)]) }

    func sge(_ bytes: Int) -> SGE {
        host.sge(UnsafeMutableRawBufferPointer(rebasing: memory[..<bytes]))
    }
}

/// `count` bytes that count up from `seed`.
func pattern(_ count: Int, seed: Int = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: seed + $0) }
}
