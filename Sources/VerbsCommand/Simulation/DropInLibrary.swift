import CLinux
import FoundationEssentials
import Glibc
import SystemPackage

/// The directory of this package's libibverbs.so.1, which the dynamic linker searches before the distribution's.
struct DropInLibrary {
    let directory: String
    private static let hint =
        "install the package rdma-verbs-dropin, or in the source tree: scripts/build-dropin, and pass the directory that "
        + "it prints with --library"

    /// - Parameter directory: The directory; nil: in the directory of this program, as in the source tree, or
    ///   ../lib/rdma-verbs beside it, as in a package.
    init(_ directory: String?) throws(ToolError) {
        let started = linux_program_path().map { String(cString: $0) } ?? "/usr/bin/verbs"
        let program = (try? FileManager.default.destinationOfSymbolicLink(atPath: started)) ?? started
        let folder = program.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let places = directory.map { [$0] } ?? ["\(folder)/dropin", "\(folder)/../lib/rdma-verbs"]
        guard let found = places.lazy.compactMap({ Self.resolve("\($0)/libibverbs.so.1") }).first else {
            throw ToolError(
                .failure, "there is no libibverbs.so.1 of this package in \(places.joined(separator: " or "))",
                hint: Self.hint)
        }
        self.directory = String(found.dropLast("/libibverbs.so.1".count))
        guard !self.directory.contains(where: { $0 == ":" || $0 == ";" }) else {
            throw ToolError(
                .failure, "\(self.directory): the dynamic linker takes a colon or a semicolon for the end of the name",
                hint: "move the library to another directory, and pass it with --library")
        }
        try check(found)
    }

    private static func resolve(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// Checks that the library loads and is this package's. The command would end with a message of the dynamic linker, or
    /// run on the distribution's.
    private func check(_ path: String) throws(ToolError) {
        let handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL)
        guard let handle, dlsym(handle, "swift_rdma_libibverbs") != nil else {
            let reason = dlerror().map { String(cString: $0) } ?? "it cannot be loaded"
            throw ToolError(
                .failure, "\(path) is not the library of this package: \(reason)",
                hint: Self.hint)
        }
    }

    /// LD_LIBRARY_PATH with the directory first.
    var searchPath: String { Self.list(directory, before: "LD_LIBRARY_PATH") }

    /// LD_PRELOAD with the library first that shows the software devices in sysfs; nil if it is not there.
    var preload: String? {
        let name = "libverbs-sysfs.so"
        guard access("\(directory)/\(name)", R_OK) == 0 else { return nil }
        // A space ends a path in LD_PRELOAD. The dynamic linker searches LD_LIBRARY_PATH for a name.
        return Self.list(directory.contains(" ") ? name : "\(directory)/\(name)", before: "LD_PRELOAD")
    }

    /// The address sanitizer refuses to start behind a preloaded library, unless these options say that it may.
    var sanitizerOptions: String {
        let option = "verify_asan_link_order=0"
        guard let others = getenv("ASAN_OPTIONS"), others.pointee != 0 else { return option }
        return "\(String(cString: others)):\(option)"
    }

    /// The value of a variable that is a list, with one more element in front.
    private static func list(_ first: String, before variable: String) -> String {
        guard let others = getenv(variable), others.pointee != 0 else { return first }
        return "\(first):\(String(cString: others))"
    }
}
