extension DriverFile {
    /// Parses the contents of the driver file at `path`.
    ///
    /// - Throws: The first error, as a `Problem` with path, line, message and hint.
    public init(parsing contents: [UInt8], path: String) throws(Problem) {
        var parser = DriverFileParser(path: path)
        self = try parser.parse(contents)
    }
}

/// Reads the lines of one driver file.
struct DriverFileParser {
    private let path: String
    /// The line that is being read, from 1.
    private var line = 0
    private var file = DriverFile(name: "", matches: [], isCritical: false)
    /// The line of the first occurrence of each keyword.
    private var seen: [Keyword: Int] = [:]

    /// Every keyword of the syntax.
    enum Keyword: String, CaseIterable {
        case driver, library, version, vendor
        case providerABI = "provider-abi"
        case kernelABI = "kernel-abi"
        case match
        case listDevices = "list-devices"
        case critical, proved, until
    }

    init(path: String) {
        self.path = path
    }

    mutating func parse(_ contents: [UInt8]) throws(Problem) -> DriverFile {
        guard contents.count <= DriverFile.maximumSize else {
            throw Problem(
                path: path, message: "the file is larger than \(DriverFile.maximumSize) bytes",
                hint: "a driver file is a few lines of text; is this one?")
        }
        guard !contents.starts(with: [0xEF, 0xBB, 0xBF]) else {
            throw Problem(
                path: path, line: 1, message: "the file begins with a byte order mark",
                hint: "save it as UTF-8 without one")
        }
        for bytes in contents.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            line += 1
            try parse(line: bytes)
        }
        guard seen[.driver] != nil else {
            throw Problem(
                path: path, message: "there is no `driver` line",
                hint: "name the provider: `driver NAME`; to mask a provider, leave the file wholly empty")
        }
        return file
    }

    private mutating func parse(line bytes: ArraySlice<UInt8>) throws(Problem) {
        // Windows ends lines with CR LF.
        let bytes = bytes.last == UInt8(ascii: "\r") ? bytes.dropLast() : bytes
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw problem("the line is not UTF-8", "save the file as UTF-8")
        }
        if let control = text.unicodeScalars.first(where: { $0.properties.generalCategory == .control && $0 != "\t" }) {
            throw problem("the line holds the control character U+\(hexadecimal(UInt16(control.value)))", "remove it")
        }
        let statement = text.utf8.beforeComment.trimmed
        guard !statement.isEmpty else { return }
        let (word, value) = statement.firstWord
        guard let keyword = Keyword(rawValue: word) else {
            let known = Keyword.allCases.map(\.rawValue).joined(separator: ", ")
            throw problem("unknown keyword `\(word)`", "the keywords are \(known)")
        }
        guard !value.isEmpty else {
            throw problem("`\(word)` has no value", "write `\(word) VALUE`, or remove the line")
        }
        if keyword != .match {
            if let first = seen[keyword] {
                throw problem("`\(word)` is given twice, first on line \(first)", "keep one of the two")
            }
            seen[keyword] = line
        }
        try parse(keyword, value)
    }

    private mutating func parse(_ keyword: Keyword, _ value: String) throws(Problem) {
        switch keyword {
        case .driver: file.name = try providerName(value)
        case .library: file.library = try libraryPath(value)
        case .version: file.version = try version(keyword, value)
        case .vendor: file.vendor = value
        case .providerABI: file.providerABI = try abiVersion(value)
        case .kernelABI: file.kernelABI = try window(value)
        case .match: file.matches.append(try match(value))
        case .listDevices: file.listsDevices = try yes(keyword, value)
        case .critical: file.isCritical = try yes(keyword, value)
        case .proved:
            guard let proof = DriverFile.Proof(rawValue: value) else {
                throw bad(.proved, value, "write `silicon` or `simulator`")
            }
            file.proof = proof
        case .until: file.until = try version(keyword, value)
        }
    }

    private func yes(_ keyword: Keyword, _ value: String) throws(Problem) -> Bool {
        guard ["yes", "no"].contains(value) else { throw bad(keyword, value, "write `yes` or `no`") }
        return value == "yes"
    }

    private func providerName(_ value: String) throws(Problem) -> String {
        guard isProviderName(value) else {
            throw bad(.driver, value, "a name is made of a-z, 0-9, `_` and `-`, and has at most 63 bytes")
        }
        return value
    }

    private func libraryPath(_ value: String) throws(Problem) -> String {
        // PATH_MAX of <linux/limits.h>, less the terminating zero.
        guard value.utf8.count < 4096, value.utf8.last != UInt8(ascii: "/") else {
            throw bad(.library, value, "give the path of a file, of at most 4095 bytes")
        }
        return value
    }

    private func version(_ keyword: Keyword, _ value: String) throws(Problem) -> ProviderVersion {
        guard let version = ProviderVersion(value) else {
            throw bad(
                keyword, value,
                "write dotted numbers, and if need be a suffix that begins with `~` (a preview), `-` or `+`: 1.4.2-1")
        }
        return version
    }

    private func abiVersion(_ value: String) throws(Problem) -> ABIVersion {
        let parts = value.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 2, let major: UInt16 = number(parts[0]), let minor: UInt16 = number(parts[1]) else {
            throw bad(.providerABI, value, "write MAJOR.MINOR, the lowest version that the library works with")
        }
        return ABIVersion(major: major, minor: minor)
    }

    private func window(_ value: String) throws(Problem) -> ClosedRange<UInt32> {
        if let single: UInt32 = number(value.utf8[...]) { return single...single }
        let bytes = Array(value.utf8)
        if let dot = bytes.firstIndex(of: UInt8(ascii: ".")), bytes[(dot + 1)...].first == UInt8(ascii: "."),
            let low: UInt32 = number(bytes[..<dot]), let high: UInt32 = number(bytes[(dot + 2)...]), low <= high
        {
            return low...high
        }
        throw bad(.kernelABI, value, "write MIN..MAX, or a single number")
    }

    private func match(_ value: String) throws(Problem) -> DriverFile.Match {
        let (kind, what) = value.utf8[...].trimmed.firstWord
        switch kind {
        case "driver-id":
            if let id: UInt32 = number(what.utf8[...]), id != .max { return .driverID(id) }
        case "pci":
            let parts = what.utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            if parts.count == 2, let vendor = pciNumber(parts[0]) {
                if parts[1].elementsEqual("*".utf8) { return .pci(vendor: vendor, device: nil) }
                if let device = pciNumber(parts[1]) { return .pci(vendor: vendor, device: device) }
            }
        case "name":
            if let pattern = NamePattern(what) { return .name(pattern) }
        default:
            break
        }
        throw bad(
            .match, value,
            "write `match driver-id NUMBER`, `match pci VVVV:DDDD` (four hexadecimal digits each, `*` for any device), "
                + "or `match name PATTERN`")
    }

    /// A decimal number: digits only, no sign.
    private func number<N: FixedWidthInteger>(_ bytes: some Collection<UInt8>) -> N? {
        guard !bytes.isEmpty, bytes.allSatisfy(\.isDigit) else { return nil }
        return N(String(decoding: bytes, as: UTF8.self))
    }

    /// Exactly four hexadecimal digits.
    private func pciNumber(_ bytes: some Collection<UInt8>) -> UInt16? {
        guard bytes.count == 4, bytes.allSatisfy({ $0.isDigit || $0.isLetter }) else { return nil }
        return UInt16(String(decoding: bytes, as: UTF8.self), radix: 16)
    }

    private func bad(_ keyword: Keyword, _ value: String, _ hint: String) -> Problem {
        problem("`\(keyword.rawValue)` cannot be `\(value)`", hint)
    }

    private func problem(_ message: String, _ hint: String) -> Problem {
        Problem(path: path, line: line, message: message, hint: hint)
    }
}

