import CIBVerbs
import CProviderABI
import Foundation
import Locking
import Synchronization
import TestSupport

@testable import ProviderLoader

/// Directories of driver files and libraries, and a sysfs, for one test. They are removed when the test ends.
final class Workbench {
    let directory: TemporaryDirectory
    let sysfs: FakeSysfs
    var configuration: LoaderConfiguration
    /// Provider name that no other test uses: all tests share one process, in which a second library of the same
    /// provider gives a warning.
    let unique = "t\(Workbench.count.add(1, ordering: .relaxed).newValue)"

    private static let count = Atomic(0)

    var override: String { directory.path("etc/override.d") }
    var main: String { directory.path("etc") }
    var providers: String { directory.path("lib") }

    /// - Parameter builtIn: By default the test providers `libibverbs`, for kernel devices, and `soft`, which lists
    ///   soft0.
    init(builtIn: [BuiltInProvider] = [.kernelTest, .softTest]) throws {
        directory = try TemporaryDirectory()
        sysfs = try FakeSysfs()
        configuration = LoaderConfiguration()
        configuration.builtIn = builtIn
        configuration.isPrivileged = false
        configuration.overrideDirectory = override
        configuration.mainDirectory = main
        configuration.providerDirectory = providers
        configuration.sysfsPath = sysfs.path
        for path in ["etc/override.d", "lib"] { try makeDirectory(directory.path(path)) }
    }

    var loader: ProviderLoader { ProviderLoader(configuration: configuration) }

    func makeDirectory(_ path: String) throws {
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    }

    @discardableResult
    func write(_ path: String, _ text: String, mode: Int = 0o644) throws -> String {
        try makeDirectory((path as NSString).deletingLastPathComponent)
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        return path
    }

    /// Writes a driver file, by default in the main directory.
    @discardableResult
    func driver(_ stem: String, _ text: String, in directory: String? = nil) throws -> String {
        try write("\(directory ?? main)/\(stem).driver", text)
    }

    /// Copies the test provider to a new file, which the loader treats as a separate library.
    @discardableResult
    func library(
        _ name: String, _ settings: [String: String] = [:], variant: ProviderVariant = .good,
        in directory: String? = nil
    ) throws -> String {
        let path = "\(directory ?? providers)/\(name)"
        try makeDirectory((path as NSString).deletingLastPathComponent)
        try Data(contentsOf: URL(fileURLWithPath: variant.path())).write(to: URL(fileURLWithPath: path))
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
        if !settings.isEmpty {
            try write(path + ".conf", settings.map { "\($0) \($1)\n" }.joined())
        }
        return path
    }

    /// The events of a library, one letter for each (Fixtures/provider.c): mapped, entry, probe, open, close.
    func trace(_ library: String) -> String {
        (try? String(contentsOfFile: library + ".trace", encoding: .utf8)) ?? ""
    }

    /// mlx5_0 on a ConnectX-5.
    func mlx5(kernelABI: Int = 1) throws {
        try sysfs.addDevice(
            "mlx5_0", kernelABI: kernelABI, pci: FakeSysfs.PCI(0x15b3, 0x1017), kernelDriver: "mlx5_core")
    }

    /// Changes the owner of a file to another user. If the test does not run as root, the loader's configuration names
    /// another user as its caller instead.
    func changeOwner(_ path: String) {
        if geteuid() == 0 {
            lchown(path, 65534, 65534)
        } else {
            configuration.userID = geteuid() + 1
        }
    }
}

extension ProviderSelection {
    /// The verdict on the candidate whose driver file has that stem, or on the built-in provider of that name.
    func verdict(_ name: String) -> Verdict? {
        candidates.first { candidate in
            guard let file = candidate.driverFile else { return candidate.provider == name }
            return file.hasSuffix("/\(name).driver")
        }?.verdict
    }
}

/// A variant of Fixtures/provider.c, compiled once per process.
enum ProviderVariant: String, CaseIterable {
    case good, noEntry, undefined
    /// Has no entry point itself, but a dependency that has one.
    case borrowedEntry

    private static let compiled = Locked<[ProviderVariant: String]>([:])

    private static let directory = Result {
        let path = Compiler.packageRoot + "/.build/loader-fixtures"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        return path
    }

    func path() throws -> String {
        let dependency = self == .borrowedEntry ? try ProviderVariant.good.path() : ""
        return try ProviderVariant.compiled.withLock { compiled in
            if let path = compiled[self] { return path }
            let path = try ProviderVariant.directory.get() + "/\(rawValue).so"
            let fresh = "\(path).\(getpid())"
            let source = Compiler.packageRoot + "/Tests/ProviderLoaderTests/Fixtures/provider.c"
            let flags: [String] =
                switch self {
                case .good: []
                case .noEntry: ["-DNO_ENTRY"]
                case .undefined: ["-DUNDEFINED"]
                case .borrowedEntry: ["-DNO_ENTRY", "-Wl,--no-as-needed", dependency]
                }
            try Compiler.build(String(contentsOfFile: source, encoding: .utf8), to: fresh, flags: flags)
            // rename(2) replaces the file atomically: another test process may have the old file mapped.
            guard rename(fresh, path) == 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
            compiled[self] = path
            return path
        }
    }
}
