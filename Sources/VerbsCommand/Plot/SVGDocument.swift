import FoundationEssentials
import Glibc
import SystemPackage

/// Builds the text of an SVG document: elements one after the other, then the header with size, title and style.
///
/// Text stays text, so that it can be searched and read aloud; the document refers to no other file, font or script.
/// The style has colors for a light and for a dark background (`prefers-color-scheme`).
struct SVGDocument {
    /// The number of series that have a color and a marker of their own.
    static let seriesCount = 8

    private var body = ""

    /// Adds an element.
    ///
    /// - Parameters:
    ///   - text: Its text content; nil: it is empty.
    ///   - tooltip: The text that viewers show while the pointer is over it; nil: none.
    mutating func add(
        _ name: String, _ attributes: KeyValuePairs<String, String>, text: String? = nil, tooltip: String? = nil
    ) {
        let content = (tooltip.map { "<title>\($0.xmlEscaped)</title>" } ?? "") + (text?.xmlEscaped ?? "")
        body += Self.tag(name, attributes) + (content.isEmpty ? "/>\n" : ">\(content)</\(name)>\n")
    }

    /// Adds text at a position.
    ///
    /// - Parameters:
    ///   - anchor: The part of the text at `x`: `start`, `middle` or `end`.
    ///   - style: Classes of the style.
    mutating func add(text: String, x: Double, y: Double, anchor: String = "start", style: String) {
        add(
            "text", ["x": Self.number(x), "y": Self.number(y), "text-anchor": anchor, "class": style], text: text)
    }

    /// Adds a straight line.
    mutating func addLine(from: (x: Double, y: Double), to: (x: Double, y: Double), style: String) {
        add(
            "path",
            [
                "d": "M\(Self.number(from.x)) \(Self.number(from.y))L\(Self.number(to.x)) \(Self.number(to.y))",
                "class": style,
            ])
    }

    /// Adds a line through points.
    mutating func addLine(through points: [(x: Double, y: Double)], style: String) {
        let steps = points.map { "\(Self.number($0.x)) \(Self.number($0.y))" }
        add("path", ["d": "M" + steps.joined(separator: "L"), "class": style])
    }

    /// Adds the marker of a series, centered at a position.
    mutating func addMarker(_ series: Int, x: Double, y: Double, style: String, tooltip: String? = nil) {
        add(
            "use",
            [
                "href": "#m\(series % Self.seriesCount)", "x": Self.number(x), "y": Self.number(y),
                "class": "\(Self.style(ofSeries: series)) \(style)",
            ], tooltip: tooltip)
    }

    /// Adds a rectangle.
    mutating func addRectangle(
        x: Double, y: Double, width: Double, height: Double, style: String, tooltip: String? = nil
    ) {
        add(
            "rect",
            [
                "x": Self.number(x), "y": Self.number(y), "width": Self.number(width), "height": Self.number(height),
                "class": style,
            ], tooltip: tooltip)
    }

    /// The class with the color of a series.
    static func style(ofSeries series: Int) -> String { "s\(series % seriesCount)" }

    /// The whole document.
    func text(width: Double, height: Double, title: String, description: String) -> String {
        let size = "\(Self.number(width)) \(Self.number(height))"
        let header = Self.tag(
            "svg",
            [
                "xmlns": "http://www.w3.org/2000/svg", "viewBox": "0 0 \(size)", "width": Self.number(width),
                "height": Self.number(height), "role": "img", "aria-labelledby": "title description",
            ])
        return """
            <?xml version="1.0" encoding="UTF-8"?>
            \(header)>
            <title id="title">\(title.xmlEscaped)</title>
            <desc id="description">\(description.xmlEscaped)</desc>
            <style>
            \(Self.rules)
            </style>
            <defs>
            \(Self.markers.enumerated().map { #"<path id="m\#($0)" d="\#($1)"/>"# }.joined(separator: "\n"))
            </defs>
            <rect class="page" width="100%" height="100%"/>
            \(body)</svg>

            """
    }

    private static func tag(_ name: String, _ attributes: KeyValuePairs<String, String>) -> String {
        "<\(name)" + attributes.map { " \($0)=\"\($1.xmlEscaped)\"" }.joined()
    }

