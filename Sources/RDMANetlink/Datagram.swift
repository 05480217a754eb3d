import CNetlink
import Glibc

/// One message of a datagram (`struct nlmsghdr` of `<linux/netlink.h>`), in the byte order of the machine:
///
/// | bytes | contents |
/// |---|---|
/// | 0..<4 | length of header and payload |
/// | 4..<6 | type |
/// | 6..<8 | flags |
/// | 8..<12 | sequence number: that of the request |
/// | 12..<16 | port number |
/// | 16... | payload, then up to 3 bytes of padding to a multiple of 4 |
struct Message {
    enum Kind {
        /// NLMSG_DONE, the last message of a dump, or NLMSG_ERROR: 0 or a negative errno value.
        case end(Int32)
        /// NLMSG_OVERRUN: data were lost.
        case overrun
        case data(type: UInt16, ArraySlice<UInt8>)
    }

    let sequence: UInt32
    let kind: Kind

    /// The messages of a datagram.
    static func all(in datagram: [UInt8]) throws(MalformedMessage) -> [Message] {
        var messages: [Message] = []
        var rest = datagram[...]
        while !rest.isEmpty {
            guard rest.count >= 16 else {
                throw MalformedMessage(offset: rest.startIndex, message: "\(rest.count) bytes are no message")
            }
            let length = Int(machineNumber(rest.prefix(4)))
            guard (16...rest.count).contains(length) else {
                throw MalformedMessage(
                    offset: rest.startIndex, message: "a message of \(length) bytes, of \(rest.count) that are left")
            }
            if let message = try Message(rest.prefix(length)) { messages.append(message) }
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return messages
    }

    /// Nil for NLMSG_NOOP.
    private init?(_ bytes: ArraySlice<UInt8>) throws(MalformedMessage) {
        let type = UInt16(machineNumber(bytes.dropFirst(4).prefix(2)))
        let payload = bytes.dropFirst(16)
        sequence = UInt32(machineNumber(bytes.dropFirst(8).prefix(4)))
        switch Int32(type) {
        case NLMSG_NOOP: return nil
        case NLMSG_OVERRUN: kind = .overrun
        case NLMSG_ERROR, NLMSG_DONE:
            guard payload.count >= 4 else {
                throw MalformedMessage(offset: payload.startIndex, message: "a result of \(payload.count) bytes")
            }
            kind = .end(Int32(truncatingIfNeeded: machineNumber(payload.prefix(4))))
        default: kind = .data(type: type, payload)
        }
    }
}
