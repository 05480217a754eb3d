import CLinux
import RoCETransport
import RoCEWire

/// A message between two devices of one host, over the connection from the sender to the receiver's slot.
///
/// | byte | field |
/// |------|-------|
/// | 0-3  | layout number |
/// | 4-7  | kind |
/// | 8-39 | `packet`: source GID and destination GID |
/// | 40   | `packet`: traffic class |
/// | 41   | `packet`: hop limit |
/// | 42-43 | `packet`: zero |
/// | 44-47 | `packet`: flow label |
/// | 48-51 | `packet`: 1 and the PSN that it acknowledges besides (`OutgoingPacket.acknowledged`) in the low 24 bits, or 0 |
/// | 52-55 | `packet`: zero |
/// | 56   | `packet`: from the BTH to the end of the ICRC, which is not filled in |
enum LocalMessage {
    /// The layout number. It changes with every format that two processes share, the layout of `PacketRing` included.
    static let layout: UInt32 = 0x5D3A_0006

    enum Kind: UInt32 {
        /// From the sender: the message carries the descriptor of a ring (`PacketRing`), which the receiver maps.
        case ring = 1
        /// From the sender: a packet, when there is no packet ring.
        case packet = 2
        /// From the sender: a wake-up for a sleeping receiver that has a packet in its packet ring.
        case wake = 3
        /// From the receiver: the ring cannot be mapped, so packets are sent as messages.
        case noRing = 4
        /// From the receiver: the message carries the descriptor of memory that the sender maps, and its number after the
        /// head: 0 for the access table (`OwnAccessTable`), others for arenas (`SharedMemory`).
        case share = 5
    }

    static let headByteCount = 8
    /// Bytes of a message of the kind `share`.
    static let shareByteCount = 16
    static let packetOffset = 56
    static let acknowledges: UInt32 = 1 << 24
    static let maximumByteCount = packetOffset + Engine.packetRoom

    /// Sends a message without a packet. Returns 0, or a positive errno value.
    static func send(_ kind: Kind, on connection: Int32, descriptor: Int32 = -1) -> Int32 {
        var head = (layout, kind.rawValue)
        return linux_local_send(connection, &head, headByteCount, nil, 0, descriptor)
    }

    /// Sends the descriptor of memory. Returns 0, or a positive errno value.
    static func share(_ number: Int, descriptor: Int32, on connection: Int32) -> Int32 {
        var message = (layout, Kind.share.rawValue, UInt64(number))
        return linux_local_send(connection, &message, shareByteCount, nil, 0, descriptor)
    }

    /// Sends a packet. Returns 0, or a positive errno value.
    static func send(
        _ packet: UnsafeRawPointer, byteCount: Int, _ envelope: PacketEnvelope, on connection: Int32
    ) -> Int32 {
        var head = InlineArray<7, UInt64>(repeating: 0)
        return withUnsafeMutableBytes(of: &head) { head in
            head.storeBytes(of: layout, as: UInt32.self)
            head.storeBytes(of: Kind.packet.rawValue, toByteOffset: 4, as: UInt32.self)
            head.storeBytes(of: envelope.source, toByteOffset: 8, as: GID.self)
            head.storeBytes(of: envelope.destination, toByteOffset: 24, as: GID.self)
            head.storeBytes(of: envelope.trafficClass, toByteOffset: 40, as: UInt8.self)
            head.storeBytes(of: envelope.hopLimit, toByteOffset: 41, as: UInt8.self)
            head.storeBytes(of: envelope.flowLabel, toByteOffset: 44, as: UInt32.self)
            if let psn = envelope.acknowledged {
                head.storeBytes(of: acknowledges | psn.rawValue, toByteOffset: 48, as: UInt32.self)
            }
            return linux_local_send(connection, head.baseAddress!, packetOffset, packet, byteCount, -1)
        }
    }

    /// The kind of a message; nil for a message that no device of this version sends.
    static func kind(of message: UnsafeRawBufferPointer) -> Kind? {
        guard message.count >= headByteCount, message.loadUnaligned(as: UInt32.self) == layout,
            let kind = Kind(rawValue: message.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
        else { return nil }
        if kind == .share { return message.count == shareByteCount ? kind : nil }
        if kind != .packet { return message.count == headByteCount ? kind : nil }
        let byteCount = message.count - packetOffset
        return byteCount >= BTH.byteCount + ICRC.byteCount && byteCount <= Engine.packetRoom ? kind : nil
    }

    /// Whether the message asks for the counters of the device (`LINUX_LOCAL_COUNTERS`).
    static func asksForCounters(_ message: UnsafeRawBufferPointer) -> Bool {
        message.count == headByteCount && message.loadUnaligned(as: UInt64.self) == LINUX_LOCAL_COUNTERS
    }

    /// The packet and the envelope of a message of the kind `packet`.
    static func packet(in message: UnsafeRawBufferPointer) -> (UnsafeRawBufferPointer, PacketEnvelope) {
        assert(kind(of: message) == .packet, "the kind is checked before")
        let acknowledged = message.loadUnaligned(fromByteOffset: 48, as: UInt32.self)
        let envelope = PacketEnvelope(
            source: message.loadUnaligned(fromByteOffset: 8, as: GID.self),
            destination: message.loadUnaligned(fromByteOffset: 24, as: GID.self),
            trafficClass: message[40], hopLimit: message[41],
            flowLabel: message.loadUnaligned(fromByteOffset: 44, as: UInt32.self) & 0xF_FFFF,
            acknowledged: acknowledged & acknowledges == 0 ? nil : PSN(acknowledged))
        return (UnsafeRawBufferPointer(rebasing: message[packetOffset...]), envelope)
    }
}

/// The tags (`linux_ready`) of the descriptors in the ready list of a device.
enum LocalTag {
    static let listener: UInt64 = 0
    static let sender: UInt64 = 1
    static let peer: UInt64 = 2

    /// A connection from a sender.
    static func sender(_ descriptor: Int32) -> UInt64 { sender << 32 | UInt64(UInt32(bitPattern: descriptor)) }
    /// The connection of this device to a slot.
    static func peer(_ slot: Int) -> UInt64 { peer << 32 | UInt64(slot) }

    static func kind(_ tag: UInt64) -> UInt64 { tag >> 32 }
    static func descriptor(_ tag: UInt64) -> Int32 { Int32(truncatingIfNeeded: tag) }
    static func slot(_ tag: UInt64) -> Int { Int(tag & 0xFF) }
}
