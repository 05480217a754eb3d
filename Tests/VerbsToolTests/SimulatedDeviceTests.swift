import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs sim runs commands over the simulated device of Sources/Simulator", .serialized)
struct SimulatedDeviceTests {
    /// The library, in the build directory of the tests.
    private static let library =
        ProcessInfo.processInfo.environment["RDMA_TEST_SIMULATOR"]
        ?? URL(fileURLWithPath: Tool.path).deletingLastPathComponent().path + "/libuverbs-sim.so"

    /// Device types with their options.
    static let devices = [["hfi1"], ["mlx5"], ["mlx5", "roce"]]

    /// Whether the device has memory windows of type 2.
    static func hasWindows(_ device: [String]) -> Bool { device[0] == "mlx5" }

    /// The provider of the device: a shared library of this package with its driver file, or the vendor's C library.
    enum Provider: String, CaseIterable, Sendable {
        case native, libibverbs

        func environment() throws -> [String: String] {
            switch self {
            case .native: ["RDMA_DRIVER_PATH": try ProviderModules.directory()]
            case .libibverbs: ["RDMA_PROVIDER": "libibverbs"]
            }
        }

        /// The provider's name in the output of `verbs`.
        func name(of device: [String]) -> String { self == .native ? device[0] : "libibverbs" }
    }

    static func sim(
        _ device: [String], _ command: [String], by provider: Provider = .libibverbs
    ) async throws -> Tool.Outcome {
        try await Tool.run(
            ["sim", device[0]] + device.dropFirst().flatMap { ["--option", $0] } + ["--library", library, "--"]
                + command, environment: provider.environment())
    }

    private func sim(
        _ device: [String], _ command: [String], by provider: Provider = .libibverbs
    ) async throws -> Tool.Outcome {
        try await Self.sim(device, command, by: provider)
    }

