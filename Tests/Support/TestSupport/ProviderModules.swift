import Foundation

/// The loadable providers of this package as they are shipped, with their driver files, in a directory for
/// `RDMA_DRIVER_PATH`.
public enum ProviderModules {
    /// Builds hfi1, mlx5 and cxgb4 with scripts/build-providers, once per process.
    /// - Returns: Path of the directory.
    /// - Throws: `Compiler.Failure`.
    public static func directory() throws -> String { try built.get().path }

    private static let built = Result { () throws -> TemporaryDirectory in
        let names = ["hfi1", "mlx5", "cxgb4"]
        let root = Compiler.packageRoot
        // The build must not inherit the settings of the current build.
        try Compiler.run(
            "/usr/bin/env",
            ProcessInfo.processInfo.environment.keys.filter { $0.hasPrefix("SWIFT") }.flatMap { ["-u", $0] }
                + ["\(root)/scripts/build-providers"] + names)
        // A static value is never released, so atexit removes the directory.
        _ = atexit { (try? ProviderModules.place.get())?.remove() }
        let directory = try place.get()
        for name in names {
            try directory.copy("\(root)/.build-providers/\(name).so", to: "\(name).so")
            try directory.copy("\(root)/providers/\(name)/\(name).driver", to: "\(name).driver")
        }
        return directory
    }

    private static let place = Result { try TemporaryDirectory() }
}
