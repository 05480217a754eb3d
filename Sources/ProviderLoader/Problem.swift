/// Something that could not be read or used while the system was looked at: a driver file, a device, a setting.
public struct Problem: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    /// Path of the file or directory; nil for a setting, and for a software device.
    public var path: String?
    /// Line within the file, from 1; nil where the problem is of the whole file.
    public var line: Int?
    /// The problem, as one sentence.
    public var message: String
    /// What the user can try.
    public var hint: String
    /// The errno value that kept the devices from being listed; nil where all devices are known.
    public var code: Int32?

    /// A problem of a file, or without a path of a setting or a software device.
    public init(path: String?, line: Int? = nil, message: String, hint: String, code: Int32? = nil) {
        self.code = code
        self.path = path
        self.line = line
        self.message = message
        self.hint = hint
    }

    /// `PATH:LINE: message; hint`.
    public var description: String {
        let place = [path, line.map(String.init)].compactMap { $0 }.joined(separator: ":")
        return (place.isEmpty ? "" : place + ": ") + message + (hint.isEmpty ? "" : "; " + hint)
    }
}
