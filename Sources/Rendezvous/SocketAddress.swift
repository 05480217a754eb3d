import Glibc
import SystemPackage

/// An IPv4 or IPv6 address with a port.
struct SocketAddress: CustomStringConvertible, Sendable {
    private var storage: sockaddr_storage

    init(_ storage: sockaddr_storage) { self.storage = storage }

    /// The addresses of a host, in the order of getaddrinfo(3); at least one. An IPv6 address may be in brackets, as in
    /// a URI, and may have a scope (`fe80::1%eth0`).
    static func resolve(host: String, port: UInt16) throws(RendezvousError.Reason) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_socktype = CInt(bitPattern: SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        let name = isBracketed ? String(host.dropFirst().dropLast()) : host
        let result = getaddrinfo(name, String(port), &hints, &list)
        let cause = Errno(rawValue: Glibc.errno)
        guard result == 0 else {
            throw result == EAI_SYSTEM ? .system(cause) : .unresolvable(String(cString: gai_strerror(result)))
        }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            var storage = sockaddr_storage()
            let length = Int(entry.pointee.ai_addrlen)
            if let address = entry.pointee.ai_addr, length <= MemoryLayout<sockaddr_storage>.size {
                withUnsafeMutableBytes(of: &storage) {
                    $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: length))
                }
                addresses.append(SocketAddress(storage))
            }
            next = entry.pointee.ai_next
        }
        guard !addresses.isEmpty else { throw .unresolvable("the host has no address") }
        return addresses
    }

    static func any4(port: UInt16) -> SocketAddress {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        return SocketAddress(copying: address)
    }

    /// The IPv6 wildcard address, which also accepts IPv4 peers if IPV6_V6ONLY is off.
    static func any6(port: UInt16) -> SocketAddress {
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        return SocketAddress(copying: address)
    }

    private init<Address>(copying address: Address) {
        storage = sockaddr_storage()
        withUnsafeMutableBytes(of: &storage) { storage in
            withUnsafeBytes(of: address) { storage.copyMemory(from: $0) }
        }
    }

    var family: CInt { CInt(storage.ss_family) }

    /// The port; sin_port and sin6_port have the same offset.
    var port: UInt16 {
        withUnsafeBytes(of: storage) { UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)) }
    }

    /// Whether this is the wildcard address.
    var isUnspecified: Bool {
        withUnsafeBytes(of: storage) { bytes in
            (family == AF_INET6 ? bytes[8..<24] : bytes[4..<8]).allSatisfy { $0 == 0 }
        }
    }

    private var length: socklen_t {
        socklen_t(family == AF_INET6 ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size)
    }

    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    var description: String {
        guard family == AF_INET || family == AF_INET6 else { return "a local process" }
        return "\(host) port \(port)"
    }

    /// The address alone, as text.
    var host: String {
        var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        let result = withSockaddr {
            getnameinfo($0, $1, &host, socklen_t(host.count), nil, 0, NI_NUMERICHOST)
        }
        let name = result == 0 ? String(decoding: host.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self) : "?"
        return name.hasPrefix("::ffff:") ? String(name.dropFirst(7)) : name
    }
}
