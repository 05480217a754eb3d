import Glibc

/// The rules of ownership: the loader accepts files of root and of the caller, and only if no other user can write them.
///
/// A file that its group may write counts as writable by others, unless the group is root's or the caller's private
/// one (its number equals the user's, as useradd(8) makes it). The same rule holds for every directory above the file,
/// links resolved, because a user who may write a directory may replace its files. A sticky directory such as /tmp is
/// accepted, because only the owner can replace a file there. With raised privileges only root's files are accepted.
struct FileTrust: Sendable {
    let userID: UInt32
    let groupID: UInt32
    let isPrivileged: Bool

    init(_ configuration: LoaderConfiguration) {
        userID = configuration.userID
        groupID = configuration.groupID
        isPrivileged = configuration.isPrivileged
    }

    /// The reason why the file or directory at `path` with that status is refused; nil where it is accepted.
    func objection(to path: String, _ status: stat) -> Problem? {
        guard status.st_uid == 0 || (!isPrivileged && status.st_uid == userID) else {
            let allowed = isPrivileged ? "root, as this process runs with raised privileges" : "root or the caller"
            return Problem(
                path: path, message: "\(path) is owned by user \(status.st_uid), not by \(allowed)",
                hint: "chown root '\(path)'")
        }
        // The permission bits of a link have no meaning (symlink(7)).
        guard !status.isLink, let writers = writers(status) else { return nil }
        return Problem(
            path: path, message: "\(path) is writable by \(writers) (mode \(octal(status.st_mode)))",
            hint: "chmod go-w '\(path)'")
    }

    /// The reason why a directory above the file is refused. `path` is absolute and free of links.
    func objection(toDirectoriesAbove path: String) -> Problem? {
        var directory = Substring(path)
        while let slash = directory.utf8.lastIndex(of: UInt8(ascii: "/")) {
            directory = directory[..<slash]
            if let problem = objection(toDirectory: directory.isEmpty ? "/" : String(directory)) { return problem }
        }
        return nil
    }

    /// The reason why a directory itself is refused.
    func objection(toDirectory path: String) -> Problem? {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            return Problem(
                path: path, message: "\(path): \(Errno(code: errno).text)",
                hint: "see the permissions of the directories above it: namei -l '\(path)'")
        }
        if status.st_mode & S_ISVTX != 0 {
            status.st_mode &= ~(S_IWGRP | S_IWOTH)
        }
        return objection(to: path, status)
    }

    /// The other users with write permission; nil if there are none.
    private func writers(_ status: stat) -> String? {
        if status.st_mode & S_IWOTH != 0 { return "others" }
        guard status.st_mode & S_IWGRP != 0, status.st_gid != 0 else { return nil }
        let isPrivate = !isPrivileged && status.st_gid == groupID && groupID == userID
        return isPrivate ? nil : "group \(status.st_gid)"
    }

    private func octal(_ mode: mode_t) -> String {
        let digits = String(mode & 0o7777, radix: 8)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }
}
