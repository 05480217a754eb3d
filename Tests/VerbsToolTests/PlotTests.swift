import Foundation
import FoundationXML
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("Pictures: a pure function of the results")
struct PlotTests {
    // MARK: Results

    static func row(
        _ operation: VerbsCommand.Operation, _ size: Int, p50: UInt64? = 1000, p99: UInt64 = 5000, rate: Double = 1e6
    ) -> PerfResult.Row {
        PerfResult.Row(
            operation: operation, size: size,
            latencyNanoseconds: p50.map { LatencySummary(min: $0, p50: $0, p99: p99, p999: p99, max: p99, mean: $0) },
            bytesPerSecond: rate)
    }

    static func perf(_ name: String, device: String = "soft0", _ rows: [PerfResult.Row]) -> Named<PerfResult> {
        let peer = PerfResult.Run.Peer(device: device, provider: "soft")
        let run = PerfResult.Run(transport: .rc, client: peer, server: peer)
        return Named(name: name, result: PerfResult(run: run, window: 64, batch: 16, rows: rows))
    }

    static func ping(_ name: String, _ ranges: [(UInt64, UInt64, UInt64)]) -> Named<PingResult> {
        let peer = PerfResult.Run.Peer(device: "soft0", provider: "soft")
        return Named(
            name: name,
            result: PingResult(
                run: PerfResult.Run(transport: .rc, client: peer, server: peer), operation: .send, size: 64,
                measured: ranges.reduce(0) { $0 + $1.2 },
                latencyNanoseconds: LatencySummary(min: 100, p50: 200, p99: 800, p999: 800, max: 800, mean: 300),
                isRoundTrip: true, histogram: ranges.map { .init(from: $0.0, to: $0.1, count: $0.2) }))
    }

    /// Rows of six operations with twenty sizes, over five decades.
    static var many: [PerfResult.Row] {
        let operations: [VerbsCommand.Operation] = [
            .send, .sendImmediate, .write, .writeImmediate, .read, .fetchAndAdd,
        ]
        return operations.enumerated().flatMap { index, operation in
            (operation.isAtomic ? 3...3 : 1...20).map { (exponent: Int) -> PerfResult.Row in
                let size = 1 << exponent
                let latency = UInt64(300 * (index + 1) + 30 * size)
                return row(
                    operation, size, p50: latency, p99: latency * 7, rate: Double(size) / Double(300 + size / 10) * 1e9)
            }
        }
    }

    // MARK: Documents

    /// The elements of an SVG document. Fails if it is not well-formed XML.
    private final class Elements: NSObject, XMLParserDelegate {
        struct Element {
            var name: String
            var attributes: [String: String]
            var text = ""

            func number(_ name: String) -> Double? { attributes[name].flatMap(Double.init) }
            func isOf(_ style: String) -> Bool {
                attributes["class"]?.split(separator: " ").contains { $0 == style } == true
            }
        }

        private(set) var all: [Element] = []
        private var open: [Int] = []

        init(_ text: String) throws {
            super.init()
            let parser = XMLParser(data: Data(text.utf8))
            parser.delegate = self
            let isWellFormed = parser.parse()
            try #require(isWellFormed, "\(String(describing: parser.parserError)): \(text)")
        }

        func parser(
            _ parser: XMLParser, didStartElement elementName: String, namespaceURI: String?,
            qualifiedName qName: String?, attributes attributeDict: [String: String] = [:]
        ) {
            open.append(all.count)
            all.append(Element(name: elementName, attributes: attributeDict))
        }

        func parser(
            _ parser: XMLParser, didEndElement elementName: String, namespaceURI: String?, qualifiedName qName: String?
        ) { open.removeLast() }

        func parser(_ parser: XMLParser, foundCharacters string: String) {
            if let last = open.last { all[last].text += string }
        }

        func texts(_ style: String) -> [Element] { all.filter { $0.name == "text" && $0.isOf(style) } }

        /// The markers of a series, without that in the legend.
        func markers(_ series: Int, hollow: Bool) -> [Element] {
            let found = all.filter { $0.name == "use" && $0.isOf("s\(series)") && $0.isOf("hollow") == hollow }
            return hollow ? found : Array(found.dropFirst())
        }
    }

