import Glibc

/// The picture of results of `verbs ping`: a histogram of the latencies.
///
/// One result has a bar for each range of its histogram. The histograms of several results have different ranges: each
/// is converted to the same ranges, and drawn as an outline. The picture depends on the results alone.
struct PingPlot {
    /// The share of the messages in a range of latencies.
    struct Bar: Equatable {
        /// In nanoseconds.
        var from: Double
        var to: Double
        /// Between 0 and 100.
        var percent: Double
    }

    private let results: [Named<PingResult>]

    /// - Parameter results: At least one, each with a message in its histogram.
    init(_ results: [Named<PingResult>]) { self.results = results }

    /// The number of ranges for several results.
    private static let commonCount = 48

    /// The bars of each result.
    var bars: [[Bar]] {
        let own = results.map { Self.bars($0.result.histogram) }
        guard own.count > 1 else { return own }
        let low = own.flatMap { $0 }.map(\.from).min() ?? 1
        let high = own.flatMap { $0 }.map(\.to).max() ?? 2
        return own.map { Self.converted($0, from: low, to: high, count: Self.commonCount) }
    }

    private static func bars(_ ranges: [HistogramChart.Range]) -> [Bar] {
        let total = Double(ranges.reduce(0) { $0 + $1.count })
        return ranges.map { range in
            // A logarithmic axis has no 0: less than a nanosecond is drawn as half to one.
            let from = range.from == 0 ? 0.5 : Double(range.from)
            let to = max(Double(range.to), from * (1 + 1e-9))
            return Bar(from: from, to: to, percent: Double(range.count) / total * 100)
        }
    }

    /// Converts bars to `count` ranges of equal ratio. The messages of a range count as evenly distributed in it, on a
    /// logarithmic scale.
    static func converted(_ bars: [Bar], from low: Double, to high: Double, count: Int) -> [Bar] {
        let width = log(high / low) / Double(count)
        func bound(_ index: Int) -> Double { index == count ? high : low * exp(width * Double(index)) }
        var converted = (0..<count).map { Bar(from: bound($0), to: bound($0 + 1), percent: 0) }
        for bar in bars where bar.percent > 0 {
            let begin = log(bar.from / low) / width
            let end = log(bar.to / low) / width
            for index in max(0, min(count - 1, Int(begin)))...max(0, min(count - 1, Int(end))) {
                let overlap = min(end, Double(index + 1)) - max(begin, Double(index))
                if overlap > 0 { converted[index].percent += bar.percent * overlap / (end - begin) }
            }
        }
        return converted
    }

    /// The SVG document.
    var svg: String {
        let bars = bars
        let all = bars.flatMap { $0 }
        var frame = PlotFrame(heading: heading, subheading: subheading)
        var keys = results.enumerated().map { index, named in
            PlotFrame.Key(mark: .series(index), text: key(named))
        }
        keys.append(PlotFrame.Key(mark: .line(isDashed: false), text: "median (p50)"))
        keys.append(PlotFrame.Key(mark: .line(isDashed: true), text: "99th percentile (p99)"))
        frame.addLegend(keys)
        let times = Axis.logarithmic(
            from: all.map(\.from).min() ?? 1, to: all.map(\.to).max() ?? 2, mostTicks: 12, label: Axis.timeLabel)
        let shares = Axis.linear(to: all.map(\.percent).max() ?? 100, mostTicks: 8, label: Axis.percentLabel)
        let panel = frame.addRow(
            [(heading: "messages per range of latencies", horizontal: times, vertical: shares, name: timeName)],
            height: 360)[0]
        for (index, named) in results.enumerated() {
            frame.draw { document in
                if results.count == 1 {
                    Self.drawBars(bars[0], counts: named.result.histogram, panel, &document)
                } else {
                    Self.drawOutline(bars[index], series: index, panel, &document)
                }
            }
        }
        for (index, named) in results.enumerated() {
            guard let latency = named.result.latencyNanoseconds else { continue }
            let color = SVGDocument.style(ofSeries: index)
            frame.draw { document in
                for (value, style) in [(latency.p50, "line"), (latency.p99, "line dashed")] where value > 0 {
                    let x = panel.x(min(max(Double(value), times.low), times.high))
                    document.addLine(
                        from: (x, panel.top), to: (x, panel.top + panel.height), style: "\(color) \(style)")
                }
            }
        }
        return frame.text(title: heading, description: description(bars))
    }

