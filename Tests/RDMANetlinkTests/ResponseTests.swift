import Glibc
import Testing

@testable import RDMANetlink

@Suite("Responses of Linux 6.1 are decoded to the values that rdma(8) shows")
struct ResponseTests {
    @Test("devices")
    func devices() throws {
        let response = Captured.response(to: "devices") { payload throws(MalformedMessage) in
            [try RDMADevice(payload)]
        }
        #expect(response.end == .complete)
        let device = try #require(response.values.first)
        #expect(response.values.count == 1)
        #expect(device.index == 0 && device.name == "rxe0" && device.portCount == 1 && device.nodeType == 1)
        #expect(device.nodeGUID == 0x84e7_c2ff_fe14_6882 && device.systemImageGUID == device.nodeGUID)
        #expect(device.protocolName == "roce" && device.hasAdaptiveModeration == false && device.firmware == nil)
    }

    @Test("links, with their network interfaces")
    func links() throws {
        let response = Captured.response(to: "links") { payload throws(MalformedMessage) in [try RDMALink(payload)] }
        let link = try #require(response.values.first)
        #expect(response.values.count == 1 && link.deviceName == "rxe0" && link.port == 1)
        #expect(link.state == .active && link.physicalState?.name == "LINK_UP")
        #expect(link.interfaceName == "veth0" && link.interfaceIndex == 3 && link.lid == nil)
    }

    @Test("system settings, with an attribute that rdma_netlink.h does not define")
    func system() throws {
        let response = Captured.response(to: "system", isDump: false) { payload throws(MalformedMessage) in
            [try RDMASystem(payload)]
        }
        let system = try #require(response.values.first)
        #expect(system.sharesDevices == true && system.copiesOnFork == true && !system.tellsEvents)
    }

    @Test("character devices; uverbs has the driver ID")
    func nodes() throws {
        func node(_ name: String) -> Response<CharacterDevice> {
            Captured.response(to: name, isDump: false) { payload throws(MalformedMessage) in
                [try CharacterDevice(payload)]
            }
        }
        let verbs = try #require(node("node-verbs").values.first)
        #expect(verbs.name == "uverbs0" && verbs.abi == 2 && verbs.driverID == 14 && verbs.number == 0xe7c0)
        let manager = try #require(node("node-connection-manager").values.first)
        #expect(manager.name == "rdma_cm" && manager.abi == 4 && manager.driverID == nil)
        #expect(node("node-unknown").end == .refused(EOPNOTSUPP))
    }

    @Test("error responses to a single request and to a dump")
    func refusals() {
        #expect(read("no-such-device", QueuePairResource.self, isDump: false).end == .refused(EINVAL))
        #expect(read("refused-dump", QueuePairResource.self).end == .refused(EINVAL))
    }

    @Test("resources and their owners")
    func resources() throws {
        let pairs = read("queue-pairs", QueuePairResource.self).values
        #expect(pairs.count == 18 && pairs.count { $0.owner == .process(134) } == 16)
        #expect(pairs.last?.owner == .kernel("ib_core") && pairs.last?.type?.name == "GSI")
        #expect(pairs.first?.number == 17 && pairs.first?.state?.name == "INIT" && pairs.first?.protectionDomain == 1)
        let queues = read("completion-queues", CompletionQueueResource.self).values
        #expect(queues.map(\.users) == [2, 32, 2] && queues[1].owner == .process(134) && queues[1].context == 0)
        let regions = read("memory-regions", MemoryRegionResource.self).values
        #expect(regions.map(\.length) == [4096, 4096] && regions.map(\.lkey) == [0x3f7, 0x2d6])
        #expect(regions.map(\.owner) == [.process(133), .process(134)])
        let domains = read("protection-domains", ProtectionDomainResource.self).values
        #expect(domains.map(\.users).prefix(2) == [1, 18] && domains.count == 4)
        let connection = try #require(read("connections", ConnectionResource.self).values.first)
        #expect(connection.state == .listening && connection.portSpace == 0x106 && connection.owner == .process(135))
        #expect(connection.source == "10.9.0.1:9999" && connection.destination == "0.0.0.0:0")
        #expect(read("contexts", ContextResource.self).values.compactMap(\.owner).count == 3)
        #expect(read("shared-receive-queues", SharedReceiveQueueResource.self).values.map(\.owner) == [.process(134)])
    }

    @Test("counters")
    func counters() throws {
        let response = Captured.response(to: "counters", isDump: false) { payload throws(MalformedMessage) in
            [try HardwareCounter.all(payload)]
        }
        let counters = try #require(response.values.first)
        #expect(counters.count == 15 && counters.prefix(2).map(\.name) == ["sent_pkts", "rcvd_pkts"])
    }

    private func read<R: Resource>(_ name: String, _: R.Type, isDump: Bool = true) -> Response<R> {
        Captured.response(to: name, isDump: isDump) { payload throws(MalformedMessage) in try R.all(payload) }
    }
}
