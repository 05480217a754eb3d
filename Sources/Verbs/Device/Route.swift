import CLinux
import Glibc
import SystemPackage

/// The two ends of a TCP connection, as GIDs.
package struct Route: Hashable, Sendable {
    /// The address of this side.
    package let local: GID
    /// The address of the peer, as this side sees it.
    package let remote: GID
    /// Index of the network interface that has `local`; 0 where none is known.
    package let interfaceIndex: UInt32

    /// Whether both ends are on this host, so that packets do not leave it.
    package var isWithinHost: Bool { local.isLoopback || remote.isLoopback || local == remote }

    /// The route of a connected socket; nil where its ends are not IP addresses, such as those of a socket pair.
    ///
    /// - Throws: The errno of getsockname(2) or getpeername(2), such as `ENOTCONN` once the peer has disconnected.
    package init?(of socket: FileDescriptor) throws(Errno) {
        let (local, remote) = (try Self.address(socket, getsockname), try Self.address(socket, getpeername))
        guard let localGID = Self.gid(local), let remoteGID = Self.gid(remote) else { return nil }
        self.local = localGID
        self.remote = remoteGID
        let scope = Self.scope(local)
        interfaceIndex = scope != 0 ? scope : Self.interface(having: localGID)
    }

    private static func address(
        _ socket: FileDescriptor,
        _ call: (CInt, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> CInt
    ) throws(Errno) -> sockaddr_storage {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { call(socket.rawValue, $0, &length) }
        }
        guard result == 0 else { throw Errno(rawValue: Glibc.errno) }
        return storage
    }

    private static func gid(_ address: sockaddr_storage) -> GID? {
        withUnsafeBytes(of: address) { bytes in
            switch CInt(address.ss_family) {
            case AF_INET: GID(ipv4: bytes[4], bytes[5], bytes[6], bytes[7])
            case AF_INET6: GID(bytes: bytes[8..<24])
            default: nil
            }
        }
    }

    /// Index of the interface on whose link a link-local address holds (`sin6_scope_id`); 0 for any other address.
    private static func scope(_ address: sockaddr_storage) -> UInt32 {
        guard CInt(address.ss_family) == AF_INET6 else { return 0 }
        return withUnsafeBytes(of: address) { $0.loadUnaligned(fromByteOffset: 24, as: UInt32.self) }
    }

    /// Index of the interface that has that address; 0 when no interface has it.
    package static func interface(having gid: GID) -> UInt32 {
        linux_interface_having(gid.bytes)
    }
}
