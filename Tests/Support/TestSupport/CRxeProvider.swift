import Foundation

/// The provider in Examples/crxe, written in C from the headers alone, for devices of rdma_rxe.
public enum CRxeProvider {
    /// Path of the library, in which undefined behaviour traps. It is compiled once per process.
    /// - Throws: `Compiler.Failure`.
    public static func library() throws -> String { try built.get() }

    private static let built = Result { () throws -> String in
        // A static value is never released, so atexit removes the directory.
        _ = atexit { (try? directory.get())?.remove() }
        let library = try directory.get().path("crxe.so")
        let root = Compiler.packageRoot
        try Compiler.run(
            "/usr/bin/env",
            [
                "CPPFLAGS=-I\(root)/Sources/CProviderABI/include", "/bin/sh", root + "/Examples/crxe/build.sh", library,
                "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error",
            ])
        return library
    }

    private static let directory = Result { try TemporaryDirectory() }
}
