/// Every device, with every candidate for it: what `verbs providers` prints.
public struct Survey: Sendable, Hashable, Codable {
    /// One device and those who stand for election.
    public struct Entry: Sendable, Hashable, Codable {
        /// The device.
        public var device: DeviceDescription
        /// All candidates: first those that may serve it, in rank order, then the others.
        public var candidates: [Candidate]
        /// What a user should know although the device is served: "… refuses, libibverbs serves it".
        public var warnings: [String]
        /// Why nobody may serve the device, as `open` would throw it; nil where one is chosen.
        public var error: LoaderError?

        /// The candidate that serves the device; nil when none does.
        public var chosen: Candidate? {
            candidates.first { $0.verdict.outcome == .chosen }
        }
    }

    /// The devices: those of the kernel by name (`mlx5_2` before `mlx5_10`), then the software devices.
    public var entries: [Entry]
    /// What is wrong apart from single devices: driver files with errors, ignored settings.
    public var problems: [Problem]
    /// Warnings and errors that providers have logged in this process, oldest first (the latest 256).
    public var messages: [LogMessage]

    /// The entry of the device with that name.
    public subscript(deviceName: String) -> Entry? {
        entries.first { $0.device.name == deviceName }
    }
}

/// Something that the loader passed over, and what to do about it.
public struct Problem: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    /// File or directory that it is about; nil where it is about a setting.
    public var path: String?
    /// Line within the file, from 1; nil where it is about all of it.
    public var line: Int?
    /// What is wrong.
    public var sentence: String
    /// What to try.
    public var hint: String

    /// A problem of a file, or with no path of a setting.
    public init(path: String?, line: Int? = nil, sentence: String, hint: String) {
        self.path = path
        self.line = line
        self.sentence = sentence
        self.hint = hint
    }

    /// `PATH:LINE: what is wrong; what to try`.
    public var description: String {
        let place = [path, line.map(String.init)].compactMap { $0 }.joined(separator: ":")
        return (place.isEmpty ? "" : place + ": ") + sentence + (hint.isEmpty ? "" : "; " + hint)
    }
}
