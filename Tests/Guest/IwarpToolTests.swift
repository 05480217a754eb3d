import Foundation
import Testing
import ToolSupport

extension Guest {
    @Suite("verbs over the kernel's iWARP (siw)")
    struct IwarpToolTests {
        @Test("devices, info, providers and doctor describe an iWARP device without terms of RoCE")
        func shown() async throws {
            try await IwarpBench.run {
                let devices = try await Tool.run("devices").output
                #expect(devices.contains(/siw0 +libibverbs +kernel +siw +iWARP +RNIC .* veth1/), "\(devices)")
                let info = try await Tool.run("info", "siw0")
                #expect(info.status == 0 && info.output.contains(/transport: +iWARP, RNIC/), "\(info)")
                #expect(info.output.contains(/GID 0: +200:0:1001::  iWARP/), "\(info.output)")
                #expect(!info.output.contains("RoCE") && !info.output.contains("recommended"), "\(info.output)")
                let document = try await Tool.run("info", "siw0", "--json").document()
                #expect(try SchemaValidator(named: "info").faults(document) == [])
                let providers = try await Tool.run("providers", "siw0").output
                #expect(providers.contains(/chosen +libibverbs/), "\(providers)")

                let healthy = try await Tool.run("doctor")
                #expect(!healthy.output.contains("addresses") && !healthy.output.contains("mtu"), "\(healthy.output)")
                try await Bench.shell("ip address flush dev veth1")
                let faulty = try await Tool.run("doctor").output
                #expect(faulty.contains("veth1, the interface of siw0, has no routable IP address"), "\(faulty)")
                try await Bench.shell(IwarpBench.addressing)
            }
        }

        @Test("top counts the objects of a process on an iWARP device; watch reports the port")
        func watched() async throws {
            try await IwarpBench.run {
                let process = try await Bench.shell("ibv_rc_pingpong -d siw0 -g 0 -p 18604 >/dev/null 2>&1 & echo $!")
                    .filter(\.isNumber)
                try await soon("rdma resource show qp | grep -q 'pid \(process) '")
                let outcome = try await Tool.run("top", "--json", "--interval", "100ms")
                let top = try outcome.document()
                #expect(try SchemaValidator(named: "top").faults(top) == [])
                let holders = try #require(top["holders"] as? [[String: Any]])
                let holder = try #require(
                    holders.first { $0["process"] as? Int == Int(process) && $0["device"] as? String == "siw0" })
                #expect(holder["queuePairs"] as? Int == 1 && holder["completionQueues"] as? Int == 1)
                try await Bench.shell("kill \(process)")
                try await soon("! rdma resource show ctx | grep -q 'pid \(process) '")

                let watch = try await Tool.run("watch", "--json", "--interval", "200ms") { running in
                    try await soon("rdma resource show ctx | grep -q 'pid \(running.process) '")
                    try await Bench.shell("ip link set veth1 down; sleep 1; ip link set veth1 up; sleep 1")
                    running.send(signal: 2)
                }
                #expect(watch.status == 130, "\(watch.errors)")
                #expect(watch.output.contains("PORT_ERR") && watch.output.contains("PORT_ACTIVE"), "\(watch.output)")
                try await Bench.shell(IwarpBench.addressing)
            }
        }
    }
}
