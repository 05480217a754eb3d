import CIBVerbs
import CProviderABI
import Foundation
import Synchronization
import TestSupport

@testable import ProviderLoader

/// What one test works on: directories of driver files and libraries, and a sysfs, which go when the test ends.
final class Workbench {
    let directory: TemporaryDirectory
    let sysfs: FakeSysfs
    var configuration: LoaderConfiguration
    /// Name of a provider that no other test loads: all tests share one process, and copies are told.
    let unique = "t\(Workbench.count.add(1, ordering: .relaxed).newValue)"

    private static let count = Atomic(0)

    var override: String { directory.path("etc/override.d") }
    var main: String { directory.path("etc") }
    var providers: String { directory.path("lib") }

    /// With `builtIn` from the test's own providers: `libibverbs` for kernel devices, `soft` with soft0.
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

    /// A driver file in the main directory, or in another.
    @discardableResult
    func driver(_ stem: String, _ text: String, in directory: String? = nil) throws -> String {
        try write("\(directory ?? main)/\(stem).driver", text)
    }

    /// A fresh copy of the test provider, which is a library of its own for the loader.
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

    /// What happened to a library, one letter for each event (Fixtures/provider.c).
    func trace(_ library: String) -> String {
        (try? String(contentsOfFile: library + ".trace", encoding: .utf8)) ?? ""
    }

    /// mlx5_0 on a ConnectX-5.
    func mlx5(kernelABI: Int = 1) throws {
        try sysfs.addDevice(
            "mlx5_0", kernelABI: kernelABI, pci: FakeSysfs.PCI(0x15b3, 0x1017), kernelDriver: "mlx5_core")
    }

    /// Makes somebody else the owner of a file: another user where the test runs as root, else the loader is told
    /// that its caller is another user.
    func giveAway(_ path: String) {
        if geteuid() == 0 {
            lchown(path, 65534, 65534)
        } else {
            configuration.userID = geteuid() + 1
        }
    }
}

extension Survey.Entry {
    /// The verdict on the candidate whose driver file has that stem, or on the built-in provider of that name.
    func verdict(_ name: String) -> Verdict? {
        candidates.first { candidate in
            guard let file = candidate.driverFile else { return candidate.provider == name }
            return file.hasSuffix("/\(name).driver")
        }?.verdict
    }
}

extension OpenedDevice {
    func close() -> Int32 { ops.pointee.close_context(context) }
}

/// Fixtures/provider.c, compiled in one of several ways, once each.
enum ProviderVariant: String, CaseIterable {
    case good, noEntry, undefined
    /// Has no entry point of its own, but depends on a library that has one.
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
            // Another test process may use the old one: it keeps its file.
            guard rename(fresh, path) == 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
            compiled[self] = path
            return path
        }
    }
}
