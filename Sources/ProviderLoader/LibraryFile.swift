import Glibc

/// The file of a library, before dlopen(3) opens it.
enum LibraryFile: Sendable {
    /// The file exists and may be used.
    case present(FileIdentity)
    /// No file has that path.
    case missing
    /// The file must not be used.
    case refused(Verdict.Rule, Problem)

    /// Checks the file at the absolute path `path`.
    init(at path: String, trust: FileTrust) {
        var status = stat()
        guard stat(path, &status) == 0 else {
            let error = Errno(code: errno)
            self =
                error.code == ENOENT || error.code == ENOTDIR
                ? .missing : .refused(.load, LibraryFile.problem(path, error))
            return
        }
        guard status.isRegular else {
            let hint = "let the `library` line name a shared library"
            self = .refused(.load, Problem(path: path, message: "\(path) is not a regular file", hint: hint))
            return
        }
        do throws(Errno) {
            let resolved = try resolve(path)
            if let problem = trust.objection(to: resolved, status) ?? trust.objection(toDirectoriesAbove: resolved) {
                self = .refused(.ownership, problem)
            } else {
                self = .present(FileIdentity(path: resolved, status))
            }
        } catch {
            self = .refused(.load, LibraryFile.problem(path, error))
        }
    }

    private static func problem(_ path: String, _ error: Errno) -> Problem {
        Problem(
            path: path, message: "\(path): \(error.text)",
            hint: "see the permissions of the directories above it: namei -l '\(path)'")
    }
}

/// The identity of a file: device and inode number, whatever its path.
struct FileIdentity: Hashable, Sendable {
    /// Path without links.
    let path: String
    private let device: UInt64
    private let inode: UInt64

    init(path: String, _ status: stat) {
        self.path = path
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }

    /// Whether both are the same file.
    static func == (left: FileIdentity, right: FileIdentity) -> Bool {
        left.device == right.device && left.inode == right.inode
    }

    func hash(into hasher: inout Hasher) {
        hasher.combine(device)
        hasher.combine(inode)
    }
}
