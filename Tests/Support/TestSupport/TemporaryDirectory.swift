import Foundation

/// A directory of a test's own, which only its owner can read. It goes away with the last reference.
public final class TemporaryDirectory: Sendable {
    /// Its absolute path.
    public let path: String

    /// A new and empty one.
    public init() throws {
        let parent = FileManager.default.temporaryDirectory.path
        var template = Array("\(parent)/swift-rdma-test.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit {
        remove()
    }

    /// Removes it at once.
    public func remove() {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// The absolute path of a place in it.
    public func path(_ relative: String) -> String { path + "/" + relative }

    /// Makes a directory in it, with those above.
    /// - Returns: its absolute path.
    @discardableResult
    public func makeDirectory(_ relative: String) throws -> String {
        try FileManager.default.createDirectory(atPath: path(relative), withIntermediateDirectories: true)
        return path(relative)
    }

    /// Writes a file in it, and makes the directories above.
    /// - Parameter mode: permission bits, whatever the umask is.
    /// - Returns: its absolute path.
    @discardableResult
    public func write(_ contents: String, to relative: String, mode: Int = 0o644) throws -> String {
        let file = path(relative)
        try makeDirectory((relative as NSString).deletingLastPathComponent)
        try contents.write(toFile: file, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
        return file
    }

    /// Copies a file into it, and makes the directories above.
    /// - Returns: the absolute path of the copy.
    @discardableResult
    public func copy(_ file: String, to relative: String) throws -> String {
        try makeDirectory((relative as NSString).deletingLastPathComponent)
        try FileManager.default.copyItem(atPath: file, toPath: path(relative))
        return path(relative)
    }

    /// Makes a symbolic link in it, and the directories above.
    /// - Returns: the absolute path of the link.
    @discardableResult
    public func link(_ relative: String, to target: String) throws -> String {
        try makeDirectory((relative as NSString).deletingLastPathComponent)
        try FileManager.default.createSymbolicLink(atPath: path(relative), withDestinationPath: target)
        return path(relative)
    }
}
