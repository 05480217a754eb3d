/// The frame in which a ``Rendezvous`` sends each message; integers are big-endian.
///
///     0   4  magic "RDMA"
///     4   1  version, 2
///     5   1  kind: 1 message, 2 end of the connection, 3 greeting
///     6   2  zero
///     8   4  length of the payload, at most Rendezvous.maximumMessageSize
enum RendezvousFrame: Equatable {
    case message([UInt8])
    case end
    /// The first frame of the connecting program. It identifies the connection as a rendezvous.
    case greeting

    static let version: UInt8 = 2
    static let headerSize = 12
    private static let magic: [UInt8] = [0x52, 0x44, 0x4D, 0x41]

    /// The bytes of the frame.
    var encoded: [UInt8] {
        let (kind, payload): (UInt8, [UInt8]) =
            switch self {
            case .message(let bytes): (1, bytes)
            case .end: (2, [])
            case .greeting: (3, [])
            }
        let length = UInt32(payload.count)
        var bytes = Self.magic + [Self.version, kind, 0, 0]
        for shift in [24, 16, 8, 0] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: length >> shift)) }
        return bytes + payload
    }

    /// Removes the first frame from `buffer`; nil if it has not arrived completely.
    ///
    /// Checks every byte as soon as it arrives: another protocol is recognised by its first four bytes, and a length
    /// above the limit is refused, so that a peer cannot make the buffer grow.
    static func take(from buffer: inout [UInt8]) throws(RendezvousError.Reason) -> RendezvousFrame? {
        guard let length = try length(of: buffer), buffer.count >= headerSize + length else { return nil }
        let payload = Array(buffer[headerSize..<headerSize + length])
        let kind = buffer[5]
        buffer.removeFirst(headerSize + length)
        switch kind {
        case 1: return .message(payload)
        case 2: return .end
        case 3: return .greeting
        default: throw .unexpectedMessage("frame of unknown kind \(kind)")
        }
    }

    /// The length of the payload of the first frame in `buffer`; nil if its header has not arrived.
    static func length(of buffer: [UInt8]) throws(RendezvousError.Reason) -> Int? {
        guard buffer.starts(with: magic.prefix(buffer.count)) else { throw .notRendezvous }
        guard buffer.count > 4 else { return nil }
        guard buffer[4] == version else { throw .wrongVersion(buffer[4]) }
        guard buffer.count >= headerSize else { return nil }
        let length = buffer[8..<12].reduce(0) { $0 << 8 | Int($1) }
        guard length <= Rendezvous.maximumMessageSize else { throw .tooLarge(length) }
        return length
    }
}

extension RendezvousError.Reason: Error {}
