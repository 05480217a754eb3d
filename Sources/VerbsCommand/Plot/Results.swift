import FoundationEssentials
import Glibc
import SystemPackage

/// The contents of a JSON document of `verbs perf` that a picture shows.
struct PerfResult: Decodable {
    struct Run: Decodable {
        struct Peer: Decodable {
            var device: String
            var provider: String
        }

        var transport: Transport
        var client: Peer
        var server: Peer
    }

    struct Row: Decodable {
        var operation: Operation
        var size: Int
        var latencyNanoseconds: LatencySummary?
        var bytesPerSecond: Double
    }

    /// The name of the document.
    static let schema = PerfReport.schemaName

    var run: Run
    var window: Int
    var batch: Int
    /// Nil in a document of an earlier version: 1.
    var queuePairs: Int?
    /// Nil in a document of an earlier version: 1.
    var pairs: Int?
    var rows: [Row]
}

/// The contents of a JSON document of `verbs ping` that a picture shows.
struct PingResult: Decodable {
    /// The name of the document.
    static let schema = PingReport.schemaName

    var run: PerfResult.Run
    var operation: Operation
    var size: Int
    var measured: UInt64
    var latencyNanoseconds: LatencySummary?
    var isRoundTrip: Bool
    var histogram: [HistogramChart.Range]
}

/// A result with the name that the picture shows, such as the name of its file.
struct Named<Result> {
    var name: String
    var result: Result
}

extension PerfResult.Run {
    init(_ run: RunDescription) {
        transport = run.transport
        client = Peer(device: run.client.device, provider: run.client.provider)
        server = Peer(device: run.server.device, provider: run.server.provider)
    }

    /// `RC, soft0 (soft)`, or both devices if they differ.
    var summary: String {
        let from = "\(client.device) (\(client.provider))"
        let to = "\(server.device) (\(server.provider))"
        return "\(transport.name), " + (from == to ? from : "\(from) to \(to)")
    }
}

extension PerfResult {
    init(_ report: PerfReport) {
        run = Run(report.run)
        window = report.window
        batch = report.batch
        queuePairs = report.queuePairs
        pairs = report.pairs
        rows = report.rows.map { row in
            Row(
                operation: row.operation, size: row.size, latencyNanoseconds: row.latencyNanoseconds,
                bytesPerSecond: row.bytesPerSecond)
        }
    }
}

extension PerfResult {
    /// `window 64, batch 16`, and the numbers of queue pairs and of pairs of processes if they are not 1.
    var settings: String {
        var text = "window \(window), batch \(batch)"
        if let queuePairs, queuePairs != 1 { text += ", \(queuePairs) queue pairs" }
        if let pairs, pairs != 1 { text += ", \(pairs) pairs of processes" }
        return text
    }
}

extension PingResult {
    init(_ report: PingReport) {
        run = PerfResult.Run(report.run)
        operation = report.operation
        size = report.size
        measured = report.measured
        latencyNanoseconds = report.latencyNanoseconds
        isRoundTrip = report.isRoundTrip
        histogram = report.histogram
    }
}

/// JSON documents to draw, all of one kind.
enum Results {
    case perf([Named<PerfResult>])
    case ping([Named<PingResult>])

    /// The largest file that is read, in bytes. A document of verbs has some kilobytes.
    static let largestFile = 16 << 20
    /// The largest number of rows or ranges in a document.
    private static let mostRows = 4096
    private static let sizes = 0...(1 << 40)

    /// Reads files. Their names, without folders that all have in common and without `.json`, name the results.
    static func read(_ paths: [String]) throws(ToolError) -> Results {
        var documents: [(path: String, data: Data)] = []
        for path in paths { documents.append((path, try contents(of: path))) }
        return try decode(documents)
    }

    /// Decodes documents; `path` is that of the file, for messages.
    static func decode(_ documents: [(path: String, data: Data)]) throws(ToolError) -> Results {
        struct Header: Decodable { var schema: String }
        var perf: [Named<PerfResult>] = []
        var ping: [Named<PingResult>] = []
        let names = names(of: documents.map(\.path))
        for ((path, data), name) in zip(documents, names) {
            let schema: String = try decoding(path) { try JSONDecoder().decode(Header.self, from: data).schema }
            switch schema {
            case PerfResult.schema:
                let result = try decoding(path) { try JSONDecoder().decode(PerfResult.self, from: data) }
                try check(result, path)
                perf.append(Named(name: name, result: result))
            case PingResult.schema:
                let result = try decoding(path) { try JSONDecoder().decode(PingResult.self, from: data) }
                try check(result, path)
                ping.append(Named(name: name, result: result))
            default: throw unknown(schema, path)
            }
            if let one = perf.first, let other = ping.first {
                let paths = documents.map(\.path)
                let (first, second) = (
                    paths[names.firstIndex(of: one.name) ?? 0], paths[names.firstIndex(of: other.name) ?? 0]
                )
                throw ToolError(
                    .failure, "\(first) is a result of verbs perf, and \(second) one of verbs ping",
                    hint: "draw results of perf in one picture and results of ping in another")
            }
        }
        return perf.isEmpty ? .ping(ping) : .perf(perf)
    }