    /// A coordinate, rounded to a tenth.
    static func number(_ value: Double) -> String {
        let tenths = Int((min(max(value, -1e6), 1e6) * 10).rounded())
        let sign = tenths < 0 ? "-" : ""
        let fraction = abs(tenths) % 10
        return "\(sign)\(abs(tenths) / 10)" + (fraction == 0 ? "" : ".\(fraction)")
    }

    // MARK: Style

    private static let markers = [
        "M-4 0A4 4 0 1 1 4 0A4 4 0 1 1-4 0Z", "M-3.6-3.6H3.6V3.6H-3.6Z", "M0-4.8L4.4 3.2H-4.4Z", "M0-5L5 0L0 5L-5 0Z",
        "M0 4.8L4.4-3.2H-4.4Z", "M-1.6-4.6H1.6V-1.6H4.6V1.6H1.6V4.6H-1.6V1.6H-4.6V-1.6H-1.6Z",
        "M-4.8 0L3.2-4.4V4.4Z", "M4.8 0L-3.2-4.4V4.4Z",
    ]

    private struct Theme {
        var page: String
        var ink: String
        var quiet: String
        var grid: String
        var series: [String]

        var rules: String {
            let colors = series.enumerated().map { ".s\($0){stroke:\($1);fill:\($1)}" }
            return
                ([
                    ".page{fill:\(page)}", "text{fill:\(ink)}", ".quiet{fill:\(quiet)}",
                    ".grid{stroke:\(grid)}", ".axis,.key{stroke:\(quiet)}",
                ] + colors + [".hollow{fill:\(page)}"]).joined(separator: "\n")
        }
    }

    private static let light = Theme(
        page: "#ffffff", ink: "#1f2328", quiet: "#59636e", grid: "#dfe3e8",
        series: ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#0e7490", "#57606a"])

    private static let dark = Theme(
        page: "#0d1117", ink: "#e6edf3", quiet: "#9aa4af", grid: "#2a313c",
        series: ["#58a6ff", "#f0883e", "#3fb950", "#bc8cff", "#f778ba", "#d9b23a", "#39c5cf", "#b1bac4"])

    /// Later rules override earlier ones of the same specificity, so the shapes come last.
    private static let rules = """
        \(light.rules)
        @media (prefers-color-scheme:dark){
        \(dark.rules)
        }
        text{font-family:system-ui,sans-serif;font-size:12px;stroke:none}
        .heading{font-size:16px;font-weight:600}
        .panel{font-size:13px;font-weight:600}
        .grid,.axis{fill:none;stroke-width:1}
        .line,.key{fill:none;stroke-width:2}
        .dashed{stroke-dasharray:5 4;stroke-width:1.5}
        .marker{stroke-width:1.5}
        .area{fill-opacity:.2;stroke:none}
        .bar{stroke:none;fill-opacity:.75}
        """

    // MARK: Text

    /// An estimate of the width of text, which depends on the viewer's font; rather too large.
    static func width(of text: String, fontSize: Double = 12) -> Double {
        text.unicodeScalars.reduce(0) { width, scalar in
            let em =
                switch scalar {
                case "i", "l", "j", "t", "f", ".", ",", ":", ";", "'", "|", "!", "(", ")", "[", "]", " ": 0.36
                case "m", "w", "M", "W", "@", "%": 0.95
                case "A"..."Z", "_", "…": 0.72
                case "\u{1100}"...: 1.05
                default: 0.6
                }
            return width + em * fontSize
        }
    }

    /// More Unicode scalars than any line of a picture shows.
    private static let mostScalars = 400

    /// The text, without its last characters if it is wider than `width`.
    static func fitted(_ text: String, width: Double, fontSize: Double = 12) -> String {
        guard self.width(of: text, fontSize: fontSize) > width else { return text }
        // The loop below takes time quadratic in the length.
        var shorter = String(String.UnicodeScalarView(text.unicodeScalars.prefix(mostScalars)))
        while !shorter.isEmpty, self.width(of: shorter + "…", fontSize: fontSize) > width { shorter.removeLast() }
        return shorter + "…"
    }
}

extension String {
    /// The text as content or attribute value of an XML document. Characters that XML does not allow are replaced.
    var xmlEscaped: String {
        var escaped = ""
        for scalar in printable.unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "\u{FFFE}", "\u{FFFF}": escaped += "?"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}

/// A file that a command writes: a picture.
enum OutputFile {
    /// Throws if the file cannot be written, as far as that is known beforehand: before a long measurement.
    static func check(_ path: String) throws(ToolError) {
        var status = stat()
        if stat(path, &status) == 0 {
            guard status.st_mode & S_IFMT != S_IFDIR else { throw failure(path, .isDirectory) }
            guard access(path, W_OK) == 0 else { throw failure(path, Errno(rawValue: errno)) }
        } else {
            let folder = FilePath(path).removingLastComponent()
            let name = folder.isEmpty ? "." : folder.string
            guard access(name, W_OK | X_OK) == 0 else { throw failure(path, Errno(rawValue: errno)) }
        }
    }