    /// Interpolates between two labelled ticks: the position of a value, independent of the code under test.
    private func position(
        of value: Double, between one: (value: Double, at: Double), _ other: (value: Double, at: Double)
    ) -> Double {
        one.at + (log2(value) - log2(one.value)) / (log2(other.value) - log2(one.value)) * (other.at - one.at)
    }

    @Test("every point of a result is where the labelled ticks say, in latency (p50, p99) and in bandwidth")
    func points() throws {
        let rows = [
            Self.row(.send, 8, p50: 1500, p99: 40_000, rate: 2e6),
            Self.row(.send, 3000, p50: 7000, p99: 150_000, rate: 7e8),
            Self.row(.send, 1 << 20, p50: 300_000, p99: 900_000, rate: 4e9), Self.row(.fetchAndAdd, 8),
        ]
        let elements = try Elements(PerfPlot([Self.perf("a", rows)]).svg)
        func tick(_ style: String, _ text: String, panel: Int) throws -> Double {
            let ticks = elements.texts(style).filter { $0.text == text }
            // Labels of sizes are in both panels.
            let found = try #require(ticks.indices.contains(panel) ? ticks[panel] : nil, "\(text)")
            return try #require(style == "horizontal" ? found.number("x") : found.number("y").map { $0 - 4 })
        }
        let sizes = try (0...1).map { panel in
            (
                (value: 65536.0, at: try tick("horizontal", "64 KiB", panel: panel)),
                (value: Double(1 << 20), at: try tick("horizontal", "1 MiB", panel: panel))
            )
        }
        let times = (
            (value: 1e4, at: try tick("vertical", "10 us", panel: 0)),
            (value: 1e5, at: try tick("vertical", "100 us", panel: 0))
        )
        let rates = (
            (value: 1e7, at: try tick("vertical", "10 MB/s", panel: 0)),
            (value: 1e8, at: try tick("vertical", "100 MB/s", panel: 0))
        )
        let p50 = elements.markers(0, hollow: false)
        let p99 = elements.markers(0, hollow: true)
        #expect(p50.count == 6 && p99.count == 3)
        #expect(elements.markers(1, hollow: false).count == 2 && elements.markers(1, hollow: true).count == 1)
        for (index, row) in rows.prefix(3).enumerated() {
            let latency = try #require(row.latencyNanoseconds)
            let expected:
                [(Elements.Element, Int, Double, ((value: Double, at: Double), (value: Double, at: Double)))] = [
                    (p50[index], 0, Double(latency.p50), times), (p99[index], 0, Double(latency.p99), times),
                    (p50[index + 3], 1, row.bytesPerSecond, rates),
                ]
            for (marker, panel, value, ticks) in expected {
                let x = position(of: Double(row.size), between: sizes[panel].0, sizes[panel].1)
                let y = position(of: value, between: ticks.0, ticks.1)
                #expect(abs(try #require(marker.number("x")) - x) < 0.6, "\(row.size) \(value)")
                #expect(abs(try #require(marker.number("y")) - y) < 0.6, "\(row.size) \(value)")
            }
        }
        #expect(elements.texts("legend").map(\.text) == ["send", "fetch-add", "median (p50)", "99th percentile (p99)"])
        // Numbers are in the picture for those who cannot see it.
        let description = try #require(elements.all.first { $0.name == "desc" })
        #expect(description.text.contains("send, 8 B: p50 1.50 us, p99 40.0 us, 2.00 MB/s."))
    }

