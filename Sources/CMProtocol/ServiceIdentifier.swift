/// The service IDs of rdma_cm, and the addresses that it puts before the private data of a REQ or SIDR_REQ.
package enum IPService {
    /// The service ID of a port in a port space of rdma_cm: `0x00000000_01` + port space (low 8 bits of `enum
    /// rdma_port_space`) + port (annex A11 of IBTA volume 1).
    package static func identifier(portSpace: UInt32, port: UInt16) -> UInt64 {
        UInt64(portSpace & 0xFFFF) << 16 | UInt64(port)
    }

    /// The port of a service ID.
    package static func port(of identifier: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: identifier) }
}

/// The addresses of a connection between IP addresses: the first 36 bytes of the private data of a REQ or SIDR_REQ
/// (annex A11 of IBTA volume 1; `struct cma_hdr` of the kernel).
///
/// | byte | bits | field |
/// |------|------|-------|
/// | 0 | | version, 0 |
/// | 1 | 0-3 | IP version, 4 or 6 |
/// | 2-3 | | port of the sender |
/// | 4-19 | | address of the sender; an IPv4 address in the last 4 bytes |
/// | 20-35 | | address of the receiver |
package struct IPAddresses: Hashable, Sendable {
    /// Bytes of the header.
    package static let byteCount = 36
    /// An IPv4 address is `::ffff:a.b.c.d`.
    package var source: PortGID
    package var destination: PortGID
    package var sourcePort: UInt16

    package init(source: PortGID, destination: PortGID, sourcePort: UInt16) {
        self.source = source
        self.destination = destination
        self.sourcePort = sourcePort
    }

    /// Reads the header; nil for another version, and for an IP version that is neither 4 nor 6.
    package init?(parsing privateData: [UInt8]) {
        guard privateData.count >= Self.byteCount, privateData[0] == 0 else { return nil }
        func number(_ offset: Int, _ count: Int) -> UInt64 {
            privateData[offset..<offset + count].reduce(0) { $0 << 8 | UInt64($1) }
        }
        sourcePort = UInt16(number(2, 2))
        switch privateData[1] >> 4 {
        case 4:
            source = PortGID(low: 0xFFFF_0000_0000 | number(16, 4))
            destination = PortGID(low: 0xFFFF_0000_0000 | number(32, 4))
        case 6:
            source = PortGID(high: number(4, 8), low: number(12, 8))
            destination = PortGID(high: number(20, 8), low: number(28, 8))
        default: return nil
        }
    }

    /// The 36 bytes.
    package var bytes: [UInt8] {
        let isIPv4 = source.isIPv4
        var bytes: [UInt8] = [0, isIPv4 ? 0x40 : 0x60, UInt8(sourcePort >> 8), UInt8(sourcePort & 0xFF)]
        for address in [source, destination] {
            let low = isIPv4 ? address.low & 0xFFFF_FFFF : address.low
            for half in [isIPv4 ? 0 : address.high, low] {
                for shift in stride(from: UInt64(56), through: 0, by: -8) {
                    bytes.append(UInt8(truncatingIfNeeded: half >> shift))
                }
            }
        }
        return bytes
    }
}
