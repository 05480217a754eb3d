import Foundation
import Glibc
import RDMANetlink
import Testing
import ToolSupport

extension Guest {
    /// Compares with the output of `rdma` of iproute2.
    @Suite("RDMANetlink and rdma(8) report the same")
    struct NetlinkTests {
        private typealias Object = [String: Any]

        /// The output of `rdma -j` with these arguments.
        private func rdma(_ arguments: String) async throws -> [Object] {
            let text = try await Bench.shell("rdma -d -j \(arguments)")
            return try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [Object], "\(text)")
        }

        @Test("devices, links with their interface, driver ID, ABI version and system settings match rdma(8)")
        func devices() async throws {
            try await Bench.run { _ in
                let kernel = try KernelRDMA()
                let device = try #require(try kernel.devices().first { $0.name == "rxe0" })
                let shown = try #require(try await rdma("dev show rxe0").first)
                #expect(shown["ifindex"] as? UInt32 == device.index && device.protocolName == "roce")
                #expect(device.portCount == 1 && device.nodeType == 1)
                let guid = try #require(device.nodeGUID)
                let digits = (shown["node_guid"] as? String)?.filter { $0 != ":" }
                #expect(digits.flatMap { UInt64($0, radix: 16) } == guid)

                let link = try #require(try kernel.links(of: device).first)
                let line = try #require(try await rdma("link show rxe0/1").first)
                #expect(line["netdev"] as? String == link.interfaceName && link.interfaceName == "veth0")
                #expect(line["netdev_index"] as? UInt32 == link.interfaceIndex)
                #expect(line["state"] as? String == link.state?.name && link.state == .active)
                #expect(line["physical_state"] as? String == link.physicalState?.name)

                let node = try kernel.characterDevice(.verbs, of: device)
                #expect(node.driverID == 14 && node.abi == 2)
                let sysfs = "/sys/class/infiniband_verbs/\(node.name)"
                #expect(try await Bench.shell("cat \(sysfs)/ibdev") == "rxe0\n")
                let manager = try kernel.characterDevice(.connectionManager)
                #expect(manager.name == "rdma_cm" && manager.driverID == nil)
                #expect(try await Bench.shell("rdma system").contains("netns shared") == kernel.system().sharesDevices)
            }
        }

        @Test("resources and their counts match rdma(8) while a process holds them, and disappear when it exits")
        func resources() async throws {
            try await Bench.run { _ in
                let process = try #require(
                    UInt32(try await start("ibv_rc_pingpong -d rxe0 -g 1 -p 18600", until: "resource show mr")))
                let listener = try #require(
                    UInt32(try await start("rping -s -a 10.9.0.1 -p 7500", until: "resource show cm_id")))
                let kernel = try KernelRDMA()
                let device = try #require(try kernel.devices().first { $0.name == "rxe0" })
                let owner = ResourceOwner.process(process)

                let pair = try #require(try kernel.queuePairs(of: device).first { $0.owner == owner })
                let pairs = try await rdma("resource show qp")
                let shown = try #require(pairs.first { $0["pid"] as? UInt32 == process })
                #expect(shown["lqpn"] as? UInt32 == pair.number && shown["type"] as? String == pair.type?.name)
                #expect(shown["state"] as? String == pair.state?.name)
                #expect(shown["pdn"] as? UInt32 == pair.protectionDomain)
                #expect(try kernel.queuePairs(of: device).count == pairs.count)
                #expect(try kernel.queuePairs(of: device).contains { $0.owner == .kernel("ib_core") })

                let region = try #require(try kernel.memoryRegions(of: device).first { $0.owner == owner })
                let regions = try await rdma("resource show mr")
                let line = try #require(regions.first { $0["pid"] as? UInt32 == process })
                #expect(line["mrlen"] as? UInt64 == region.length && region.length == 4096)
                #expect((line["lkey"] as? String).flatMap { UInt32($0, radix: 16) } == region.lkey)
                #expect(region.protectionDomain == pair.protectionDomain)
                #expect(try kernel.completionQueues(of: device).count { $0.owner == owner } == 1)
                #expect(try kernel.protectionDomains(of: device).count { $0.owner == owner } == 1)
                #expect(try kernel.contexts(of: device).count { $0.owner == owner } == 1)