    @Test(
        "labels do not overlap and everything is within the picture: one point, twenty sizes, six operations, eight results",
        arguments: ["one", "many", "rates", "compared", "ping", "pings"])
    func layout(kind: String) throws {
        let long = String(repeating: "a-rather-long-name_of_a_DEVICE.", count: 9)
        let svg =
            switch kind {
            case "one": try PerfPlot([Self.perf("a", [Self.row(.write, 64)])]).svg
            case "many": try PerfPlot([Self.perf("a", device: long, Self.many)]).svg
            case "rates":
                try PerfPlot([Self.perf("a", (0...20).map { Self.row(.send, $0 == 0 ? 0 : 1 << $0, p50: nil) })]).svg
            case "compared": try PerfPlot((1...8).map { Self.perf("\(long)\($0)", device: long, Self.many) }).svg
            case "ping": PingPlot([Self.ping("a", [(1000, 1001, 5)])]).svg
            default: PingPlot((1...8).map { Self.ping("\(long)\($0)", [(90, 200, $0), (200, 9_000_000, 9)]) }).svg
            }
        let elements = try Elements(svg)
        let root = try #require(elements.all.first)
        let (width, height) = (try #require(root.number("width")), try #require(root.number("height")))
        #expect(root.attributes["viewBox"] == "0 0 \(root.attributes["width"]!) \(root.attributes["height"]!)")
        var boxes: [(left: Double, right: Double, y: Double, text: String)] = []
        for text in elements.all where text.name == "text" {
            // Digits and lower-case letters of common fonts are about 0.6 em wide.
            let size = text.isOf("heading") ? 16.0 : text.isOf("panel") ? 13 : 12
            let wide = Double(text.text.count) * 0.56 * size
            let (x, y) = (try #require(text.number("x")), try #require(text.number("y")))
            let left =
                switch text.attributes["text-anchor"] {
                case "end": x - wide
                case "middle": x - wide / 2
                default: x
                }
            boxes.append((left, left + wide, y, text.text))
            #expect(left >= 0 && left + wide <= width && y > 10 && y < height, "\(text.text)")
        }
        for (index, one) in boxes.enumerated() {
            for other in boxes[(index + 1)...] where abs(one.y - other.y) < 11 {
                #expect(one.right < other.left || other.right < one.left, "\(one) \(other)")
            }
        }
        for mark in elements.all where mark.name == "use" {
            #expect((0...width).contains(mark.number("x")!) && (0...height).contains(mark.number("y")!))
        }
        for style in ["vertical", "horizontal"] { #expect((2...80).contains(elements.texts(style).count), "\(style)") }
    }

    @Test("the picture needs no other file, is for light and dark, and has title and description")
    func selfContained() throws {
        let svg = try PerfPlot([Self.perf("a", Self.many)]).svg
        let root = try #require(try Elements(svg).all.first)
        #expect(root.attributes["role"] == "img" && root.attributes["aria-labelledby"] == "title description")
        #expect(svg.contains("@media (prefers-color-scheme:dark){"))
        #expect(svg.contains("<title id=\"title\">verbs perf: RC, soft0 (soft)</title>"))
        for foreign in ["<script", "<image", "@import", "@font-face", "url("] { #expect(!svg.contains(foreign)) }
        let links = svg.matches(of: /href="([^"]*)"/).map(\.1)
        #expect(!links.isEmpty && links.allSatisfy { $0.hasPrefix("#m") })
        #expect(svg.matches(of: /http/).count == 1)
    }

    @Test("names are escaped: markup, quotes, control characters, characters that XML forbids")
    func escaping() throws {
        let name = "<b>&\"'\u{1}\u{1B}[31m\u{FFFE}]]>é漢"
        let rows = [Self.row(.send, 8)]
        let one = try Elements(PerfPlot([Self.perf("a", device: name, rows)]).svg)
        #expect(one.texts("heading").first?.text.contains("<b>&\"'??[31m?]]>é漢") == true)
        let two = try Elements(PerfPlot([Self.perf(name, rows), Self.perf("b", rows)]).svg)
        #expect(two.texts("legend").first?.text.hasPrefix("<b>&\"'??[31m?]]>é漢: RC") == true)
        _ = try Elements(PingPlot([Self.ping(name, [(1, 2, 3)]), Self.ping("b", [(1, 2, 3)])]).svg)
    }

    @Test("a histogram: bars from range to range, as high as their share, and lines at p50 and p99")
    func histogram() throws {
        let plot = PingPlot([Self.ping("a", [(100, 200, 30), (200, 400, 60), (400, 600, 0), (600, 1000, 10)])])
        let elements = try Elements(plot.svg)
        let bars = elements.all.filter { $0.name == "rect" && $0.isOf("bar") }
        #expect(bars.count == 3)
        func tick(_ style: String, _ text: String) throws -> Double {
            let found = try #require(elements.texts(style).first { $0.text == text }, "\(text)")
            return try #require(style == "horizontal" ? found.number("x") : found.number("y").map { $0 - 4 })
        }
        let ticks = ((100.0, try tick("horizontal", "100 ns")), (1000.0, try tick("horizontal", "1 us")))
        let (zero, half) = (try tick("vertical", "0%"), try tick("vertical", "50%"))
        for (bar, (from, percent)) in zip(bars, [(100.0, 30.0), (200, 60), (600, 10)]) {
            #expect(abs(bar.number("x")! - position(of: from, between: ticks.0, ticks.1)) < 0.6)
            #expect(abs(bar.number("y")! - (zero + (half - zero) * percent / 50)) < 0.6)
            #expect(abs(bar.number("y")! + bar.number("height")! - zero) < 0.2)
        }
        let lines = elements.all.filter { $0.name == "path" && $0.isOf("s0") && $0.isOf("line") }.dropFirst()
        let places = try lines.map {
            try #require(($0.attributes["d"]?.firstMatch(of: #/M([0-9.]+) /#)?.1).flatMap { Double($0) })
        }
        #expect(places.count == 2 && lines.last?.isOf("dashed") == true)
        for (place, value) in zip(places, [200.0, 800]) {
            #expect(abs(place - position(of: value, between: ticks.0, ticks.1)) < 0.6)
        }
    }

    @Test("several histograms are converted to the same ranges, and no message is lost")
    func converted() {
        let bars = PingPlot([
            Self.ping("a", [(100, 200, 30), (200, 401, 70)]), Self.ping("b", [(0, 7, 1), (4000, 9000, 2)]),
        ]).bars
        #expect(bars[0].map(\.from) == bars[1].map(\.from) && bars[0].map(\.to) == bars[1].map(\.to))
        for one in bars { #expect(abs(one.reduce(0) { $0 + $1.percent } - 100) < 1e-6) }
        let halves = PingPlot.converted(
            [.init(from: 1, to: 16, percent: 100)], from: 1, to: 16, count: 4)
        #expect(halves.map { ($0.percent * 1000).rounded() } == [25_000, 25_000, 25_000, 25_000])
    }

    // MARK: Axes

    @Test("ticks are round, few, and within the axis, over any range", arguments: [3, 19, 21, 333, 1e5, 1e9, 1e17])
    func ticks(ratio: Double) {
        for low in [1.0, 3, 47, 999, 123_456] {
            let axis = Axis.values([low, low * ratio], mostTicks: 9, label: Axis.timeLabel)
            #expect(axis.scale == (ratio < 20 ? .linear : .logarithmic))
            #expect((3...10).contains(axis.ticks.count), "\(low) \(ratio) \(axis.ticks)")
            #expect(Set(axis.ticks.map(\.label)).count == axis.ticks.count, "\(axis.ticks)")
            #expect(axis.low <= low && axis.high >= low * ratio * (1 - 1e-9))
            for tick in axis.ticks {
                #expect(tick.value >= axis.low * (1 - 1e-9) && tick.value <= axis.high * (1 + 1e-9))
                #expect(tick.label.wholeMatch(of: /0|[0-9.]+ (ns|us|ms|s)/) != nil, "\(tick.label)")
            }
            // Within less than a decade, too.
            let narrow = Axis.logarithmic(from: low, to: low * 1.3, mostTicks: 12, label: Axis.timeLabel)
            #expect((2...12).contains(narrow.ticks.count), "\(narrow)")
        }
    }

    @Test("labels have a unit and no zeros at the end")
    func labels() {
        #expect(
            [0, 0.5, 1, 999, 1000, 2500, 5e6, 2e9, 4e12].map(Axis.timeLabel)
                == ["0", "0.5 ns", "1 ns", "999 ns", "1 us", "2.5 us", "5 ms", "2 s", "4000 s"])
        #expect(
            [0, 500, 2e3, 5e8, 1.5e9, 1e12].map(Axis.rateLabel)
                == ["0", "500 B/s", "2 kB/s", "500 MB/s", "1.5 GB/s", "1 TB/s"])
    }

    @Test("sizes are at powers of two, with a place for empty messages")
    func sizes() {
        #expect(Axis.sizes([8], mostTicks: 7).ticks.map(\.label) == ["4 B", "8 B", "16 B"])
        #expect(Axis.sizes([1], mostTicks: 7).ticks.map(\.label) == ["1 B", "2 B"])
        #expect(Axis.sizes([0], mostTicks: 7).ticks.map(\.label) == ["0 B", "1 B", "2 B"])
        let axis = Axis.sizes([0, 16, 1 << 20], mostTicks: 7)
        #expect(axis.ticks.map(\.label) == ["0 B", "16 B", "256 B", "4 KiB", "64 KiB", "1 MiB"])
        #expect(axis.fraction(0) == 0 && axis.fraction(Double(1 << 20)) == 1)
        #expect(Axis.sizes((0...40).map { 1 << $0 }, mostTicks: 7).ticks.count <= 7)
    }

    // MARK: Several results

    @Test("operations that only one result has are left out; without a common one, the error names them")
    func common() throws {
        let both = try PerfPlot([
            Self.perf("a", [Self.row(.send, 8), Self.row(.read, 8)]),
            Self.perf("b", [Self.row(.write, 8), Self.row(.read, 16)]),
        ])
        #expect(both.operations == [.read])
        #expect(both.omission == "not in every result, and not drawn: send, write")
        #expect(try Elements(both.svg).texts("panel").map(\.text) == ["read: latency", "read: bandwidth"])
        let error = #expect(throws: ToolError.self) {
            try PerfPlot([Self.perf("a", [Self.row(.send, 8)]), Self.perf("b", [Self.row(.write, 8)])])
        }
        #expect(error?.message == "the results have no operation in common: a has send; b has write")
    }

    @Test("a long name leaves room for device and settings in the legend, which are shown if they differ")
    func settings() throws {
        let name = String(repeating: "long-", count: 60)
        var other = Self.perf("b", [Self.row(.send, 8)])
        (other.result.queuePairs, other.result.pairs) = (64, 3)
        let legend = try Elements(PerfPlot([Self.perf(name, [Self.row(.send, 8)]), other]).svg).texts("legend").map(
            \.text)
        #expect(legend[0].hasPrefix("long-") && legend[0].hasSuffix("…: RC, soft0 (soft), window 64, batch 16"))
        #expect(legend[1] == "b: RC, soft0 (soft), window 64, batch 16, 64 queue pairs, 3 pairs of processes")
    }

    @Test("results are named after what differs in their paths")
    func names() {
        #expect(Results.names(of: ["x/old.json", "x/new.json"]) == ["old", "new"])
        #expect(Results.names(of: ["/x/1/perf.json", "/x/2/perf.json"]) == ["1/perf", "2/perf"])
        #expect(Results.names(of: ["a.json", "a.json"]) == ["1: a", "2: a"])
        #expect(Results.names(of: ["/dev/stdin"]) == ["stdin"])
    }

    // MARK: Reading

    static let perfDocument = """
        {"schema": "\(PerfResult.schema)", "run": {"transport": "rc", "client": {"device": "a", "provider": "p"}, \
        "server": {"device": "b", "provider": "p"}}, "window": 64, "batch": 16, "rows": [{"operation": "send", "size": 8, \
        "latencyNanoseconds": {"min": 1, "p50": 2, "p99": 3, "p999": 4, "max": 5, "mean": 2}, "bytesPerSecond": 1.5e6, \
        "messagesPerSecond": 2, "lost": 0}], "warnings": [], "a member of a later version": {}}
        """
    static let pingDocument = """
        {"schema": "\(PingResult.schema)", "run": {"transport": "ud", "client": {"device": "a", "provider": "p"}, \
        "server": {"device": "b", "provider": "p"}}, "operation": "send", "size": 8, "measured": 3, "isRoundTrip": true, \
        "histogram": [{"from": 10, "to": 20, "count": 2}, {"from": 20, "to": 30, "count": 1}]}
        """

    private func failure(_ texts: String...) -> String? {
        let documents = texts.enumerated().map { ("\($0).json", Data($1.utf8)) }
        do throws(ToolError) {
            _ = try Results.decode(documents)
            return nil
        } catch {
            return "\(error.exit.rawValue) \(error.message)"
        }
    }

    @Test("documents that cannot be drawn are errors that name file and place")
    func documents() {
        let perf = Self.perfDocument
        #expect(failure(perf) == nil && failure(Self.pingDocument, Self.pingDocument) == nil)
        for (text, message) in [
            ("", "it is not JSON"), ("[1]", "it is not a JSON object"), ("{}", "schema is missing"),
            (perf.replacing("\"size\": 8", with: "\"size\": \"8\""), "rows.0.size is not of type Int"),
            (perf.replacing("\"size\": 8", with: "\"size\": -8"), "rows.0.size is -8, not a size of a message"),
            (perf.replacing("\"window\": 64, ", with: ""), "window is missing"),
            (perf.replacing("1.5e6", with: "-1"), "rows.0.bytesPerSecond is not a rate"),
            (perf.replacing("\"p99\": 3", with: "\"p99\": null"), "rows.0.latencyNanoseconds.p99 is null"),
            (
                Self.pingDocument.replacing("\"to\": 30", with: "\"to\": 20"),
                "histogram.1 is not a range above the one before it"
            ),
        ] {
            #expect(failure(perf, text) == "1 1.json is not a result of verbs: \(message)")
        }
        let rows = perf.replacing(/\[\{"operation".*\}\], "warn/) { _ in "[], \"warn" }
        #expect(failure(rows) == "1 0.json: nothing was measured, so there is nothing to draw")
        #expect(
            failure(perf.replacing(PerfResult.schema, with: "verbs-perf-1"))
                == "1 0.json has version \"verbs-perf-1\" of the document, and this version of verbs reads \"\(PerfResult.schema)\""
        )
        #expect(
            failure(perf.replacing(PerfResult.schema, with: "verbs-info-2"))
                == "1 0.json contains \"verbs-info-2\", which has no picture")
        #expect(
            failure(perf.replacing(PerfResult.schema, with: "verbs-ping-all-2"))
                == "1 0.json contains \"verbs-ping-all-2\", which has no picture")
        #expect(
            failure(perf, Self.pingDocument) == "1 0.json is a result of verbs perf, and 1.json one of verbs ping")
        #expect(
            failure(Self.pingDocument, perf) == "1 1.json is a result of verbs perf, and 0.json one of verbs ping")
    }

    @Test("damaged documents never crash: each is drawn as well-formed XML, or refused", arguments: 0..<8)
    func damaged(seed: UInt64) throws {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        func random(_ limit: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(limit))
        }
        let numbers = [
            "0", "-1", "1e300", "1e-300", "18446744073709551615", "1099511627776", "0.5", "1e18", "null", "\"x\"",
        ]
        var drawn = 0
        for round in 0..<250 {
            var text = round.isMultiple(of: 2) ? Self.perfDocument : Self.pingDocument
            if round.isMultiple(of: 3) {
                var bytes = Array(text.utf8)
                for _ in 0...random(3) { bytes[random(bytes.count)] = UInt8(random(256)) }
                if random(4) == 0 { bytes.removeLast(random(bytes.count)) }
                text = String(decoding: bytes, as: UTF8.self)
            } else {
                for _ in 0...random(2) {
                    let places = text.ranges(of: /: [0-9.e]+/)
                    text.replaceSubrange(places[random(places.count)], with: ": " + numbers[random(numbers.count)])
                }
            }
            let documents = [("a.json", Data(text.utf8))] + (random(2) == 0 ? [("b.json", Data(text.utf8))] : [])
            guard let results = try? Results.decode(documents) else { continue }
            drawn += 1
            switch results {
            case .perf(let results): _ = try Elements(PerfPlot(results).svg)
            case .ping(let results): _ = try Elements(PingPlot(results).svg)
            }
        }
        #expect(drawn > 20)
    }

    @Test("damaged documents: the largest times, and a name of 200,000 characters", .timeLimit(.minutes(1)))
    func extremes() throws {
        func draw(_ texts: String...) throws -> Elements {
            switch try Results.decode(texts.enumerated().map { ("\($0).json", Data($1.utf8)) }) {
            case .perf(let results): try Elements(PerfPlot(results).svg)
            case .ping(let results): try Elements(PingPlot(results).svg)
            }
        }
        // Both are 2^64 as a Double.
        let largest = "\"from\": \(UInt64.max - 1), \"to\": \(UInt64.max)"
        let times = Self.pingDocument.replacing("\"from\": 20, \"to\": 30", with: largest)
        #expect(times.contains(largest))
        _ = try draw(times)
        _ = try draw(times, Self.pingDocument)
        let name = String(repeating: "x", count: 200_000)
        let heading = try draw(Self.perfDocument.replacing("\"device\": \"a\"", with: "\"device\": \"\(name)\""))
            .texts("heading").first?.text
        #expect(heading?.hasPrefix("verbs perf: RC, xxx") == true && heading?.hasSuffix("x…") == true)
    }
}