    /// The simulated device has no ATOMIC WRITE.
    @Test(
        "perf checks all operations before the first measurement",
        arguments: [[], ["--processes", "2"], ["--in-process"]])
    func planned(options: [String]) async throws {
        let start = ContinuousClock.now
        let outcome = try await Self.sim(
            ["mlx5"],
            [
                Tool.path, "perf", "--device", "mlx5_0", "--operation", "send", "--operation", "atomic-write",
                "--size", "8", "--count", "0", "--duration", "30m",
            ] + options)
        #expect(outcome.status == ToolExit.unsupported.rawValue && outcome.output.isEmpty, "\(outcome)")
        #expect(
            outcome.errors.contains("mlx5_0 (provider libibverbs) does not support atomic-write\n"), "\(outcome.errors)"
        )
        // Less than the first row takes.
        #expect(ContinuousClock.now - start < .seconds(600))
    }

    /// This host has no RDMA netlink, or a kernel that copies registered memory: then nothing is marked.
    @Test(
        "pages of registered memory are kept from children of fork(2) if RDMAV_FORK_SAFE says so, as often as registered",
        arguments: [true, false])
    func forkSafety(isWanted: Bool) async throws {
        let environment = try Provider.native.environment().merging(isWanted ? ["RDMAV_FORK_SAFE": "1"] : [:]) { $1 }
        let outcome = try await Tool.run(
            ["sim", "mlx5", "--library", Self.library, "--", Tool.built("fork-peer"), "mlx5_0", "marks"],
            environment: environment)
        #expect(outcome.status == 0 && outcome.output.contains("provider=mlx5 "), "\(outcome.errors)\(outcome.output)")
        let none = Array(repeating: "inherited+inherited", count: 3).joined(separator: ",")
        if outcome.output.contains("fork=unneeded") {
            #expect(outcome.output.contains("marks=\(none) late=accepted"), "\(outcome.output)")
        } else if isWanted {
            let marks = "kept+kept,kept+inherited,inherited+inherited"
            #expect(outcome.output.contains("marks=\(marks) late=accepted fork=enabled"), "\(outcome.output)")
        } else {
            #expect(outcome.output.contains("marks=\(none) late=22 fork=disabled"), "\(outcome.output)")
        }
    }

    /// Checks a document of `verbs ping --all --verify --json`.
    private func check(
        _ document: [String: Any], of device: [String], client: String, server: String, count: Int
    ) throws {
        #expect(try SchemaValidator(named: "ping-all").faults(document) == [])
        let runs = try #require(document["runs"] as? [[String: Any]])
        let done = runs.map { "\($0["transport", in: "run"] ?? "") \($0["operation"] ?? "")" }
        let reliable = [
            "rc send", "rc send-imm", "rc write", "rc write-imm", "rc read", "rc fetch-add", "rc compare-swap",
        ]
        let unreliable = ["uc send", "uc send-imm", "uc write", "uc write-imm", "ud send", "ud send-imm"]
        #expect(done == reliable + (Self.hasWindows(device) ? ["rc window"] : []) + unreliable)
        for (run, name) in zip(runs, done) {
            #expect(run["provider", "client", in: "run"] == client && run["provider", "server", in: "run"] == server)
            let side = try #require(run["client"] as? [String: Any])
            #expect(side["sent"] as? Int == count && side["lost"] as? Int == 0, "\(name)")
            #expect(side["corrupted"] as? Int == 0 && side["verified"] as? Int == count, "\(name)")
        }
    }

    @Test(
        "verbs ping between two processes: every operation of every transport, with every byte verified",
        arguments: devices, Provider.allCases)
    func twoProcesses(device: [String], provider: Provider) async throws {
        let outcome = try await sim(
            device,
            [Tool.path, "ping", "--all", "--verify", "--size", "5000", "--count", "8", "--warm-up", "2", "--json"],
            by: provider)
        #expect(outcome.status == 0, "\(outcome.errors)")
        let name = provider.name(of: device)
        try check(outcome.document(), of: device, client: name, server: name, count: 10)
    }

    @Test(
        "verbs ping --rdma-cm connects through rdma_cm, between two processes and in one", arguments: devices,
        Provider.allCases)
    func connectionManager(device: [String], provider: Provider) async throws {
        for mode in [[], ["--in-process"]] {
            let outcome = try await sim(
                device,
                [Tool.path, "ping", "--rdma-cm", "--all", "--verify", "--count", "8", "--warm-up", "2", "--json"]
                    + mode,
                by: provider)
            #expect(outcome.status == 0, "\(outcome.errors)")
            let document = try outcome.document()
            #expect(try SchemaValidator(named: "ping-all").faults(document) == [])
            let runs = try #require(document["runs"] as? [[String: Any]])
            #expect(runs.count == (Self.hasWindows(device) ? 8 : 7))
            for run in runs {
                #expect(run["connectedBy", in: "run"] == "rdma_cm" && run["transport", in: "run"] == "rc")
                let side = try #require(run["client"] as? [String: Any])
                #expect(side["corrupted"] as? Int == 0 && side["verified"] as? Int == 10)
            }
        }
    }

    @Test(
        "T4, T5 and T6: verbs providers, info, and ping --verify, which rdma_cm connects without an option",
        arguments: [["cxgb4", "t4"], ["cxgb4"], ["cxgb4", "t6"]], Provider.allCases)
    func iWARP(device: [String], provider: Provider) async throws {
        for command in ["providers", "info"] {
            let outcome = try await sim(device, [Tool.path, command, "cxgb4_0"], by: provider)
            #expect(outcome.status == 0 && outcome.output.contains("cxgb4_0"), "\(outcome.errors)")
        }
        for mode in [[], ["--in-process"]] {
            let outcome = try await sim(
                device,
                [Tool.path, "ping", "--all", "--verify", "--size", "3000", "--count", "8", "--warm-up", "2", "--json"]
                    + mode, by: provider)
            #expect(outcome.status == 0, "\(outcome.errors)")
            let runs = try #require(try outcome.document()["runs"] as? [[String: Any]])
            #expect(runs.map { $0["operation"] as? String } == ["send", "write", "read"])
            for run in runs {
                #expect(run["connectedBy", in: "run"] == "rdma_cm")
                #expect(run["provider", "client", in: "run"] == provider.name(of: device))
                let side = try #require(run["client"] as? [String: Any])
                #expect(side["corrupted"] as? Int == 0 && side["verified"] as? Int == 10)
            }
        }
        let atomics = try await sim(device, [Tool.path, "ping", "--operation", "fetch-add"], by: provider)
        #expect(atomics.status == ToolExit.unsupported.rawValue)
        #expect(atomics.errors.contains("does not support fetch-add"), "\(atomics.errors)")
    }

    @Test("verbs ping --rdma-cm refuses UD")
    func datagramsOverConnectionManager() async throws {
        let datagrams = try await sim(["mlx5"], [Tool.path, "ping", "--rdma-cm", "--transport", "ud"])
        #expect(
            datagrams.status == ToolExit.usage.rawValue && datagrams.errors.contains("connect RC queue pairs, not UD"))
    }

    @Test(
        "verbs ping in one process: every operation of every transport, with every byte verified",
        arguments: devices, Provider.allCases)
    func oneProcess(device: [String], provider: Provider) async throws {
        let outcome = try await sim(
            device,
            [Tool.path, "ping", "--in-process", "--all", "--verify", "--count", "8", "--warm-up", "2", "--json"],
            by: provider)
        #expect(outcome.status == 0, "\(outcome.errors)")
        let name = provider.name(of: device)
        try check(outcome.document(), of: device, client: name, server: name, count: 10)
    }

    @Test(
        "verbs ping between a provider of this package and the vendor's library", arguments: devices, Provider.allCases)
    func mixed(device: [String], client: Provider) async throws {
        let wire = try TemporaryDirectory()
        let server: Provider = client == .native ? .libibverbs : .native
        func environment(_ provider: Provider) throws -> [String: String] {
            let words = device + ["free", "wire=\(wire.path)"]
            return try provider.environment().merging([
                "LD_PRELOAD": Self.library, "UVERBS_SIM": words.joined(separator: " "),
            ]) { $1 }
        }
        let listening = try await Tool.run(
            ["ping", "--listen", "--port", "0"], environment: environment(server)
        ) { running in
            let port = try await running.port()
            let outcome = try await Tool.run(
                [
                    "ping", "127.0.0.1", "--port", port, "--all", "--verify", "--size", "1000", "--count", "8",
                    "--warm-up", "2", "--json",
                ], environment: environment(client))
            #expect(outcome.status == 0, "\(outcome.errors)")
            try check(
                outcome.document(), of: device, client: client.name(of: device), server: server.name(of: device),
                count: 10)
        }
        #expect(listening.status == 0, "\(listening.errors)")
    }

    @Test("the client reports a killed server and ends", arguments: ["hfi1", "mlx5"])
    func killed(device: String) async throws {
        let outcome = try await Tool.run(
            ["sim", device, "--library", Self.library, "--", Tool.path, "ping", "--count", "0"],
            environment: Provider.libibverbs.environment()
        ) { running in
            _ = try await running.hasSaid("until Ctrl-C")
            let client = try #require(try running.children().first)
            let server = try String(contentsOfFile: "/proc/\(client)/task/\(client)/children", encoding: .utf8)
            kill(try #require(pid_t(server.filter(\.isNumber))), SIGKILL)
        }
        #expect(outcome.status == ToolExit.peerLost.rawValue, "\(outcome.errors)")
    }

    @Test(
        "verbs providers: a driver file selects the native provider, RDMA_PROVIDER the vendor's library",
        arguments: devices, Provider.allCases
    )
    func providers(device: [String], provider: Provider) async throws {
        let outcome = try await sim(device, [Tool.path, "providers", "\(device[0])_0", "--json"], by: provider)
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "providers").faults(document) == [])
        let entry = try #require((document["devices"] as? [[String: Any]])?.first)
        #expect(entry["chosen"] as? String == provider.name(of: device))
        let candidates = try #require(entry["candidates"] as? [[String: Any]])
        if provider == .native {
            #expect(candidates[0]["outcome"] as? String == "chosen")
            #expect((candidates[0]["driverFile"] as? String)?.hasSuffix("/\(device[0]).driver") == true)
            #expect(candidates[1]["provider"] as? String == "libibverbs")
            #expect(candidates[1]["outcome"] as? String == "standsBy")
        }
    }

    @Test(
        "verbs info, verbs providers and verbs doctor show that the provider was proved on a simulator",
        arguments: ["hfi1", "mlx5", "cxgb4"])
    func proved(device: String) async throws {
        let text = try await sim([device], [Tool.path, "info", "\(device)_0"], by: .native)
        #expect(text.status == 0, "\(text.errors)")
        #expect(text.output.contains(/(?m)^ +proved on: +a simulated device, not on silicon$/), "\(text.output)")
        let json = try await sim([device], [Tool.path, "info", "\(device)_0", "--json"], by: .native)
        let entry = try #require((try json.document()["devices"] as? [[String: Any]])?.first)
        #expect(entry["proved", in: "provider"] == "simulator")
        let told = "proved on a simulated device, not on silicon"
        let chosen = try await sim([device], [Tool.path, "providers", "\(device)_0"], by: .native)
        #expect(
            chosen.output.contains("note: \(device) was \(told)\n  try: RDMA_PROVIDER=libibverbs"), "\(chosen.output)")
        let other = try await sim([device], [Tool.path, "providers", "\(device)_0"], by: .libibverbs)
        #expect(other.status == 0 && !other.output.contains(told), "\(other.output)")
        let doctor = try await sim([device], [Tool.path, "doctor", "--verbose"], by: .native)
        #expect(doctor.output.contains("\(device)_0 is served by \(device), which was \(told)"), "\(doctor.output)")
    }

    @Test("each process has its own port, as verbs devices and Debian's ibv_devinfo show", arguments: devices)
    func ports(device: [String]) async throws {
        let outcome = try await sim(
            device, ["sh", "-c", "\"$0\" devices && ibv_devinfo && ibv_devinfo -v", Tool.path])
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.output.contains(/(?m)^\w+_0 .*\w+/))
        let guids = outcome.output.matches(of: /node_guid:\s+(\S+)/).map { String($0.1) }
        #expect(Set(guids).count == 2, "\(outcome.output)")
        let lids = outcome.output.matches(of: /port_lid:\s+(\d+)/).map { String($0.1) }
        #expect(Set(lids).count == (device.count > 1 ? 1 : 2), "\(outcome.output)")
    }

    @Test("exit code and signals of the command; the directory of the simulated network is removed")
    func command() async throws {
        #expect(try await sim(["mlx5"], ["sh", "-c", "exit 7"]).status == 7)
        #expect(try await sim(["mlx5"], ["sh", "-c", "kill -TERM $$"]).status == 143)
        let outcome = try await sim(["mlx5"], ["sh", "-c", "echo $UVERBS_SIM"])
        let wire = try #require(outcome.output.firstMatch(of: /^mlx5 free wire=(\S+)\n$/)?.1)
        #expect(!FileManager.default.fileExists(atPath: String(wire)))
        for signal in [SIGTERM, SIGINT] {
            let outcome = try await Tool.run(
                ["sim", "hfi1", "--library", Self.library, "--", "sh", "-c", "echo ready >&2; exec sleep 600"]
            ) { running in
                _ = try await running.hasSaid("ready")
                if signal == SIGINT { running.pressControlC() } else { running.send(signal: signal) }
            }
            #expect(outcome.status == 128 + signal)
        }
    }

    @Test("wrong arguments are rejected before the command runs")
    func refused() async throws {
        for arguments in [["efa", "--", "true"], ["mlx5"], ["hfi1", "--option", "roce", "--", "true"]] {
            #expect(try await Tool.run(["sim"] + arguments).status == ToolExit.usage.rawValue, "\(arguments)")
        }
        let absent = try await Tool.run("sim", "mlx5", "--library", "/nonexistent/x.so", "--", "echo", "hello")
        #expect(absent.status == 1 && absent.output.isEmpty)
        #expect(absent.errors.contains("swift build --product uverbs-sim"), "\(absent.errors)")
        let other = try await Tool.run("sim", "mlx5", "--library", "/bin/sh", "--", "echo", "hello")
        #expect(other.status == 1 && other.errors.contains("is not a simulator library"), "\(other.errors)")
        let unknown = try await sim(["mlx5"], ["/nonexistent/command"])
        #expect(unknown.status == 1 && unknown.errors.contains("cannot start /nonexistent/command"))
    }
}

extension [String: Any] {
    /// The text of a nested member.
    fileprivate subscript(key: String, inner: String, in outer: String) -> String? {
        ((self[outer] as? [String: Any])?[inner] as? [String: Any])?[key] as? String
    }

    fileprivate subscript(key: String, in outer: String) -> String? { (self[outer] as? [String: Any])?[key] as? String }
}
