import Glibc
import SoftwareConnections
import SystemPackage
import Verbs

/// An IPv4 or IPv6 address with a port number of rdma_cm.
public struct ConnectionAddress: Hashable, Sendable {
    /// The host (`sin6_addr`): an IPv4 address is `::ffff:a.b.c.d`.
    public var host: GID
    /// The port (`sin6_port`), in host byte order. When an address with port 0 is bound, the kernel chooses the port.
    public var port: UInt16
    /// Index of the interface of a link-local IPv6 address (`sin6_scope_id`); 0 for other addresses.
    public var scope: UInt32

    /// The address of that host.
    public init(host: GID, port: UInt16, scope: UInt32 = 0) {
        self.host = host
        self.port = port
        self.scope = scope
    }

    /// All IPv6 and IPv4 addresses of this host (`in6addr_any`).
    public static func any(port: UInt16) -> ConnectionAddress { ConnectionAddress(host: .zero, port: port) }
    /// All IPv4 addresses of this host (`INADDR_ANY`).
    public static func anyIPv4(port: UInt16) -> ConnectionAddress {
        ConnectionAddress(host: GID(ipv4: 0, 0, 0, 0), port: port)
    }

    /// Whether it stands for every address, of IPv6 or of IPv4 only.
    var isAny: Bool { host.isZero || self == .anyIPv4(port: port) }
    /// Whether it is a multicast address: 224.0.0.0/4 or ff00::/8.
    public var isMulticast: Bool { isIPv4 ? (host.interfaceID >> 28) & 0xf == 0xe : host.isMulticast }
    /// Whether it is an IPv4 address.
    public var isIPv4: Bool { host.isIPv4Mapped }

    /// All addresses of a host name or a numeric address, at least one, in the system's order of preference:
    /// getaddrinfo(3). `rdma_getaddrinfo` is not used.
    /// - Throws: `unresolvable` when the name is unknown, `invalid` when it contains a zero byte; `system` with the
    ///   errno value of getaddrinfo(3) when the resolver could not read its files or query its servers.
    public static func resolve(_ name: String, port: UInt16) throws(ConnectionError) -> [ConnectionAddress] {
        let operation = "find the host \"\(name)\""
        guard !name.utf8.contains(0) else {
            throw ConnectionError(
                .invalid("the name contains a zero byte"), operation: operation, hint: "give the name without it")
        }
        var hints = addrinfo()
        hints.ai_socktype = Int32(bitPattern: SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        errno = 0
        let code = getaddrinfo(name, nil, &hints, &list)
        let systemCode = errno
        defer { if let list { freeaddrinfo(list) } }
        var addresses: [ConnectionAddress] = []
        var next = list
        if code != 0 { throw failure(code, systemCode, operation) }
        while let entry = next?.pointee {
            if let raw = entry.ai_addr, var address = ConnectionAddress(raw) {
                address.port = port
                addresses.append(address)
            }
            next = entry.ai_next
        }
        guard !addresses.isEmpty else {
            throw ConnectionError(
                .unresolvable("the host has neither an IPv4 nor an IPv6 address"), operation: operation)
        }
        return addresses
    }

    /// The error of getaddrinfo(3): its result, and the errno value, which is valid with EAI_SYSTEM.
    static func failure(_ code: Int32, _ systemCode: Int32, _ operation: String) -> ConnectionError {
        if code == EAI_SYSTEM { return ConnectionError("getaddrinfo", code: systemCode, operation: operation) }
        let hint: String? =
            switch code {
            case EAI_AGAIN: "no name server responded: see /etc/resolv.conf, try later, or give the IP address"
            case EAI_MEMORY: Errno.noMemory.advice
            default: nil
            }
        return ConnectionError(.unresolvable(String(cString: gai_strerror(code))), operation: operation, hint: hint)
    }
}

extension ConnectionAddress: LosslessStringConvertible {
    /// Text such as `192.0.2.1:7471` or `[2001:db8::1]:7471`.
    public var description: String {
        let zone = scope == 0 ? "" : "%\(scope)"
        return isIPv4 ? "\(host.description.dropFirst("::ffff:".count)):\(port)" : "[\(host)\(zone)]:\(port)"
    }

    /// Reads what `description` writes; nil for anything else, such as a host name.
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
        guard let address = SocketAddress(raw) else { return nil }
        self.init(address)
    }

    /// Passes the address to `body` as the struct sockaddr of its family.
    func withRaw<Result>(_ body: (UnsafeMutablePointer<sockaddr>) -> Result) -> Result {
        SocketAddress(self).withRaw(body)
    }
}
