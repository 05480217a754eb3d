import Glibc

/// Whose files the loader believes: root's and the caller's own, and only where nobody else can write.
///
/// A file that its group may write counts as writable by others, unless the group is root's, or the caller's private
/// one (its number equals the user's, as useradd(8) makes it). Every directory above the file, links resolved, is
/// held to the same rule, because who may write a directory may replace what lies in it; a sticky directory such as
/// /tmp is fit, since there only the owner can replace a file. With raised privileges only root's files count.
struct FileTrust: Sendable {
    let userID: UInt32
    let groupID: UInt32
    let isPrivileged: Bool

    init(_ configuration: LoaderConfiguration) {
        userID = configuration.userID
        groupID = configuration.groupID
        isPrivileged = configuration.isPrivileged
    }

    /// What speaks against the file or directory at `path`, whose status is given; nil where nothing does.
    func objection(to path: String, _ status: stat) -> Problem? {
        guard status.st_uid == 0 || (!isPrivileged && status.st_uid == userID) else {
            let allowed = isPrivileged ? "root, as this process runs with raised privileges" : "root or the caller"
            return Problem(
                path: path, sentence: "\(path) is owned by user \(status.st_uid), not by \(allowed)",
                hint: "chown root '\(path)'")
        }
        // The permission bits of a link mean nothing.
        guard !status.isLink, let writers = writers(status) else { return nil }
        return Problem(
            path: path, sentence: "\(path) is writable by \(writers) (mode \(octal(status.st_mode)))",
            hint: "chmod go-w '\(path)'")
    }

    /// What speaks against a directory above the file at `path`, which is absolute and free of links.
    func objection(toDirectoriesAbove path: String) -> Problem? {
        var directory = Substring(path)
        while let slash = directory.utf8.lastIndex(of: UInt8(ascii: "/")) {
            directory = directory[..<slash]
            if let problem = objection(toDirectory: directory.isEmpty ? "/" : String(directory)) { return problem }
        }
        return nil
    }

    /// What speaks against a directory itself.
    func objection(toDirectory path: String) -> Problem? {
        var status = stat()
        guard lstat(path, &status) == 0 else {
            return Problem(path: path, sentence: "\(path): \(Errno(code: errno).text)", hint: "")
        }
        if status.st_mode & S_ISVTX != 0 {
            status.st_mode &= ~(S_IWGRP | S_IWOTH)
        }
        return objection(to: path, status)
    }

    /// Who else may write; nil where nobody may.
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
