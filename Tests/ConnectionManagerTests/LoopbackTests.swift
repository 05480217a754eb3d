import CIBVerbs
import CMProtocol
import CRDMACM
import Glibc
import Testing

@testable import ConnectionManager
@testable import SoftwareConnections

extension ChannelTests {
    @Suite("Loopback addresses that no software device has", .enabled(if: kernelHasNoConnectionManager))
    struct LoopbackTests {
        /// A service whose only device is that of another interface than the loopback interface, as for a program under
        /// `verbs run --device soft_eth0`. It is soft0, whose addresses stand for those of that interface.
        private static let elsewhere = SoftwareService(
            SoftwareDevices(
                list: {
                    var devices = SoftwareService.shared.devices.list().listed.filter { $0.name == "soft0" }
                    for index in devices.indices { devices[index].interfaceIndex = 0x7FFF_FFFF }
                    return (devices, [])
                }, open: SoftwareService.shared.devices.open))

        private let channel = SoftwareChannel()!

        init() throws { try #require(Self.elsewhere.start() == 0 && SoftwareService.shared.start() == 0) }

        private func identifier(_ service: SoftwareService) -> SoftwareIdentifier {
            SoftwareIdentifier(service, channel: channel, portSpace: RDMA_PS_TCP, type: IBV_QPT_RC)
        }

        private func address(_ host: String, port: UInt16 = 0) throws -> SocketAddress {
            SocketAddress(ConnectionAddress(host: try #require(ConnectionAddress("\(host):0")).host, port: port))
        }

        private func nextEvent() throws -> SoftwareEvent {
            var entry = pollfd(fd: channel.descriptor, events: Int16(POLLIN), revents: 0)
            try #require(poll(&entry, 1, 300_000) == 1)
            return try #require(channel.pop())
        }

        /// Makes a listener, and resolves an address with its port. Returns what is known of the one that resolved it.
        private func resolve(
            _ service: SoftwareService, _ host: String, listener: String, connects: Bool = false
        ) throws -> SoftwareView {
            let (server, client) = (identifier(service), identifier(service))
            defer { for identifier in [client, server] { service.destroy(identifier) } }
            try #require(service.bind(server, address(listener)) == 0)
            let bound = try #require(service.view(of: server).local)
            #expect(bound.host == (try address(listener)).host && bound.port != 0)
            // It is taken at every address.
            #expect(service.bind(identifier(service), try address("127.0.0.9", port: bound.port)) == EADDRINUSE)
            try #require(service.listen(server, backlog: 1) == 0)
            try #require(service.resolveAddress(client, address(host, port: bound.port), from: nil) == 0)
            #expect(try nextEvent().type == RDMA_CM_EVENT_ADDR_RESOLVED)
            let view = service.view(of: client)
            guard connects else { return view }
            try #require(service.resolveRoute(client) == 0)
            #expect(try nextEvent().type == RDMA_CM_EVENT_ROUTE_RESOLVED)
            try #require(service.connect(client, rdma_conn_param(), []) == 0)
            let event = try nextEvent()
            #expect(event.type == RDMA_CM_EVENT_CONNECT_REQUEST && event.listener === server)
            channel.drain()
            return view
        }

        @Test(
            "rdma_bind_addr takes the port at every address; rdma_resolve_addr leads from a device to itself",
            arguments: ["127.0.0.1", "127.0.0.7", "[::1]"])
        func elsewhere(host: String) throws {
            // scripts/check-dropin connects two processes so: soft0 does not take messages at an address of another
            // interface.
            let view = try resolve(Self.elsewhere, host, listener: host)
            let own = try #require(view.local?.host)
            #expect(view.device != nil && view.peer?.host == own && own.isIPv4 == (host != "[::1]"))
        }

        @Test(
            "rdma_bind_addr of a loopback address binds to no device, and of any other address that no interface has it fails"
        )
        func binding() throws {
            let service = Self.elsewhere
            for host in ["127.0.0.1", "127.1.2.3", "[::1]"] {
                let identifier = identifier(service)
                #expect(service.bind(identifier, try address(host)) == 0)
                #expect(service.view(of: identifier).device == nil)
                service.destroy(identifier)
            }
            for host in ["192.0.2.1", "[2001:db8::1]"] {
                #expect(service.bind(identifier(service), try address(host)) == EADDRNOTAVAIL)
                #expect(SoftwareService.shared.bind(identifier(.shared), try address(host)) == EADDRNOTAVAIL)
            }
        }

        @Test("Where a device has one of them, it serves that address; the others stand for every address")
        func loopbackDevice() throws {
            let service = SoftwareService.shared
            let bound = identifier(service)
            defer { service.destroy(bound) }
            #expect(service.bind(bound, try address("127.0.0.1")) == 0)
            #expect(service.view(of: bound).device != nil)
            let view = try resolve(service, "127.0.0.7", listener: "127.0.0.8", connects: true)
            #expect(view.peer?.host == (try address("127.0.0.7")).host)
            #expect(view.local?.host == (try address("127.0.0.1")).host)
        }
    }
}
