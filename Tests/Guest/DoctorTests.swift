import Foundation
import Testing
import ToolSupport

extension Guest {
    @Suite("verbs doctor names every fault that is made, and the cure")
    struct DoctorTests {
        /// A fault, and what the doctor must say of it.
        private struct Fault {
            var make: String
            var undo = "true"
            /// What goes before the program, such as another user.
            var prefix = ""
            var check: String
            var found: String
            var remedy: String
        }

        private static let asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"

        /// On rxe0 over veth0, one after the other.
        private static let faults = [
            Fault(
                make: "chmod 600 /dev/infiniband/uverbs0", undo: "chmod 666 /dev/infiniband/uverbs0", prefix: asNobody,
                check: "permissions", found: "/dev/infiniband/uverbs0 cannot be opened", remedy: "usermod -aG rdma"),
            Fault(
                make: "true", prefix: "ulimit -l 64; \(asNobody)", check: "memory", found: "at most 64 KiB of memory",
                remedy: "memlock unlimited"),
            Fault(
                make: "mv /dev/infiniband/uverbs0 /dev/infiniband/away",
                undo: "mv /dev/infiniband/away /dev/infiniband/uverbs0", check: "permissions",
                found: "/dev/infiniband/uverbs0 is missing", remedy: "start udev"),
            Fault(
                make: "mv /dev/infiniband/rdma_cm /dev/infiniband/away",
                undo: "mv /dev/infiniband/away /dev/infiniband/rdma_cm", check: "connections",
                found: "/dev/infiniband/rdma_cm is missing", remedy: "modprobe rdma_ucm"),
            Fault(
                make: "mount -t tmpfs none /etc/libibverbs.d", undo: "umount /etc/libibverbs.d", check: "libraries",
                found: "the distribution's providers are not installed", remedy: "apt install ibverbs-providers"),
            Fault(
                make: """
                    mkdir -p /dev/shm/drivers
                    printf 'driver rxe\\nlibrary /dev/shm/drivers/rxe.so\\n' >/dev/shm/drivers/rxe.driver
                    echo 'no library' >/dev/shm/drivers/rxe.so
                    """,
                undo: "rm -r /dev/shm/drivers", prefix: "RDMA_DRIVER_PATH=/dev/shm/drivers", check: "files",
                found: "/dev/shm/drivers/rxe.driver is passed over", remedy: "ask its vendor"),
            Fault(
                make: "chmod 600 /dev/infiniband/rdma_cm", undo: "chmod 666 /dev/infiniband/rdma_cm", prefix: asNobody,
                check: "connections", found: "/dev/infiniband/rdma_cm cannot be opened", remedy: "usermod -aG rdma"),
            Fault(
                make: "mkdir /dev/shm/drivers; printf 'driver x\\nlib x.so\\n' >/dev/shm/drivers/x.driver",
                undo: "rm -r /dev/shm/drivers", prefix: "RDMA_DRIVER_PATH=/dev/shm/drivers", check: "files",
                found: "/dev/shm/drivers/x.driver:2: unknown keyword `lib`", remedy: "the keywords are driver"),
            Fault(
                make: "true", prefix: "RDMA_PROVIDER=nosuch", check: "settings",
                found: "RDMA_PROVIDER=nosuch decides over providers", remedy: "unset RDMA_PROVIDER"),
            Fault(
                make: "true", prefix: "RDMA_PROVIDER=nosuch", check: "providers",
                found: "rxe0 has no provider: RDMA_PROVIDER asks for nosuch", remedy: "there are: "),
            Fault(
                make: "true", check: "port", found: "the kernel module rdma_rxe holds UDP port 4791",
                remedy: "modprobe -r rdma_rxe"),
            Fault(
                make: "true", check: "mtu", found: "port 1 of rxe0 sends 1024 bytes in a packet, of 4096",
                remedy: "ip link set veth0 mtu 4200"),
            Fault(
                make:
                    "ip address flush dev veth0; while cat /sys/class/infiniband/rxe0/ports/1/gids/* | grep -q ffff:; do sleep 0.1; done",
                undo: "ip address add 10.9.0.1/24 dev veth0", check: "addresses",
                found: "port 1 of rxe0 has only link-local GIDs", remedy: "ip address add ADDRESS/PREFIX dev veth0"),
            Fault(
                make: "ip link set veth0 mtu 300", undo: "ip link set veth0 mtu 1500", check: "mtu",
                found: "veth0 has an MTU of 300 bytes", remedy: "ip link set veth0 mtu 1500"),
            Fault(
                make: "ip link set veth0 down", undo: "ip link set veth0 up", check: "devices",
                found: "no port of rxe0 is up: port 1 is DOWN", remedy: "ip link set veth0 up"),
        ]

        /// The findings that are not in order.
        private func findings(_ prefix: String = "") async throws -> [[String: String]] {
            let text = try await Bench.shell("\(prefix) '\(Tool.path)' doctor --json || [ $? -eq 8 ]")
            let document = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
            let findings = try #require(document?["findings"] as? [[String: String]], "\(text)")
            return findings.filter { $0["status"] != "ok" }
        }

        private func names(_ fault: Fault, _ findings: [[String: String]]) -> Bool {
            findings.contains {
                $0["check"] == fault.check && $0["found"]?.contains(fault.found) == true
                    && $0["remedy"]?.contains(fault.remedy) == true
            }
        }

        @Test("faults of device, nodes, interface, libraries, driver files and limits; none is named without it")
        func faults() async throws {
            try await Bench.run(alone: true) { _ in
                let healthy = try await findings()
                for fault in Self.faults where fault.make != "true" {
                    #expect(!names(fault, healthy), "\(fault.found)")
                }
                for fault in Self.faults {
                    try await Bench.shell(fault.make)
                    let findings = try await findings(fault.prefix)
                    #expect(names(fault, findings), "\(fault.found): \(findings)")
                    try await Bench.shell(fault.undo)
                }
            }
        }

        @Test("devices that belong to one network namespace each")
        func exclusive() async throws {
            let fault = Fault(
                make: "rdma system set netns exclusive", undo: "rdma system set netns shared", check: "kernel",
                found: "each RDMA device is in one network namespace only", remedy: "rdma dev set DEVICE netns")
            // The kernel does that where there is one network namespace.
            try await Bench.removeKept()
            #expect(try await !names(fault, findings()))
            try await Bench.shell(fault.make)
            #expect(try await names(fault, findings()))
            try await Bench.shell(fault.undo)
        }
    }
}
