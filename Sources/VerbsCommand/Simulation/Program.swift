import CLinux
import Glibc
import ProviderLoader
import SystemPackage

/// A program that `verbs run` starts.
struct Program {
    /// The path that execve(2) gets.
    let path: String

    /// The program of that name, searched in PATH as a shell does.
    init(named name: String) throws(ToolError) {
        if name.contains("/") {
            path = name
        } else {
            let folders = (getenv("PATH").map { String(cString: $0) } ?? "/usr/local/bin:/usr/bin:/bin")
                .split(separator: ":", omittingEmptySubsequences: false)
            let candidates = folders.map { $0.isEmpty ? name : "\($0)/\(name)" }
            guard let found = candidates.first(where: Self.isExecutable) else {
                throw ToolError(
                    .failure, "cannot start \(name): it is not in PATH",
                    hint: "install it or give its path; shell builtins such as cd need a shell: sh -c '...'")
            }
            path = found
        }
        guard Self.isExecutable(path) else {
            let reason = access(path, X_OK) == 0 ? "it is not a file" : Errno(rawValue: errno).description
            throw ToolError(.failure, "cannot start \(path): \(reason)", hint: "check its path and permissions")
        }
    }

    private static func isExecutable(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }

    /// Throws if the dynamic linker does not load the library into the program.
    func refuseIfUnreachable() throws(ToolError) {
        // An interpreter can be a script as well; the kernel follows four (execve(2)).
        var file = path
        for _ in 0..<5 {
            guard let interpreter = Self.interpreter(ofScript: file) else { break }
            file = interpreter
        }
        if Self.raisesPrivileges(file) {
            throw ToolError(
                .unsupported,
                "\(file) runs with raised privileges (set-user-ID, set-group-ID or file capabilities): the dynamic linker"
                    + " ignores LD_LIBRARY_PATH there",
                hint: "run a copy of it without them: cp makes one")
        }
        let image = ELFImage(Self.head(of: file))
        // A format that the kernel starts by another program, such as a jar, is not known here.
        guard image.isELF, let objection = image.objectionToPreloading() else { return }
        throw ToolError(
            .unsupported, "\(file) cannot use a library in front of libibverbs: \(objection)",
            hint: "build it for this machine, and link it dynamically")
    }

    private static func head(of path: String) -> [UInt8] {
        guard let file = fopen(path, "re") else { return [] }
        defer { fclose(file) }
        return [UInt8](unsafeUninitializedCapacity: ELFImage.prefixLength) { bytes, count in
            count = fread(bytes.baseAddress, 1, ELFImage.prefixLength, file)
        }
    }

    /// The path behind `#!`.
    private static func interpreter(ofScript path: String) -> String? {
        let bytes = head(of: path).prefix(256)
        guard bytes.starts(with: [0x23, 0x21]) else { return nil }
        let line = bytes.dropFirst(2).prefix { $0 != 0x0a }
        let word = line.drop { $0 == 0x20 || $0 == 0x09 }.prefix { $0 != 0x20 && $0 != 0x09 }
        return word.isEmpty ? nil : String(decoding: word, as: UTF8.self)
    }

    /// Whether the kernel runs it with AT_SECURE (ld.so(8)).
    private static func raisesPrivileges(_ path: String) -> Bool {
        var status = stat()
        guard stat(path, &status) == 0 else { return false }
        let changesUser = status.st_mode & S_ISUID != 0 && status.st_uid != geteuid()
        let changesGroup = status.st_mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP && status.st_gid != getegid()
        // Capabilities of the file add none to those of root.
        let addsCapabilities = geteuid() != 0 && linux_has_file_capabilities(path) != 0
        return changesUser || changesGroup || addsCapabilities
    }
}