@Suite("verbs plot and --plot over the software device", .serialized)
struct PlotCommandTests {
    private func parse(_ path: String) throws -> String {
        let data = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect(XMLParser(data: data).parse())
        return String(decoding: data, as: UTF8.self)
    }

    @Test("perf writes result and picture; verbs plot draws the result alone as perf did, and two side by side")
    func perf() async throws {
        let folder = try TemporaryDirectory()
        let picture = "\(folder.path)/a.svg"
        let outcome = try await Tool.run(
            "perf", "--device", "soft0", "--count", "20", "--duration", "10ms", "--operation", "send", "--operation",
            "fetch-add", "--size", "8", "--size", "4k", "--json", "--plot", picture)
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(try SchemaValidator(named: "perf").faults(outcome.document()) == [])
        let svg = try parse(picture)
        // Three rows: p50, p99 and bandwidth of each, and two markers in the legend.
        #expect(svg.matches(of: #/<use /#).count == 3 * 3 + 2)
        let result = "\(folder.path)/soft0.json"
        try outcome.output.write(toFile: result, atomically: true, encoding: .utf8)
        let alone = try await Tool.run("plot", result)
        #expect(alone.status == 0 && alone.output == svg, "\(alone.errors)")
        let other = "\(folder.path)/other.json"
        try outcome.output.write(toFile: other, atomically: true, encoding: .utf8)
        let both = try await Tool.run("plot", result, other, "--output", "\(folder.path)/both.svg")
        #expect(both.status == 0 && both.output.isEmpty && both.errors.isEmpty, "\(both.errors)")
        let drawn = try parse("\(folder.path)/both.svg")
        #expect(drawn.contains(">soft0: RC, soft0 (soft)</text>") && drawn.contains(">other: RC, soft0 (soft)</text>"))
        #expect(drawn.matches(of: #/<use /#).count == 2 * 3 * 3 + 2)
    }

