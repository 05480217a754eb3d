import FoundationEssentials
import Glibc
import Locking
import ProviderLoader
import SystemPackage

/// Data goes to standard output, messages go to standard error.
enum Console {
    /// Opens /dev/null on standard descriptors that are closed, so that no file opened later gets their numbers.
    /// Writing to an output that was closed is an error.
    static func prepare() {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            _ = open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY)
        }
    }

    /// Writes data. If the reader has closed the pipe (`verbs devices | head -1`), the program ends without a message.
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

    /// Prints a message on standard error.
    static func note(_ text: String) {
        Progress.clear()
        let lines = text.split(separator: "\n").map { String($0).printable + "\n" }
        write(lines.joined(), to: STDERR_FILENO)
    }

    /// Prints the warnings and errors that providers and the loader have logged, below an error, except those that
    /// RDMA_LOG printed or that the error contains.
    static func noteWarnings(after error: ToolError) {
        guard error.exit != .usage else { return }
        let printed = LogMessage.printedLevel
        for message in ProviderLoader.messages where printed.map({ message.level > $0 }) ?? true {
            guard !error.text.contains(message.text) else { continue }
            note("  \(message.level.name) from \(message.provider): \(message.text)")
        }
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
                    note(
                        ToolError(
                            .failure, "cannot write to standard output: \(cause)",
                            hint: "redirect the output to another file"
                        ).text)
                }
                exit(ToolExit.failure.rawValue)
            }
        }
    }
}

/// A line on standard error with the progress of a long run; only on a terminal.
enum Progress {
    /// Time between two updates, in nanoseconds.
    static let interval: UInt64 = 100_000_000

    private static let shown = Locked<Bool>(false)
    private static let onTerminal = isatty(STDERR_FILENO) == 1

    static func show(_ text: @autoclosure () -> String) {
        guard onTerminal else { return }
        shown.withLock { $0 = true }
        Console.write("\r\u{1B}[K" + text().printable, to: STDERR_FILENO)
    }

    /// Clears the line.
    static func clear() {
        let wasShown = shown.withLock { shown in
            defer { shown = false }
            return shown
        }
        if wasShown { Console.write("\r\u{1B}[K", to: STDERR_FILENO) }
    }
}

extension [String] {
    /// The warnings and errors that providers and the loader have logged in this process, as `PROVIDER: TEXT`. They are
    /// the member `warnings` of JSON documents.
    static var ofProviders: [String] {
        ProviderLoader.messages.filter { $0.level <= .warning }.map { "\($0.provider): \($0.text)" }
    }
}