    /// Writes text to a file, and replaces what it contained. If writing fails, a regular file keeps its contents,
    /// provided that its directory allows a temporary file.
    static func write(_ text: String, to path: String) throws(ToolError) {
        do {
            if let target = replaceable(path), try replace(target, with: text) { return }
            let file = try FileDescriptor.open(
                FilePath(path), .writeOnly, options: [.create, .truncate], permissions: permissions)
            try file.closeAfter { _ = try file.writeAll(text.utf8) }
        } catch {
            throw failure(path, error as? Errno ?? .ioError)
        }
    }

    private static let permissions: FilePermissions = [.ownerReadWrite, .groupRead, .otherRead]

    /// The regular file that a path names, symbolic links resolved, or the path itself if nothing has it; nil: it names
    /// something else, such as a device or a pipe.
    private static func replaceable(_ path: String) -> String? {
        var status = stat()
        guard lstat(path, &status) == 0 else { return errno == ENOENT ? path : nil }
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, let resolved = realpath(path, nil) else {
            return nil
        }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// Writes a temporary file beside `target`, and renames it to `target`.
    ///
    /// - Returns: False if the directory does not allow that: then `target` is unchanged, and may be writable itself.
    private static func replace(_ target: String, with text: String) throws -> Bool {
        let temporary = "\(target).\(getpid()).tmp"
        let opened = try? FileDescriptor.open(
            FilePath(temporary), .writeOnly, options: [.create, .exclusiveCreate], permissions: permissions)
        guard let file = opened else { return false }
        var isRenamed = false
        defer { if !isRenamed { unlink(temporary) } }
        try file.closeAfter {
            var status = stat()
            if stat(target, &status) == 0 {
                // Fails unless the owner is this user, or this user is root.
                _ = fchown(file.rawValue, status.st_uid, status.st_gid)
                _ = fchmod(file.rawValue, status.st_mode & 0o777)
            }
            _ = try file.writeAll(text.utf8)
        }
        isRenamed = rename(temporary, target) == 0
        return isRenamed
    }

    /// Whether two descriptions are of one regular file.
    private static func isSame(_ one: stat, _ other: stat) -> Bool {
        one.st_dev == other.st_dev && one.st_ino == other.st_ino && one.st_mode & S_IFMT == S_IFREG
    }

    /// Whether two paths name one regular file.
    static func isSame(_ one: String, _ other: String) -> Bool {
        var (first, second) = (stat(), stat())
        return stat(one, &first) == 0 && stat(other, &second) == 0 && isSame(first, second)
    }

    /// Whether standard output goes to the regular file that a path names.
    static func isStandardOutput(_ path: String) -> Bool {
        var (first, second) = (stat(), stat())
        return stat(path, &first) == 0 && fstat(STDOUT_FILENO, &second) == 0 && isSame(first, second)
    }

    private static func failure(_ path: String, _ cause: Errno) -> ToolError {
        ToolError(
            .failure, "cannot write \(path): \(cause)", hint: "name a file in a directory that exists and is writable")
    }
}
