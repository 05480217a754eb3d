import CLinux
import CMProtocol
import Glibc
import SystemPackage

/// The way to an address, as the routing tables say.
package struct AddressRoute: Hashable, Sendable {
    /// The address of this side; its port has no meaning.
    package let local: SocketAddress
    /// Index of the network interface that has `local`; 0 where none is known.
    package let interfaceIndex: UInt32

    /// Looks the route up; no packet is sent.
    ///
    /// - Throws: The errno value of socket(2), bind(2) or connect(2), such as `ENETUNREACH`.
    package init(to peer: SocketAddress, from source: SocketAddress?) throws(Errno) {
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = Glibc.socket(peer.isIPv4 ? AF_INET : AF_INET6, kind, 0)
        guard socket >= 0 else { throw Errno(rawValue: errno) }
        defer { close(socket) }
        if var source, !source.isAny {
            source.port = 0
            let bound = source.withRaw { Glibc.bind(socket, $0, socklen_t(source.byteCount)) }
            guard bound == 0 else { throw Errno(rawValue: errno) }
        }
        var peer = peer
        // connect(2) accepts any port but 0.
        peer.port = 4791
        let connected = peer.withRaw { Glibc.connect(socket, $0, socklen_t(peer.byteCount)) }
        guard connected == 0 else { throw Errno(rawValue: errno) }
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(socket, $0, &length) }
        }
        guard result == 0 else { throw Errno(rawValue: errno) }
        guard let local = withUnsafeBytes(of: storage, { SocketAddress($0) }) else {
            throw .addressFamilyNotSupported
        }
        self.local = local
        interfaceIndex = local.scope != 0 ? local.scope : Self.interface(having: local.host)
    }

    /// Index of the interface that has that address; 0 when no interface has it.
    package static func interface(having gid: PortGID) -> UInt32 { linux_interface_having(gid.bytes) }
}