    /// The shortest endings of the paths that differ, without `.json`; equal paths get a number.
    static func names(of paths: [String]) -> [String] {
        let parts = paths.map { $0.split(separator: "/").map(String.init) }
        let depth = parts.map(\.count).max() ?? 1
        var names: [String] = []
        for length in 1...max(depth, 1) {
            names = parts.map { parts in
                let name = parts.suffix(length).joined(separator: "/")
                return name.hasSuffix(".json") && name.count > 5 ? String(name.dropLast(5)) : name
            }
            if Set(names).count == names.count { return names }
        }
        return names.enumerated().map { "\($0 + 1): \($1)" }
    }

    // MARK: Reading

    private static func contents(of path: String) throws(ToolError) -> Data {
        do {
            let file = try FileDescriptor.open(FilePath(path), .readOnly)
            return try file.closeAfter {
                var bytes: [UInt8] = []
                let chunk = 64 << 10
                while bytes.count <= largestFile {
                    let part = try [UInt8](unsafeUninitializedCapacity: chunk) { buffer, count in
                        count = try file.read(into: UnsafeMutableRawBufferPointer(buffer))
                    }
                    if part.isEmpty { return Data(bytes) }
                    bytes += part
                }
                throw unreadable(path, "it has more than \(Units.size(UInt64(largestFile)))")
            }
        } catch let error as Errno {
            throw ToolError(
                .failure, "cannot read \(path): \(error)",
                hint: "write a result into a file: verbs perf --json >\(path)")
        } catch {
            throw error as? ToolError ?? unreadable(path, "\(error)")
        }
    }

    private static func decoding<Value>(_ path: String, _ body: () throws -> Value) throws(ToolError) -> Value {
        do {
            return try body()
        } catch {
            throw unreadable(path, (error as? DecodingError)?.place ?? "it is not JSON")
        }
    }

    private static func unreadable(_ path: String, _ why: String) -> ToolError {
        ToolError(
            .failure, "\(path) is not a result of verbs: \(why)",
            hint: "give files that verbs perf --json or verbs ping --json has written")
    }

    private static func unknown(_ schema: String, _ path: String) -> ToolError {
        let known = [PerfResult.schema, PingResult.schema]
        let stem = schema.split(separator: "-").dropLast().joined(separator: "-")
        if let ours = known.first(where: { $0.hasPrefix(stem + "-") && $0.split(separator: "-").count == 3 }),
            !stem.isEmpty, stem != "verbs"
        {
            return ToolError(
                .failure,
                "\(path) has version \"\(schema)\" of the document, and this version of verbs reads \"\(ours)\"",
                hint: "measure again with this version of verbs, or draw it with the version that has written it")
        }
        return ToolError(
            .failure, "\(path) contains \"\(schema)\", which has no picture",
            hint: "give results of verbs perf --json or of verbs ping --json (not of ping --all)")
    }

    // MARK: Checking

    private static func check(_ result: PerfResult, _ path: String) throws(ToolError) {
        guard result.rows.count <= mostRows else { throw unreadable(path, "it has more than \(mostRows) rows") }
        for (index, row) in result.rows.enumerated() {
            guard sizes.contains(row.size) else {
                throw unreadable(path, "rows.\(index).size is \(row.size), not a size of a message")
            }
            guard row.bytesPerSecond >= 0, row.bytesPerSecond <= 1e18 else {
                throw unreadable(path, "rows.\(index).bytesPerSecond is not a rate")
            }
        }
        guard !result.rows.isEmpty else { throw nothingMeasured(path) }
    }

    private static func check(_ result: PingResult, _ path: String) throws(ToolError) {
        guard sizes.contains(result.size) else {
            throw unreadable(path, "size is \(result.size), not a size of a message")
        }
        guard result.histogram.count <= mostRows else { throw unreadable(path, "it has more than \(mostRows) ranges") }
        var end: UInt64 = 0
        var total: UInt64 = 0
        for (index, range) in result.histogram.enumerated() {
            let (sum, overflow) = total.addingReportingOverflow(range.count)
            guard range.from >= end, range.to > range.from, !overflow else {
                throw unreadable(path, "histogram.\(index) is not a range above the one before it")
            }
            (end, total) = (range.to, sum)
        }
        guard total > 0 else { throw nothingMeasured(path) }
    }

    private static func nothingMeasured(_ path: String) -> ToolError {
        ToolError(
            .failure, "\(path): nothing was measured, so there is nothing to draw",
            hint: "measure again, and let at least one operation end")
    }
}

extension DecodingError {
    /// Where and why a document cannot be decoded.
    fileprivate var place: String {
        func path(_ context: Context, _ last: [any CodingKey] = []) -> String {
            (context.codingPath + last).map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".")
        }
        switch self {
        case .keyNotFound(let key, let context): return "\(path(context, [key])) is missing"
        case .valueNotFound(_, let context): return "\(path(context)) is null"
        case .typeMismatch(let type, let context):
            return context.codingPath.isEmpty ? "it is not a JSON object" : "\(path(context)) is not of type \(type)"
        case .dataCorrupted(let context):
            let place = path(context)
            return place.isEmpty ? "it is not JSON" : "\(place): \(context.debugDescription)"
        @unknown default: return "it is not JSON"
        }
    }
}