    // MARK: Text

    private var heading: String {
        guard results.count == 1 else { return "verbs ping: \(results.count) results compared" }
        let result = results[0].result
        return "verbs ping: \(result.operation.rawValue), \(Units.size(UInt64(result.size))), \(result.run.summary)"
    }

    private var subheading: String {
        results.count == 1
            ? "\(Units.count(results[0].result.measured)) messages measured"
            : "each result in the same ranges of equal ratio"
    }

    private var timeName: String {
        let kinds = Set(results.map(\.result.isRoundTrip))
        return kinds == [true] ? "round-trip time" : kinds == [false] ? "time until the completion" : "latency"
    }

    private func key(_ named: Named<PingResult>) -> String {
        let result = named.result
        let percentiles = result.latencyNanoseconds.map {
            "p50 \(Units.duration(nanoseconds: $0.p50)), p99 \(Units.duration(nanoseconds: $0.p99))"
        }
        let description = "\(result.operation.rawValue), \(Units.size(UInt64(result.size))), \(result.run.summary)"
        let name = results.count == 1 ? "messages" : "\(PlotFrame.shortened(named.name)): \(description)"
        return ([name] + (percentiles.map { [$0] } ?? [])).joined(separator: "; ")
    }

    private func description(_ bars: [[Bar]]) -> String {
        zip(results, bars).map { named, bars in
            let present = bars.filter { $0.percent > 0 }
            let ranges = present.map { "\(Self.text($0)): \(Units.decimal($0.percent, places: 1))%" }
            return key(named) + ". " + ranges.joined(separator: "; ") + "."
        }.joined(separator: " ")
    }

    private static func text(_ bar: Bar) -> String {
        // The largest values of UInt64 are 2^64 as a Double.
        func duration(_ value: Double) -> String { Units.duration(nanoseconds: UInt64(min(value, 1.8e19))) }
        return "\(duration(bar.from)) to \(duration(bar.to))"
    }

    // MARK: Shapes

    private static func drawBars(
        _ bars: [Bar], counts: [HistogramChart.Range], _ panel: PlotFrame.Panel, _ document: inout SVGDocument
    ) {
        let style = "\(SVGDocument.style(ofSeries: 0)) bar"
        let end = panel.top + panel.height
        for (bar, range) in zip(bars, counts) where range.count > 0 {
            let (left, right, top) = (panel.x(bar.from), panel.x(bar.to), panel.y(bar.percent))
            let messages = range.count == 1 ? "1 message" : "\(Units.count(range.count)) messages"
            // A range with a single message among many must be visible.
            document.addRectangle(
                x: left, y: min(top, end - 1), width: max(right - left - 1, 1), height: max(end - top, 1),
                style: style,
                tooltip: "\(text(bar)): \(messages), \(Units.decimal(bar.percent, places: 1))%")
        }
    }

    private static func drawOutline(
        _ bars: [Bar], series: Int, _ panel: PlotFrame.Panel, _ document: inout SVGDocument
    ) {
        var points = [(x: panel.x(bars[0].from), y: panel.y(0))]
        for bar in bars {
            points.append((panel.x(bar.from), panel.y(bar.percent)))
            points.append((panel.x(bar.to), panel.y(bar.percent)))
        }
        points.append((panel.x(bars[bars.count - 1].to), panel.y(0)))
        let color = SVGDocument.style(ofSeries: series)
        document.addLine(through: points, style: "\(color) area")
        document.addLine(through: points, style: "\(color) line")
        let highest = bars.max { $0.percent < $1.percent } ?? bars[0]
        let middle = (panel.x(highest.from) + panel.x(highest.to)) / 2
        document.addMarker(series, x: middle, y: panel.y(highest.percent), style: "marker")
    }
}
