import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

/// Runs Tests/Support/LoaderProbe as user and group 65534, optionally as a set-group-ID program.
private enum Probe {
    static let nobody = 65534

    /// The path of the program, which is in the build directory of the tests.
    static let program = (try? resolve("/proc/self/exe")).map {
        ($0 as NSString).deletingLastPathComponent + "/LoaderProbe"
    }

    /// Whether a process of user `nobody` can run the program: only root can start one, and `nobody` must be able to
    /// read the Swift runtime. The address sanitizer reads /proc/self/maps, which a set-group-ID process may not read.
    static let canRun: Bool = {
        guard geteuid() == 0, dlsym(nil, "__asan_init") == nil, let bench = try? Workbench(),
            let lines = try? run(bench, setGroupID: false)
        else {
            return false
        }
        return lines.first == "privileged: false"
    }()

    static func run(_ bench: Workbench, setGroupID: Bool, _ environment: [String: String] = [:]) throws -> [String] {
        let copy = try bench.directory.copy(try #require(program), to: setGroupID ? "raised/probe" : "ordinary/probe")
        for path in [bench.directory.path, bench.sysfs.path] { chmod(path, 0o755) }
        chown(copy, 0, setGroupID ? 1 : 0)
        chmod(copy, setGroupID ? 0o2755 : 0o755)
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
        process.arguments = [
            "--reuid=\(nobody)", "--regid=\(nobody)", "--clear-groups", copy, bench.override, bench.main,
            bench.providers, bench.sysfs.path,
        ]
        process.environment = environment
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        return text.split(separator: "\n").map(String.init)
    }
}

@Suite(
    "A process with raised privileges",
    .enabled(
        if: Probe.canRun, "needs root, setpriv(1), a Swift runtime readable by all users, and no address sanitizer"))
struct PrivilegedProcessTests {
    /// A provider in a directory for `RDMA_DRIVER_PATH`, and one in the main directory.
    private func prepared() throws -> (bench: Workbench, environment: [String: String]) {
        let bench = try Workbench()
        try bench.mlx5()
        let own = bench.directory.path("own")
        try bench.driver("own", "driver mlx5\nlibrary own.so\n", in: own)
        try bench.library("own.so", ["name": "mlx5"], in: own)
        try bench.driver("mlx5", "driver mlx5\n")
        try bench.library("mlx5.so", ["name": "mlx5"])
        return (bench, ["RDMA_DRIVER_PATH": own, "RDMA_PROVIDER": "mlx5", "SYSFS_PATH": bench.sysfs.path])
    }

    @Test("An ordinary process reads the environment, a set-group-ID program ignores it")
    func environment() throws {
        let (bench, environment) = try prepared()
        let ordinary = try Probe.run(bench, setGroupID: false, environment)
        #expect(ordinary.first == "privileged: false")
        #expect(ordinary.contains { $0.hasPrefix("mlx5_0: \(bench.directory.path)/own/own.driver: chosen") })
        #expect(!ordinary.contains { $0.hasPrefix("problem") })

        let raised = try Probe.run(bench, setGroupID: true, environment)
        #expect(raised.first == "privileged: true")
        #expect(raised.contains { $0.hasPrefix("mlx5_0: \(bench.main)/mlx5.driver: chosen") })
        #expect(!raised.contains { $0.contains("own.driver") })
        for name in environment.keys {
            #expect(
                raised.contains {
                    $0.hasPrefix("problem: \(name) is ignored: this process runs with raised privileges")
                })
        }
    }

    @Test("An ordinary process accepts a driver file of the caller, a set-group-ID program refuses it")
    func ownership() throws {
        let (bench, _) = try prepared()
        let file = bench.main + "/mlx5.driver"
        chown(file, uid_t(Probe.nobody), gid_t(Probe.nobody))
        let ordinary = try Probe.run(bench, setGroupID: false)
        #expect(ordinary.contains { $0.hasPrefix("mlx5_0: \(file): chosen") })
        let raised = try Probe.run(bench, setGroupID: true)
        #expect(raised.contains { $0.hasPrefix("mlx5_0: \(file): rejected: its driver file is refused") })
        #expect(raised.contains { $0.contains("as this process runs with raised privileges") })
    }
}