    @Test("ping writes a histogram; two results of ping are drawn into one picture")
    func ping() async throws {
        let folder = try TemporaryDirectory()
        let outcome = try await Tool.run(
            "ping", "--device", "soft0", "--count", "200", "--json", "--plot", "\(folder.path)/ping.svg")
        #expect(outcome.status == 0, "\(outcome.errors)")
        let document = try outcome.document()
        let ranges = try #require(document["histogram"] as? [[String: Any]])
        let filled = ranges.filter { $0["count"] as? Int != 0 }.count
        #expect(try parse("\(folder.path)/ping.svg").matches(of: /class="s0 bar"/).count == filled)
        let result = "\(folder.path)/ping.json"
        try outcome.output.write(toFile: result, atomically: true, encoding: .utf8)
        let both = try await Tool.run("plot", result, result)
        #expect(both.status == 0, "\(both.errors)")
        #expect(both.output.contains(">verbs ping: 2 results compared</title>"))
    }

    @Test("wrong command lines and files: exit code, file, and what to try")
    func errors() async throws {
        let folder = try TemporaryDirectory()
        let result = "\(folder.path)/a.json"
        try PlotTests.perfDocument.write(toFile: result, atomically: true, encoding: .utf8)
        for arguments in [
            ["plot"], ["plot"] + [String](repeating: result, count: 9), ["plot", result, "--output", result],
            ["ping", "--all", "--plot", "x.svg"], ["perf", "--listen", "--plot", "x.svg"], ["perf", "--plot", ""],
            ["plot", result, "--output", ""],
        ] {
            let outcome = try await Tool.run(arguments)
            #expect(outcome.status == ToolExit.usage.rawValue && outcome.output.isEmpty, "\(arguments) \(outcome)")
        }
        let absent = try await Tool.run("plot", "\(folder.path)/none.json")
        #expect(absent.status == ToolExit.failure.rawValue)
        #expect(
            absent.errors.hasPrefix("verbs: cannot read \(folder.path)/none.json: No such file"), "\(absent.errors)")
        #expect(absent.errors.contains("\n  try: "))
        let directory = try await Tool.run("plot", folder.path)
        #expect(directory.status == ToolExit.failure.rawValue && directory.errors.contains("Is a directory"))
        // Known before the measurement, which would take minutes.
        for command in [
            ["perf", "--duration", "1m", "--plot"], ["ping", "--duration", "5m", "--count", "0", "--plot"],
        ] {
            let unwritable = try await Tool.run(command + ["\(folder.path)/none/x.svg"])
            #expect(unwritable.status == ToolExit.failure.rawValue && unwritable.output.isEmpty)
            #expect(
                unwritable.errors.hasPrefix("verbs: cannot write \(folder.path)/none/x.svg: No such file"),
                "\(unwritable.errors)")
        }
        let full = try await Tool.run("plot", result, "--output", "/dev/full")
        #expect(full.status == ToolExit.failure.rawValue && full.errors.contains("cannot write /dev/full"), "\(full)")
    }

    @Test("a picture that cannot be written leaves the old one; another replaces it, with its mode and at its link")
    func replaced() async throws {
        let folder = try TemporaryDirectory()
        let (result, old, link) = ("\(folder.path)/a.json", "\(folder.path)/old.svg", "\(folder.path)/link.svg")
        let manager = FileManager.default
        try PlotTests.perfDocument.write(toFile: result, atomically: true, encoding: .utf8)
        try "old".write(toFile: old, atomically: true, encoding: .utf8)
        try manager.setAttributes([.posixPermissions: 0o640], ofItemAtPath: old)
        try manager.createSymbolicLink(atPath: link, withDestinationPath: "old.svg")
        // A block of 512 bytes is enough for the error message.
        let limit = ["/bin/sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]
        for path in [old, link] {
            let failed = try await Tool.run("plot", result, "--output", path, by: limit)
            #expect(failed.status == ToolExit.failure.rawValue, "\(failed)")
            #expect(failed.errors.hasPrefix("verbs: cannot write \(path): File too large"), "\(failed.errors)")
            #expect(try String(contentsOfFile: old, encoding: .utf8) == "old")
        }
        for path in [link, "\(folder.path)/new.svg"] {
            #expect(try await Tool.run("plot", result, "--output", path).status == 0)
            _ = try parse(path)
        }
        _ = try parse(old)
        #expect(try manager.attributesOfItem(atPath: old)[.posixPermissions] as? Int == 0o640)
        #expect(try manager.destinationOfSymbolicLink(atPath: link) == "old.svg")
        let names = ["a.json", "link.svg", "new.svg", "old.svg"]
        #expect(try manager.contentsOfDirectory(atPath: folder.path).sorted() == names)
        let pipe = try await Tool.run("plot", result, "--output", "/dev/stdout")
        #expect(pipe.status == 0 && pipe.output.hasSuffix("</svg>\n"), "\(pipe)")
    }

    @Test("--plot with the file of standard output is refused before the measurement", arguments: ["perf", "ping"])
    func standardOutput(command: String) async throws {
        let folder = try TemporaryDirectory()
        for path in ["\(folder.path)/x", "/dev/stdout"] {
            let outcome = try await Tool.run(command, "--plot", path, redirection: ">\(folder.path)/x")
            #expect(outcome.status == ToolExit.usage.rawValue, "\(outcome)")
            #expect(outcome.errors.contains("would replace the result on standard output"), "\(outcome.errors)")
        }
    }
}