                let connection = try #require(
                    try kernel.connections(of: device).first { $0.owner == .process(listener) })
                #expect(connection.state == .listening && connection.source == "10.9.0.1:7500")
                let counts = Dictionary(
                    uniqueKeysWithValues: try kernel.resourceCounts(of: device).map { ($0.kind, $0.count) })
                let summary = try #require(try await rdma("resource show rxe0").first)
                for (kind, count) in counts { #expect(summary[kind] as? UInt64 == count, "\(kind)") }
                #expect(counts["qp"] == UInt64(pairs.count))

                try await Bench.shell(
                    "kill \(process) \(listener); while rdma resource show ctx | grep -q ' pid '; do sleep 0.1; done"
                )
                #expect(try !kernel.queuePairs(of: device).contains { $0.owner == owner })
                #expect(try kernel.memoryRegions(of: device).isEmpty && kernel.contexts(of: device).isEmpty)
                #expect(try kernel.connections(of: device).isEmpty)
            }
        }

        @Test("hardware counters increase with traffic and match rdma(8)")
        func counters() async throws {
            try await Bench.run { _ in
                let kernel = try KernelRDMA()
                let device = try #require(try kernel.devices().first { $0.name == "rxe0" })
                let link = try #require(try kernel.links(of: device).first)
                func sent() throws -> UInt64? { try kernel.counters(of: link).first { $0.name == "sent_pkts" }?.value }
                let before = try #require(try sent())
                let server = try await start("ibv_rc_pingpong -d rxe0 -g 1 -p 18601 -n 20", until: "resource show mr")
                try await Bench.shell("ibv_rc_pingpong -d rxe0 -g 1 -p 18601 -n 20 10.9.0.1 >/dev/null")
                try await Bench.shell("while rdma resource show ctx | grep -q 'pid \(server) '; do sleep 0.1; done")
                #expect(try #require(try sent()) >= before + 80)
                let shown = try #require(try await rdma("statistic show link rxe0/1").first)
                for counter in try kernel.counters(of: link) {
                    #expect(shown[counter.name] as? UInt64 == counter.value, "\(counter.name)")
                }
            }
        }

        @Test("the error for a removed device contains its name")
        func removedDevice() async throws {
            try await Bench.run { _ in
                let kernel = try KernelRDMA()
                try await Bench.shell("ip link add dummy1 type dummy; rdma link add rxe1 type rxe netdev dummy1")
                let device = try #require(try kernel.devices().first { $0.name == "rxe1" })
                try await Bench.shell("rdma link delete rxe1; ip link delete dummy1")
                let error = #expect(throws: NetlinkError.self) { try kernel.characterDevice(.verbs, of: device) }
                #expect(error?.reason == .refused && error?.errno == EINVAL)
                #expect(error?.description.contains("rxe1") == true)
            }
        }

        @Test("the monitor reports link down and up, added, renamed and removed devices, and lost events")
        func monitor() async throws {
            try await Bench.run(alone: true) { _ in
                var monitor = try KernelMonitor()
                let index = if_nametoindex("veth0")
                try await Bench.shell(
                    """
                    ip link set veth0 down; ip link set veth0 up
                    ip link add dummy1 type dummy; rdma link add rxe1 type rxe netdev dummy1
                    rdma dev set rxe1 name other1; rdma link delete other1; ip link delete dummy1
                    """)
                try expect(
                    [
                        .interfaceDown(name: "veth0", index: index), .interfaceUp(name: "veth0", index: index),
                        .deviceAdded(name: "rxe1"), .deviceRenamed(name: "other1", from: "rxe1"),
                        .deviceRemoved(name: "other1"),
                    ], from: &monitor)
                // More events than the socket's buffer holds: the loss is reported, and later events still arrive.
                try await Bench.shell(
                    "i=0; while [ $i -lt 4000 ]; do echo change >/sys/class/net/lo/uevent; i=$((i + 1)); done")
                try expect([.lost], from: &monitor)
                try await Bench.shell("ip link set veth0 down")
                try expect([.interfaceDown(name: "veth0", index: index)], from: &monitor)
            }
        }

        /// Waits until all of `events` have been reported.
        private func expect(_ events: [KernelEvent], from monitor: inout KernelMonitor) throws {
            var missing = events
            while !missing.isEmpty {
                var waiting = monitor.descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
                try #require(poll(&waiting, nfds_t(waiting.count), 30_000) > 0, "missing: \(missing)")
                let found = try monitor.events()
                missing.removeAll { found.contains($0) }
            }
        }

        /// Starts a program that waits for a peer, and returns its process ID once `rdma` shows its resource.
        private func start(_ command: String, until resource: String) async throws -> String {
            let process = try await Bench.shell("\(command) >/dev/null 2>&1 & echo $!").filter(\.isNumber)
            try await Bench.shell("until rdma \(resource) | grep -q 'pid \(process) '; do sleep 0.1; done")
            return process
        }
    }
}
