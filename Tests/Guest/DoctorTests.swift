import Foundation
import Testing
import ToolSupport

extension Guest {
    @Suite("verbs doctor reports each injected fault and its remedy")
    struct DoctorTests {
        /// A fault, and the finding that `verbs doctor` must report for it.
        private struct Fault {
            var make: String
            var undo = "true"
            /// Shell text before the program, such as a command that changes the user.
            var prefix = ""
            var check: String
            var message: String
            var hint: String
        }

        private static let asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"

        /// Faults of rxe0 over veth0, injected one after the other.
        private static let faults = [
            Fault(
                make: "chmod 600 /dev/infiniband/uverbs0", undo: "chmod 666 /dev/infiniband/uverbs0", prefix: asNobody,
                check: "permissions", message: "/dev/infiniband/uverbs0 cannot be opened", hint: "usermod -aG rdma"),
            Fault(
                make: "true", prefix: "ulimit -l 64; \(asNobody)", check: "memory", message: "at most 64 KiB of memory",
                hint: "memlock unlimited"),
            Fault(
                make: "mv /dev/infiniband/uverbs0 /dev/infiniband/away",
                undo: "mv /dev/infiniband/away /dev/infiniband/uverbs0", check: "permissions",
                message: "/dev/infiniband/uverbs0 is missing", hint: "start udev"),
            Fault(
                make: "mv /dev/infiniband/rdma_cm /dev/infiniband/away",
                undo: "mv /dev/infiniband/away /dev/infiniband/rdma_cm", check: "connections",
                message: "/dev/infiniband/rdma_cm is missing", hint: "modprobe rdma_ucm"),
            Fault(
                make: "mount -t tmpfs none /etc/libibverbs.d", undo: "umount /etc/libibverbs.d", check: "libraries",
                message: "the distribution's providers are not installed", hint: "apt install ibverbs-providers"),
            Fault(
                make: """
                    mkdir -p /dev/shm/drivers
                    printf 'driver rxe\\nlibrary /dev/shm/drivers/rxe.so\\n' >/dev/shm/drivers/rxe.driver
                    echo 'no library' >/dev/shm/drivers/rxe.so
                    """,
                undo: "rm -r /dev/shm/drivers", prefix: "RDMA_DRIVER_PATH=/dev/shm/drivers", check: "files",
                message: "/dev/shm/drivers/rxe.driver is skipped", hint: "ask its vendor"),
            Fault(
                make: "chmod 600 /dev/infiniband/rdma_cm", undo: "chmod 666 /dev/infiniband/rdma_cm", prefix: asNobody,
                check: "connections", message: "/dev/infiniband/rdma_cm cannot be opened", hint: "usermod -aG rdma"),
            Fault(
                make: "mkdir /dev/shm/drivers; printf 'driver x\\nlib x.so\\n' >/dev/shm/drivers/x.driver",
                undo: "rm -r /dev/shm/drivers", prefix: "RDMA_DRIVER_PATH=/dev/shm/drivers", check: "files",
                message: "/dev/shm/drivers/x.driver:2: unknown keyword `lib`", hint: "the keywords are driver"),
            Fault(
                make: "true", prefix: "RDMA_PROVIDER=nosuch", check: "settings",
                message: "RDMA_PROVIDER=nosuch affects the choice of providers", hint: "unset RDMA_PROVIDER"),
            Fault(
                make: "true", prefix: "RDMA_PROVIDER=nosuch", check: "providers",
                message: "rxe0 has no provider: RDMA_PROVIDER names nosuch", hint: "there are: "),
            Fault(
                make: "true", check: "port", message: "the kernel module rdma_rxe holds UDP port 4791",
                hint: "modprobe -r rdma_rxe"),
            Fault(
                make: "true", check: "mtu",
                message: "port 1 of rxe0 has an active MTU of 1024 bytes; its maximum is 4096",
                hint: "ip link set veth0 mtu 4200"),
            Fault(
                make: """
                    ip address flush dev veth0
                    while cat /sys/class/infiniband/rxe0/ports/1/gids/* | grep -q ffff:; do sleep 0.1; done
                    """,
                undo: "ip address add 10.9.0.1/24 dev veth0", check: "addresses",
                message: "port 1 of rxe0 has only link-local GIDs", hint: "ip address add ADDRESS/PREFIX dev veth0"),
            Fault(
                make: "ip link set veth0 mtu 300", undo: "ip link set veth0 mtu 1500", check: "mtu",
                message: "veth0 has an MTU of 300 bytes", hint: "ip link set veth0 mtu 1500"),
            Fault(
                make: "ip link set veth0 down", undo: "ip link set veth0 up", check: "devices",
                message: "no port of rxe0 is active: port 1 is DOWN", hint: "ip link set veth0 up"),
        ]

        /// The findings whose status is not "ok".
        private func findings(_ prefix: String = "") async throws -> [[String: String]] {
            let text = try await Bench.shell("\(prefix) '\(Tool.path)' doctor --json || [ $? -eq 8 ]")
            let document = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
            let findings = try #require(document?["findings"] as? [[String: String]], "\(text)")
            return findings.filter { $0["status"] != "ok" }
        }

        private func reports(_ fault: Fault, _ findings: [[String: String]]) -> Bool {
            findings.contains {
                $0["check"] == fault.check && $0["message"]?.contains(fault.message) == true
                    && $0["hint"]?.contains(fault.hint) == true
            }
        }

        @Test("faults of device, nodes, interface, libraries, driver files and limits are reported only when present")
        func faults() async throws {
            try await Bench.run(alone: true) { _ in
                let healthy = try await findings()
                for fault in Self.faults where fault.make != "true" {
                    #expect(!reports(fault, healthy), "\(fault.message)")
                }
                for fault in Self.faults {
                    try await Bench.shell(fault.make)
                    let findings = try await findings(fault.prefix)
                    #expect(reports(fault, findings), "\(fault.message): \(findings)")
                    try await Bench.shell(fault.undo)
                }
            }
        }

        @Test("RDMA devices that are visible in one network namespace only are reported")
        func exclusive() async throws {
            let fault = Fault(
                make: "rdma system set netns exclusive", undo: "rdma system set netns shared", check: "kernel",
                message: "each RDMA device is visible in one network namespace only", hint: "rdma dev set DEVICE netns")
            // The kernel allows the exclusive mode only while there is a single network namespace.
            try await Bench.removeKept()
            try await IwarpBench.removeKept()
            #expect(try await !reports(fault, findings()))
            try await Bench.shell(fault.make)
            #expect(try await reports(fault, findings()))
            try await Bench.shell(fault.undo)
        }
    }
}
