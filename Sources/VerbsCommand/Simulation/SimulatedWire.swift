import CLinux
import FoundationEssentials
import Glibc
import SystemPackage

/// The library that simulates a device in every process that loads it.
struct SimulatorLibrary {
    let path: String

    static let name = "libuverbs-sim.so"
    private static let hint =
        "install the package rdma-provider-dev (-devel), or in the source tree: swift build --product uverbs-sim, and "
        + "pass its path with --library"

    /// - Parameter path: Path of the library; nil: in the directory of this program, as in the source tree, or in
    ///   ../lib/rdma-verbs beside it, as in a package.
    init(_ path: String?) throws(ToolError) {
        let started = linux_program_path().map { String(cString: $0) } ?? "/usr/bin/verbs"
        let program = (try? FileManager.default.destinationOfSymbolicLink(atPath: started)) ?? started
        let folder = program.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let places = path.map { [$0] } ?? ["\(folder)/\(Self.name)", "\(folder)/../lib/rdma-verbs/\(Self.name)"]
        guard let resolved = places.lazy.compactMap({ realpath($0, nil) }).first else {
            throw ToolError(
                .failure, "no simulator library at \(places.joined(separator: " or ")): \(Errno(rawValue: errno))",
                hint: Self.hint)
        }
        defer { free(resolved) }
        self.path = String(cString: resolved)
        try check()
    }

    /// Checks that the library loads. The dynamic linker ignores an LD_PRELOAD library that it cannot load, and the
    /// command would see the devices of this machine.
    private func check() throws(ToolError) {
        guard let handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL), dlsym(handle, "uverbs_sim_create") != nil else {
            throw ToolError(
                .failure,
                "\(path) is not a simulator library: \(dlerror().map { String(cString: $0) } ?? "it cannot be loaded")",
                hint: Self.hint)
        }
    }
}

/// The directory through which the simulated devices of several processes reach each other.
struct SimulatedWire {
    let path: String
    private let library: String

    init(_ library: SimulatorLibrary) throws(ToolError) {
        var template = Array("/tmp/verbs-sim.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Self.failure(errno) }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        // LD_PRELOAD is a list separated by colons and blanks, which the library's own path may contain.
        self.library = "\(path)/\(SimulatorLibrary.name)"
        guard symlink(library.path, self.library) == 0 else {
            let code = errno
            remove()
            throw Self.failure(code)
        }
    }

    private static func failure(_ code: CInt) -> ToolError {
        ToolError(
            .failure, "cannot create a directory for the simulated network in /tmp: \(Errno(rawValue: code))",
            hint: "check the permissions of /tmp, and whether it is full: df /tmp")
    }

    /// The environment of a process that sees the device.
    func environment(device: String) -> [String: String] {
        var variables = ProcessInfo.processInfo.environment
        let others = variables["LD_PRELOAD"].map { $0.isEmpty ? "" : ":\($0)" } ?? ""
        variables["LD_PRELOAD"] = library + others
        variables["UVERBS_SIM"] = device
        // Each process overwrites this value before main(). Adding a variable at that time would move the environment,
        // which a statically linked Swift runtime uses to find the arguments of its program.
        variables["SYSFS_PATH"] = path
        return variables
    }

    /// Removes the directory. Processes that still run cannot reach each other any more.
    func remove() {
        try? FileManager.default.removeItem(atPath: path)
    }
}
