import CMProtocol
import Glibc

/// An IPv4 or IPv6 address with a port of rdma_cm: a struct sockaddr_in or sockaddr_in6.
package struct SocketAddress: Hashable, Sendable {
    /// An IPv4 address is `::ffff:a.b.c.d`.
    package var host: PortGID
    /// In host byte order.
    package var port: UInt16
    /// `sin6_scope_id`; 0 for addresses that are not link-local.
    package var scope: UInt32

    package init(host: PortGID, port: UInt16, scope: UInt32 = 0) {
        self.host = host
        self.port = port
        self.scope = scope
    }

    /// `INADDR_ANY`.
    package static func anyIPv4(port: UInt16) -> SocketAddress {
        SocketAddress(host: PortGID(low: 0xFFFF_0000_0000), port: port)
    }

    package var isIPv4: Bool { host.isIPv4 }
    /// Whether it stands for every address, of IPv6 or of IPv4 only.
    package var isAny: Bool { host == .zero || host == PortGID(low: 0xFFFF_0000_0000) }
    /// Whether it is in 127.0.0.0/8, or ::1.
    package var isLoopback: Bool { host.isLoopbackIPv4 || host == PortGID(low: 1) }
    /// Whether it is in 224.0.0.0/4 or ff00::/8.
    package var isMulticast: Bool { isIPv4 ? host.low >> 28 & 0xF == 0xE : host.high >> 56 == 0xFF }

    /// Reads a struct sockaddr of either family; nil for any other, and for one of which not all bytes are there.
    package init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= 2 else { return nil }
        switch Int32(bytes.loadUnaligned(as: sa_family_t.self)) {
        case AF_INET where bytes.count >= MemoryLayout<sockaddr_in>.size:
            let octets = UInt64(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
            host = PortGID(low: 0xFFFF_0000_0000 | octets)
            scope = 0
        case AF_INET6 where bytes.count >= MemoryLayout<sockaddr_in6>.size:
            host = PortGID(bytes: UnsafeRawBufferPointer(rebasing: bytes[8..<24]))
            scope = bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self)
        default: return nil
        }
        port = UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
    }

    /// Reads a struct sockaddr of either family, of which all bytes are there; nil for any other.
    package init?(_ raw: UnsafePointer<sockaddr>) {
        let size =
            Int32(raw.pointee.sa_family) == AF_INET6 ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size
        self.init(UnsafeRawBufferPointer(start: raw, count: size))
    }

    /// The struct sockaddr of its family, at the start of a struct sockaddr_storage.
    package var storage: sockaddr_storage {
        var storage = sockaddr_storage()
        withUnsafeMutableBytes(of: &storage) { bytes in
            bytes.storeBytes(of: sa_family_t(isIPv4 ? AF_INET : AF_INET6), as: sa_family_t.self)
            bytes.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
            if isIPv4 {
                bytes.storeBytes(
                    of: UInt32(truncatingIfNeeded: host.low).bigEndian, toByteOffset: 4, as: UInt32.self)
            } else {
                UnsafeMutableRawBufferPointer(rebasing: bytes[8..<24]).copyBytes(from: host.bytes)
                bytes.storeBytes(of: scope, toByteOffset: 24, as: UInt32.self)
            }
        }
        return storage
    }

    /// The size of the struct sockaddr of its family.
    package var byteCount: Int { isIPv4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size }

    /// Passes the address to `body` as the struct sockaddr of its family.
    package func withRaw<Result>(_ body: (UnsafeMutablePointer<sockaddr>) -> Result) -> Result {
        var storage = storage
        return withUnsafeMutableBytes(of: &storage) { body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self)) }
    }
}

extension PortGID {
    /// The GID in 16 bytes.
    package init(bytes: UnsafeRawBufferPointer) {
        self.init(
            high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }

    /// The 16 bytes.
    package var bytes: [UInt8] {
        withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) { Array($0) }
    }
}
