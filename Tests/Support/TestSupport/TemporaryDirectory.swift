import Foundation

/// A temporary directory that only its owner can read. It is removed with the last reference.
public final class TemporaryDirectory: Sendable {
    /// Its absolute path.
    public let path: String

    /// Creates an empty directory.
    public init() throws {
        let parent = FileManager.default.temporaryDirectory.path
        var template = Array("\(parent)/swift-rdma-test.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit {
        remove()
    }

    /// Removes the directory.
    public func remove() {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// The absolute path of a relative path in the directory.
    public func path(_ relative: String) -> String { path + "/" + relative }

    /// Creates a directory in it, with its parents.
    /// - Returns: The absolute path.
    @discardableResult
    public func makeDirectory(_ relative: String) throws -> String {
        try FileManager.default.createDirectory(atPath: path(relative), withIntermediateDirectories: true)
        return path(relative)
    }

    /// Writes a file in it, and creates the parent directories.
    /// - Parameter mode: Permission bits, independent of the umask.
    /// - Returns: The absolute path.
    @discardableResult
    public func write(_ contents: String, to relative: String, mode: Int = 0o644) throws -> String {
        let file = path(relative)
        try makeDirectory((relative as NSString).deletingLastPathComponent)
        try contents.write(toFile: file, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
        return file
    }

    /// Copies a file into it, and creates the parent directories.
    /// - Returns: The absolute path of the copy.
    @discardableResult
    public func copy(_ file: String, to relative: String) throws -> String {
        try makeDirectory((relative as NSString).deletingLastPathComponent)
        try FileManager.default.copyItem(atPath: file, toPath: path(relative))
        return path(relative)
    }

    /// Creates a symbolic link in it, and the parent directories.
    /// - Returns: The absolute path of the link.
    @discardableResult
    public func link(_ relative: String, to target: String) throws -> String {
        try makeDirectory((relative as NSString).deletingLastPathComponent)
        try FileManager.default.createSymbolicLink(atPath: path(relative), withDestinationPath: target)
        return path(relative)
    }
}