/// Whether `name` may be the name of a provider (`rdma_provider.name` of rdma_provider.h).
func isProviderName(_ name: String) -> Bool {
    (1...63).contains(name.utf8.count)
        && name.utf8.allSatisfy {
            $0.isDigit || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) || "_-".utf8.contains($0)
        }
}

extension BidirectionalCollection where Element == UInt8, SubSequence == Substring.UTF8View {
    /// The bytes before a comment: a `#` at the beginning or behind a blank.
    fileprivate var beforeComment: Substring.UTF8View {
        var previous = UInt8(ascii: " ")
        for index in indices {
            if self[index] == UInt8(ascii: "#"), previous.isBlank { return self[..<index] }
            previous = self[index]
        }
        return self[...]
    }

    /// Without the blanks at both ends.
    fileprivate var trimmed: Substring.UTF8View {
        guard let first = firstIndex(where: { !$0.isBlank }), let last = lastIndex(where: { !$0.isBlank }) else {
            return self[..<startIndex]
        }
        return self[first...last]
    }

    /// The first word, and the rest without the blanks between them.
    fileprivate var firstWord: (word: String, rest: String) {
        let end = firstIndex(where: \.isBlank) ?? endIndex
        return (String(Substring(self[..<end])), String(Substring(self[end...].trimmed)))
    }
}

extension UInt8 {
    fileprivate var isBlank: Bool { self == UInt8(ascii: " ") || self == UInt8(ascii: "\t") }
}
