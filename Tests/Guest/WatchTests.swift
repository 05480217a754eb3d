import Foundation
import Testing
import ToolSupport

extension Guest {
    @Suite("verbs watch and top")
    struct WatchTests {
        @Test("watch shows port down and up, an added and a removed device, and packet rates")
        func watch() async throws {
            try await Bench.run(alone: true) { _ in
                let outcome = try await Tool.run("watch", "--json", "--interval", "500ms") { running in
                    try await Bench.shell(
                        """
                        until rdma resource show ctx | grep -q 'pid \(running.process) '; do sleep 0.1; done
                        ip link set veth0 down; sleep 1; ip link set veth0 up
                        ip link add dummy1 type dummy; rdma link add rxe1 type rxe netdev dummy1
                        sleep 1; rdma link delete rxe1; ip link delete dummy1
                        ibv_rc_pingpong -d rxe0 -g 1 -p 18602 -n 50 >/dev/null &
                        until rdma resource show mr | grep -q pingpong; do sleep 0.1; done
                        ibv_rc_pingpong -d rxe0 -g 1 -p 18602 -n 50 10.9.0.1 >/dev/null; wait; sleep 2
                        """)
                    running.send(signal: 2)
                }
                #expect(outcome.status == 130, "\(outcome.errors)")
                let lines = try outcome.output.split(separator: "\n").map { line in
                    try #require(JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any], "\(line)")
                }
                let schema = try SchemaValidator(named: "watch")
                for line in lines { #expect(schema.faults(line) == []) }
                let events = lines.compactMap { line in
                    (line["event"] as? String).map { "\(line["device"] as? String ?? "-"): \($0)" }
                }
                for wanted in [
                    "rxe0: PORT_ERR", "rxe0: PORT_ACTIVE", "rxe0: interface veth0 down", "rxe0: interface veth0 up",
                    "rxe1: device added", "rxe1: device removed",
                ] {
                    #expect(events.contains(wanted), "\(wanted) is not in \(events)")
                }
                let sent = lines.compactMap { ($0["ratesPerSecond"] as? [String: Any])?["sent_pkts"] as? Double }
                #expect(sent.contains { $0 > 0 })
                #expect(lines.contains { ($0["ratesPerSecond"] as? [String: Any])?.isEmpty == true }, "idle ends")
            }
        }

        @Test("top shows resources per process; devices and info show interface, driver and recommended GID")
        func top() async throws {
            try await Bench.run { _ in
                let process = try await Bench.shell("ibv_rc_pingpong -d rxe0 -g 1 -p 18603 >/dev/null 2>&1 & echo $!")
                    .filter(\.isNumber)
                try await Bench.shell("until rdma resource show mr | grep -q 'pid \(process) '; do sleep 0.1; done")
                let top = try await Tool.run("top", "--json", "--interval", "100ms").document()
                #expect(try SchemaValidator(named: "top").faults(top) == [])
                let holders = try #require(top["holders"] as? [[String: Any]])
                let holder = try #require(holders.first { $0["process"] as? Int == Int(process) })
                #expect(holder["command"] as? String == "ibv_rc_pingpong" && holder["registeredBytes"] as? Int == 4096)
                for kind in ["queuePairs", "completionQueues", "memoryRegions", "protectionDomains"] {
                    #expect(holder[kind] as? Int == 1, "\(kind)")
                }
                #expect(holders.contains { $0["command"] as? String == "[ib_core]" && $0["process"] == nil })
                let port = try #require((top["ports"] as? [[String: Any]])?.first)
                #expect(port["interface"] as? String == "veth0" && port["state"] as? String == "ACTIVE")
                try await Bench.shell(
                    "kill \(process); while rdma resource show ctx | grep -q 'pid \(process) '; do sleep 0.1; done")

                let devices = try await Tool.run("devices").output
                #expect(devices.contains(/rxe0 .* rxe .* veth0/), "\(devices)")
                let info = try await Tool.run("info", "rxe0").output
                #expect(info.contains(/GID 1: +::ffff:10\.9\.0\.1  RoCE v2  veth0  recommended/), "\(info)")
                #expect(info.components(separatedBy: "recommended").count == 2, "\(info)")
            }
        }
    }
}
