import Glibc
import Rendezvous
import SystemPackage
import Testing
import Verbs

@Suite("The device with a route to the peer of a connected socket")
struct RouteTests {
    @Test("a loopback connection has local and remote addresses on this host")
    func loopback() throws {
        let listener = try RendezvousListener(port: 0)
        for (host, gid) in [("127.0.0.1", GID(ipv4: 127, 0, 0, 1)), ("[::1]", GID(prefix: 0, interfaceID: 1))] {
            let client = try Rendezvous.connect(to: host, port: listener.port)
            let server = try listener.accept(timeout: .seconds(300))
            for peer in [client, server] {
                let route = try #require(try Route(of: peer.fileDescriptor))
                #expect(route.local == gid && route.remote == gid && route.isWithinHost)
            }
            let context = try Device.openFirst(reaching: client.fileDescriptor)
            #expect(try context.firstActivePort() != nil)
        }
    }

    @Test("a socket pair has no IP addresses; a file and an unconnected socket are refused")
    func noAddresses() throws {
        var pair: [CInt] = [0, 0]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair) == 0)
        defer { for descriptor in pair { close(descriptor) } }
        #expect(try Route(of: FileDescriptor(rawValue: pair[0])) == nil)
        let file = try FileDescriptor.open("/dev/null", .readOnly)
        defer { try? file.close() }
        let unconnected = FileDescriptor(rawValue: socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0))
        defer { try? unconnected.close() }
        for (descriptor, errno) in [(file, Errno.notSocket), (unconnected, .socketNotConnected)] {
            let error = #expect(throws: VerbsError.self) { try Device.openFirst(reaching: descriptor) }
            #expect(error?.errno == errno && error?.hint != nil)
        }
    }
}
