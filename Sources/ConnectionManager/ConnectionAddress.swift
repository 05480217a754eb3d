import Glibc
import Verbs

/// An IPv4 or IPv6 address with a port number of rdma_cm.
public struct ConnectionAddress: Hashable, Sendable {
    /// The host: an IPv4 address is `::ffff:a.b.c.d`.
    public var host: GID
    /// The port, in host byte order. 0 lets the kernel choose, where one is bound.
    public var port: UInt16
    /// Index of the interface that a link-local IPv6 address is on; 0 where it does not matter.
    public var scope: UInt32

    /// The address of that host.
    public init(host: GID, port: UInt16, scope: UInt32 = 0) {
        self.host = host
        self.port = port
        self.scope = scope
    }

    /// Every IPv6 address of this host, and every IPv4 one as well.
    public static func any(port: UInt16) -> ConnectionAddress { ConnectionAddress(host: .zero, port: port) }
    /// Every IPv4 address of this host.
    public static func anyIPv4(port: UInt16) -> ConnectionAddress {
        ConnectionAddress(host: GID(ipv4: 0, 0, 0, 0), port: port)
    }

    /// Whether it is that of a multicast group: 224.0.0.0/4 or ff00::/8.
    public var isMulticast: Bool { isIPv4 ? (host.interfaceID >> 28) & 0xf == 0xe : host.isMulticast }
    /// Whether it is an IPv4 address.
    public var isIPv4: Bool { host.isIPv4Mapped }

    /// All addresses of a host name or a numeric address, in the system's order of preference; at least one.
    ///
    /// - Throws: `unresolvable` when the name has no meaning here.
    public static func resolve(_ name: String, port: UInt16) throws(ConnectionError) -> [ConnectionAddress] {
        var hints = addrinfo()
        hints.ai_socktype = Int32(bitPattern: SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(name, nil, &hints, &list)
        defer { if let list { freeaddrinfo(list) } }
        var addresses: [ConnectionAddress] = []
        var next = list
        while code == 0, let entry = next?.pointee {
            if let raw = entry.ai_addr, var address = ConnectionAddress(raw) {
                address.port = port
                addresses.append(address)
            }
            next = entry.ai_next
        }
        guard !addresses.isEmpty else {
            let text = code == 0 ? "the host has no address" : String(cString: gai_strerror(code))
            throw ConnectionError(.unresolvable(text), operation: "find the host \"\(name)\"")
        }
        return addresses
    }
}

extension ConnectionAddress: LosslessStringConvertible {
    /// Such as `192.0.2.1:7471` or `[2001:db8::1]:7471`.
    public var description: String {
        let zone = scope == 0 ? "" : "%\(scope)"
        return isIPv4 ? "\(host.description.dropFirst("::ffff:".count)):\(port)" : "[\(host)\(zone)]:\(port)"
    }

    /// Reads what `description` writes; nil for anything else, names among it.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let digits = text[text.index(after: colon)...]
        guard digits.utf8.allSatisfy({ (48...57).contains($0) }), let port = UInt16(digits) else { return nil }
        var host = text[..<colon]
        var scope: UInt32 = 0
        if host.first == "[" {
            guard host.last == "]" else { return nil }
            host = host.dropFirst().dropLast()
            if let percent = host.firstIndex(of: "%") {
                guard let number = UInt32(host[host.index(after: percent)...]) else { return nil }
                scope = number
                host = host[..<percent]
            }
            guard host.contains(":") else { return nil }
        } else if host.contains(":") {
            return nil
        }
        guard let gid = GID(String(host)) else { return nil }
        self.init(host: gid, port: port, scope: scope)
    }
}

// MARK: - The forms of the socket interface

extension ConnectionAddress {
    /// Reads a struct sockaddr of either family; nil for any other.
    init?(_ raw: UnsafePointer<sockaddr>) {
        switch Int32(raw.pointee.sa_family) {
        case AF_INET:
            self = UnsafeRawPointer(raw).withMemoryRebound(to: sockaddr_in.self, capacity: 1) { address in
                let octets = UInt32(bigEndian: address.pointee.sin_addr.s_addr)
                let gid = GID(prefix: 0, interfaceID: 0xffff_0000_0000 | UInt64(octets))
                return ConnectionAddress(host: gid, port: UInt16(bigEndian: address.pointee.sin_port))
            }
        case AF_INET6:
            let value: ConnectionAddress? = UnsafeRawPointer(raw).withMemoryRebound(
                to: sockaddr_in6.self, capacity: 1
            ) { address in
                let bytes = withUnsafeBytes(of: address.pointee.sin6_addr) { Array($0) }
                return GID(bytes: bytes).map {
                    ConnectionAddress(
                        host: $0, port: UInt16(bigEndian: address.pointee.sin6_port),
                        scope: address.pointee.sin6_scope_id)
                }
            }
            guard let value else { return nil }
            self = value
        default: return nil
        }
    }

    /// Hands the address to `body` as the struct sockaddr of its family.
    func withRaw<Result>(_ body: (UnsafeMutablePointer<sockaddr>) -> Result) -> Result {
        var storage = sockaddr_storage()
        return withUnsafeMutableBytes(of: &storage) { bytes in
            let base = bytes.baseAddress!
            if isIPv4 {
                var address = sockaddr_in()
                address.sin_family = sa_family_t(AF_INET)
                address.sin_port = port.bigEndian
                address.sin_addr.s_addr = UInt32(truncatingIfNeeded: host.interfaceID).bigEndian
                base.storeBytes(of: address, as: sockaddr_in.self)
            } else {
                var address = sockaddr_in6()
                address.sin6_family = sa_family_t(AF_INET6)
                address.sin6_port = port.bigEndian
                address.sin6_scope_id = scope
                withUnsafeMutableBytes(of: &address.sin6_addr) { $0.copyBytes(from: host.bytes) }
                base.storeBytes(of: address, as: sockaddr_in6.self)
            }
            return body(base.assumingMemoryBound(to: sockaddr.self))
        }
    }
}
