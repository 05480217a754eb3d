import FoundationEssentials
import Glibc
import ProviderLoader
import SystemPackage

/// Standard output carries data only, standard error everything said about it.
enum Console {
    /// Keeps the standard descriptors taken: what is opened later must not be mistaken for one that the program was
    /// started without. Writing to such an output is an error.
    static func prepare() {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            _ = open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY)
        }
    }

    /// Writes data. A reader that has gone (`verbs devices | head -1`) ends the program quietly.
    static func output(_ text: String) {
        write(text, to: STDOUT_FILENO)
    }

    /// Writes one JSON document, with sorted keys and a newline at its end.
    static func output(json document: some Encodable) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        output(String(decoding: try encoder.encode(document), as: UTF8.self) + "\n")
    }

    /// Writes one JSON document in one line.
    static func output(line document: some Encodable) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(document) else { return }
        output(String(decoding: data, as: UTF8.self) + "\n")
    }

    /// Says something to the user.
    static func note(_ text: String) {
        Progress.clear()
        let lines = text.split(separator: "\n").map { String($0).printable + "\n" }
        write(lines.joined(), to: STDERR_FILENO)
    }

    fileprivate static func write(_ text: String, to descriptor: CInt) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EINTR {
                let cause = Errno(rawValue: errno)
                guard descriptor == STDOUT_FILENO else { return }
                // SIGPIPE has usually ended the program before this.
                if cause != .brokenPipe {
                    note(ToolError(.failure, "cannot write to standard output: \(cause)", hint: "write elsewhere").text)
                }
                exit(ToolExit.failure.rawValue)
            }
        }
    }
}

/// A line on standard error that says how far a long run has come; only on a terminal.
enum Progress {
    /// Between two updates, in nanoseconds.
    static let interval: UInt64 = 100_000_000

    private static let shown = Locked<Bool>(false)
    private static let onTerminal = isatty(STDERR_FILENO) == 1

    static func show(_ text: @autoclosure () -> String) {
        guard onTerminal else { return }
        shown.withLock { $0 = true }
        Console.write("\r\u{1B}[K" + text().printable, to: STDERR_FILENO)
    }

    /// Takes the line away.
    static func clear() {
        let wasShown = shown.withLock { shown in
            defer { shown = false }
            return shown
        }
        if wasShown { Console.write("\r\u{1B}[K", to: STDERR_FILENO) }
    }
}
