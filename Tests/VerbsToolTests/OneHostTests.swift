import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

/// Processes of one host, with different shared memory, limits and sandboxes.
@Suite(
    "Two processes of one host", .serialized,
    .enabled(if: NetworkNamespace.isPossible, "only root can make network and mount namespaces"))
struct OneHostTests {
    /// Runs a server and a client on `host`, each with its launcher, and returns their outcomes. Each is killed after ten
    /// minutes.
    private func ping(
        on host: NetworkNamespace, server: [String] = [], client: [String] = [], timeout: String = "30s"
    ) async throws -> (server: Tool.Outcome, client: Tool.Outcome) {
        let bound = ["timeout", "--signal=KILL", "600"]
        var pinged: Tool.Outcome?
        let served = try await Tool.run(
            "ping", "--listen", "--port", "0", "--timeout", timeout, on: host, by: bound + server
        ) { running in
            pinged = try await Tool.run(
                "ping", "127.0.0.1", "--port", try await running.port(), "--timeout", timeout, "--count", "200",
                "--verify", on: host, by: bound + client)
            // If the client failed before it connected, the server would wait forever.
            if let status = pinged?.status, status != 0, status != ToolExit.peerLost.rawValue {
                running.pressControlC()
            }
        }
        return (served, try #require(pinged))
    }

    /// Runs a client and a server, and expects both to succeed.
    private func expectSuccess(
        on host: NetworkNamespace, server: [String] = [], client: [String] = [], _ description: String
    ) async throws {
        let (served, pinged) = try await ping(on: host, server: server, client: client)
        let place = Comment("\(description): \(served) \(pinged)")
        #expect(served.status == 0 && pinged.status == 0, place)
        #expect((pinged.output + pinged.errors).contains("every byte correct"), place)
    }

    // MARK: /dev/shm

    /// Variants of /dev/shm, as shell commands that run in a private mount namespace.
    private static let sharedMemories = [
        "absent": """
        mount -t tmpfs tmpfs /mnt; touch /mnt/null; mount --bind /dev/null /mnt/null; mount --move /mnt /dev
        test ! -e /dev/shm
        """,
        "read-only": "mount -t tmpfs -o ro tmpfs /dev/shm",
        "full": "mount -t tmpfs -o size=64k tmpfs /dev/shm; ! cat /dev/zero >/dev/shm/all 2>/dev/null",
        "64 KiB": "mount -t tmpfs -o size=64k tmpfs /dev/shm",
        "another user's": """
        mount -t tmpfs tmpfs /dev/shm; d=/dev/shm/swift-rdma-0-$(stat -Lc %i /proc/self/ns/net)
        mkdir -m 755 $d; chown 65534 $d
        """,
    ]

    private func withSharedMemory(_ lines: String) -> [String] {
        ["unshare", "--mount", "sh", "-c", "set -e\n\(lines)\nexec \"$0\" \"$@\""]
    }

    @Test(
        "ping works with any /dev/shm, also if the peers have different ones", arguments: sharedMemories.keys.sorted())
    func sharedMemory(kind: String) async throws {
        let launcher = withSharedMemory(try #require(Self.sharedMemories[kind]))
        try await NetworkNamespace.withOne { host in
            try await expectSuccess(on: host, server: launcher, client: launcher, kind)
            try await expectSuccess(on: host, server: launcher, kind)
        }
    }

    // MARK: Limits

    /// A launcher that limits the file size of a program. The output goes through pipes, because the limit would apply
    /// to redirected output too.
    private func withFileSize(_ limit: Int) -> [String] {
        [
            "bash", "-c",
            "set -o pipefail; { prlimit --fsize=\(limit) \"$0\" \"$@\" 2>&1 >&3 | cat >&2; } 3>&1 | cat",
        ]
    }

    @Test("ping works with a file size limit", arguments: [0, 65536])
    func fileSize(limit: Int) async throws {
        try await NetworkNamespace.withOne { host in
            let limited = withFileSize(limit)
            try await expectSuccess(on: host, server: limited, client: limited, "both")
            try await expectSuccess(on: host, client: limited, "the client")
            try await expectSuccess(on: host, server: limited, "the server")
        }
    }

    private static let refuseCalls = Tool.built("refuse-calls")

    /// Failures of creating, sealing and mapping a packet ring; the second argument of mmap(2) is the length of a ring.
    @Test(
        "ping works without shared memory on either side or both: packets use the fallback",
        arguments: [
            ["1", "memfd_create"], ["38", "memfd_create"], ["12", "memfd_create"], ["28", "fallocate"],
            ["12", "mmap:1=528384"],
        ])
    func noSharedMemory(refusal: [String]) async throws {
        let launcher = [Self.refuseCalls] + refusal + ["--"]
        try await NetworkNamespace.withOne { host in
            try await expectSuccess(on: host, server: launcher, client: launcher, "both, \(refusal)")
            try await expectSuccess(on: host, client: launcher, "the client, \(refusal)")
            try await expectSuccess(on: host, server: launcher, "the server, \(refusal)")
        }
    }

    @Test("With few file descriptors, ping works or reports EMFILE", arguments: 10...20)
    func descriptors(limit: Int) async throws {
        let launcher = ["prlimit", "--nofile=\(limit)"]
        try await NetworkNamespace.withOne { host in
            let (served, pinged) = try await ping(on: host, client: launcher, timeout: "10s")
            let place = Comment("\(served) \(pinged)")
            #expect(pinged.status == 0 || pinged.errors.contains("Too many open files"), place)
            #expect((pinged.status == 0) == (served.status == 0), place)
        }
    }

    @Test("AF_UNIX is forbidden: a client that fails reports the cause", arguments: ["97", "1"])
    func noLocalSockets(error: String) async throws {
        let launcher = [Self.refuseCalls, error, "socket:0=1", "--"]
        try await NetworkNamespace.withOne { host in
            let (served, pinged) = try await ping(on: host, client: launcher, timeout: "2s")
            let place = Comment("\(served) \(pinged)")
            #expect(pinged.status == 0 || pinged.errors.contains("no AF_UNIX socket can be made"), place)
            #expect(pinged.status == 0 || pinged.errors.contains(error == "1" ? "EPERM" : "EAFNOSUPPORT"), place)
            let doctor = try await Tool.run("doctor", on: host, by: launcher)
            #expect(doctor.output.contains("socket(2) of AF_UNIX"), "\(doctor)")
        }
    }

    // MARK: Slots

    /// Binds the socket names of this user's first `count` slots as another user while `body` runs.
    private func whileHoldingSlots(
        _ count: Int, on host: NetworkNamespace, _ body: () async throws -> Void
    ) async throws {
        let program = """
            import os, resource, socket, sys, time
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
            held = []
            for number in range(\(count)):
                held.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                held[-1].bind("\\0swift-rdma-soft-0-%d" % number)
                held[-1].listen(600)
            time.sleep(1200)
            """
        try await host.whileRunning(["python3", "-c", program]) {
            while try await slotsInUse(on: host) < count { try await Task.sleep(for: .milliseconds(10)) }
            try await body()
        }
    }

    /// The number of slots in use on a host.
    private func slotsInUse(on host: NetworkNamespace) async throws -> Int {
        let count = try await host.shell("grep -c ' 00010000 .*@swift-rdma-soft-' /proc/net/unix || true")
        return Int(count.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
    }

    @Test("Slots that another user holds are skipped; if all are held, the error and doctor report it")
    func foreignSlots() async throws {
        try await NetworkNamespace.withOne { host in
            try await whileHoldingSlots(254, on: host) {
                try await expectSuccess(on: host, "254 of 256 slots")
                let doctor = try await Tool.run("doctor", on: host)
                #expect(doctor.output.contains("another user holds 254 of this user's 256 slots"), "\(doctor)")
            }
            try await whileHoldingSlots(256, on: host) {
                let (_, pinged) = try await ping(on: host, timeout: "2s")
                #expect(pinged.status != 0 && pinged.errors.contains("all 256 slots of user 0 are taken"), "\(pinged)")
                let doctor = try await Tool.run("doctor", on: host)
                #expect(doctor.output.contains("all 256 slots of this user"), "\(doctor)")
                #expect(doctor.output.contains("another user holds 256"), "\(doctor)")
            }
        }
    }

    /// A launcher for another user that is root in its own user namespace: a rootless container on the host's network.
    private static let rootless = [
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "unshare", "--map-root-user",
    ]

    @Test("Root of a rootless container is another user: client and server report it")
    func rootless() async throws {
        // Skipped if the kernel does not allow such namespaces, or if that user cannot run the tool.
        guard try await Tool.run("providers", by: Self.rootless).status == 0 else { return }
        try await NetworkNamespace.withOne { host in
            let (served, pinged) = try await ping(on: host, server: Self.rootless, timeout: "2s")
            #expect(served.status != 0 && pinged.status != 0)
            #expect(pinged.errors.contains("another user holds it"), "\(pinged)")
            #expect(served.errors.contains("a process of another user connected to the slot"), "\(served)")
        }
    }

    // MARK: Resources of dead processes

    /// Pairs that run concurrently.
    private static let pairsAtOnce = 10

    @Test(
        "300 pairs are killed while they run, with an 8 MiB /dev/shm: they leave no resources, and ping works",
        .timeLimit(.minutes(3)))
    func killedPairs() async throws {
        // `ping` without a host is a pair: it starts the server. Each pair has its own process group.
        let script = """
            mount -t tmpfs -o size=8m tmpfs /dev/shm
            mount -t tmpfs tmpfs /mnt
            set -m
            for round in $(seq \(300 / Self.pairsAtOnce)); do
                groups=
                for pair in $(seq \(Self.pairsAtOnce)); do
                    timeout --foreground 100 "$0" ping --count 100000000 >/mnt/$pair 2>&1 </dev/null &
                    groups="$groups -$!"
                done
                # Wait until both peers of every pair have mapped shared memory, whichever mechanism provides it.
                tries=0
                until test $(grep -ls ' rw-s .*swift-rdma' /proc/[0-9]*/maps | wc -l) -eq \(2 * Self.pairsAtOnce); do
                    tries=$((tries + 1))
                    test $tries -lt 2000 || { echo "round $round:"; grep . /mnt/*; df /dev/shm; exit 3; } >&2
                    sleep 0.02
                done
                kill -KILL -- $groups
                wait 2>/dev/null || true
            done
            # The socket names disappear with the last thread of each process.
            tries=0
            while grep -q swift-rdma-soft /proc/net/unix; do
                tries=$((tries + 1)); test $tries -lt 500 || exit 4
                sleep 0.02
            done
            test -z "$(ls -A /dev/shm)"
            exec timeout 60 "$0" "$@"
            """
        // A PID namespace: when its first process ends, the kernel kills the others.
        let launcher = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-ec", script]
        try await NetworkNamespace.withOne { host in
            let outcome = try await Tool.run(
                "ping", "--verify", "--count", "100", on: host, by: launcher)
            #expect(outcome.status == 0 && outcome.output.contains("every byte correct"), "\(outcome)")
        }
    }
}
