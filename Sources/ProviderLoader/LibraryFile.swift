import Glibc

/// A library as the file system shows it, before anything opens it.
enum LibraryFile: Sendable {
    /// It is there and may be used.
    case present(FileIdentity)
    /// Nothing is at its path.
    case missing
    /// It must not be used.
    case refused(Verdict.Rule, Problem)

    /// Looks at the file at the absolute path `path`.
    init(at path: String, trust: FileTrust) {
        var status = stat()
        guard stat(path, &status) == 0 else {
            let error = Errno(code: errno)
            self =
                error.code == ENOENT || error.code == ENOTDIR
                ? .missing : .refused(.load, Problem(path: path, sentence: "\(path): \(error.text)", hint: ""))
            return
        }
        guard status.isRegular else {
            let hint = "let the `library` line name a shared library"
            self = .refused(.load, Problem(path: path, sentence: "\(path) is not a regular file", hint: hint))
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
            self = .refused(.load, Problem(path: path, sentence: "\(path): \(error.text)", hint: ""))
        }
    }
}

/// Which file it is, by whatever path.
struct FileIdentity: Hashable, Sendable {
    /// The path without links.
    let path: String
    private let device: UInt64
    private let inode: UInt64

    init(path: String, _ status: stat) {
        self.path = path
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }

    /// The same file, whatever its path.
    static func == (left: FileIdentity, right: FileIdentity) -> Bool {
        left.device == right.device && left.inode == right.inode
    }

    func hash(into hasher: inout Hasher) {
        hasher.combine(device)
        hasher.combine(inode)
    }
}
