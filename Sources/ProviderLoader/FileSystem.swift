import Glibc

// System calls on files.

/// A file descriptor that is closed at the end of its life.
struct FileDescriptor: ~Copyable {
    let number: Int32

    /// Opens `path`; throws the errno value.
    init(opening path: String, flags: Int32) throws(Errno) {
        number = open(path, flags | O_CLOEXEC)
        guard number >= 0 else { throw Errno(code: errno) }
    }

    deinit { _ = close(number) }

    /// The result of fstat(2).
    func status() throws(Errno) -> stat {
        var status = stat()
        guard fstat(number, &status) == 0 else { throw Errno(code: errno) }
        return status
    }

    /// The first `limit` bytes, or fewer where the file ends.
    func read(atMost limit: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: limit)
        var count = 0
        while count < limit {
            let got = bytes[count...].withUnsafeMutableBytes { Glibc.read(number, $0.baseAddress!, $0.count) }
            if got < 0 {
                if errno == EINTR { continue }
                throw Errno(code: errno)
            }
            if got == 0 { break }
            count += got
        }
        bytes.removeLast(limit - count)
        return bytes
    }
}

/// An errno value with its text.
struct Errno: Error {
    let code: Int32

    /// The text of strerror_r(3).
    var text: String {
        var buffer = [CChar](repeating: 0, count: 128)
        guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
        return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

extension stat {
    var isRegular: Bool { st_mode & S_IFMT == S_IFREG }
    var isLink: Bool { st_mode & S_IFMT == S_IFLNK }
    /// /dev/null: character device 1:3 on every Linux (Documentation/admin-guide/devices.txt of the kernel).
    var isNullDevice: Bool { st_mode & S_IFMT == S_IFCHR && st_rdev == 0x103 }
}

/// The inode number of the file that `path` leads to; 0 where there is none.
func inodeNumber(_ path: String) -> UInt64 {
    var status = stat()
    return stat(path, &status) == 0 ? UInt64(status.st_ino) : 0
}

/// The absolute path without links, by realpath(3); throws the errno value.
func resolve(_ path: String) throws(Errno) -> String {
    guard let resolved = realpath(path, nil) else { throw Errno(code: errno) }
    defer { free(resolved) }
    return String(cString: resolved)
}

/// The target of a link, by readlink(2); nil where there is no link.
func linkTarget(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = buffer.withUnsafeMutableBytes { readlink(path, $0.baseAddress!, $0.count) }
    return count > 0 ? String(decoding: buffer.prefix(count), as: UTF8.self) : nil
}

/// The names in a directory except those that begin with a dot, sorted by bytes. In a name that is not UTF-8 the
/// invalid bytes are replaced, so that it names no file.
func names(inDirectory path: String) throws(Errno) -> [String] {
    guard let directory = opendir(path) else { throw Errno(code: errno) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let offset = MemoryLayout<dirent>.offset(of: \.d_name)!
        let name = String(cString: (UnsafeRawPointer(entry) + offset).assumingMemoryBound(to: CChar.self))
        if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
}

/// The last component of a path.
func lastComponent(_ path: String) -> String {
    path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[path.utf8.index(after: $0)...]) } ?? path
}
