import FoundationEssentials
import Glibc
import SystemPackage

/// The library that simulates a device in every process into which it is loaded.
struct SimulatorLibrary {
    let path: String

    static let name = "libuverbs-sim.so"

    /// - Parameter path: where it is; nil: beside this program.
    init(_ path: String?) throws(ToolError) {
        let program = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "/usr/bin/verbs"
        let folder = program.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let wanted = path ?? "\(folder)/\(Self.name)"
        guard let resolved = realpath(wanted, nil) else {
            throw ToolError(
                .failure, "there is no simulator at \(wanted): \(Errno(rawValue: errno))",
                hint: "in the source tree: swift build --product uverbs-sim; then name it with --library")
        }
        defer { free(resolved) }
        self.path = String(cString: resolved)
        try check()
    }

    /// Else the dynamic linker would go on without it, and the command see the devices of this machine.
    private func check() throws(ToolError) {
        guard let handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL), dlsym(handle, "uverbs_sim_create") != nil else {
            throw ToolError(
                .failure, "\(path) is no simulator: \(dlerror().map { String(cString: $0) } ?? "it cannot be loaded")",
                hint: "in the source tree: swift build --product uverbs-sim; then name it with --library")
        }
    }
}

/// The directory by which the simulated devices of several processes reach each other.
struct SimulatedWire {
    let path: String
    private let library: String

    init(_ library: SimulatorLibrary) throws(ToolError) {
        var template = Array("/tmp/verbs-sim.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Self.failure(errno) }
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        // The dynamic linker parts its list at colons and blanks, which the library's own path may have.
        self.library = "\(path)/\(SimulatorLibrary.name)"
        guard symlink(library.path, self.library) == 0 else {
            let code = errno
            remove()
            throw Self.failure(code)
        }
    }

    private static func failure(_ code: CInt) -> ToolError {
        ToolError(
            .failure, "cannot make a directory for the wire in /tmp: \(Errno(rawValue: code))",
            hint: "look at the permissions of /tmp, and whether it is full: df /tmp")
    }

    /// What a process must have in its environment to see the device.
    func environment(device: String) -> [String: String] {
        var variables = ProcessInfo.processInfo.environment
        let others = variables["LD_PRELOAD"].map { $0.isEmpty ? "" : ":\($0)" } ?? ""
        variables["LD_PRELOAD"] = library + others
        variables["UVERBS_SIM"] = device
        // Each process puts its own place here before main(). To add a variable there would move the environment, from
        // which a Swift runtime that is linked in finds the arguments of its program.
        variables["SYSFS_PATH"] = path
        return variables
    }

    /// Whoever is still on the wire reaches nobody any more.
    func remove() {
        try? FileManager.default.removeItem(atPath: path)
    }
}
