/// The picture of results of `verbs perf`: latency and bandwidth over the size of a message.
///
/// One result has two panels with a series for each operation. Several results have a row of panels for each operation
/// that all of them have, with a series for each result. The picture depends on the results alone.
struct PerfPlot {
    private struct Series {
        var index: Int
        var name: String
        /// In the order of their sizes.
        var rows: [PerfResult.Row]
    }

    private let results: [Named<PerfResult>]
    /// The operations of the first result that every result has, in its order.
    let operations: [Operation]

    /// - Parameter results: At least one, each with rows.
    init(_ results: [Named<PerfResult>]) throws(ToolError) {
        self.results = results
        let sets = results.map { Set($0.result.rows.map(\.operation)) }
        var seen: Set<Operation> = []
        let first = results[0].result.rows.map(\.operation).filter { seen.insert($0).inserted }
        operations = first.filter { operation in sets.allSatisfy { $0.contains(operation) } }
        guard operations.isEmpty else { return }
        let lists = results.map { named in
            let present = Set(named.result.rows.map(\.operation))
            let names = Operation.allCases.filter(present.contains).map(\.rawValue)
            return "\(named.name) has \(names.joined(separator: ", "))"
        }
        throw ToolError(
            .failure, "the results have no operation in common: " + lists.joined(separator: "; "),
            hint: "measure the same operations: verbs perf --operation \(first.first?.rawValue ?? "send") --json")
    }

    /// What is not drawn, for the user: operations that only some of the results have; nil: everything is drawn.
    var omission: String? {
        let present = Set(results.flatMap { $0.result.rows.map(\.operation) })
        let names = Operation.allCases.filter { present.contains($0) && !operations.contains($0) }.map(\.rawValue)
        return names.isEmpty ? nil : "not in every result, and not drawn: \(names.joined(separator: ", "))"
    }

    /// The SVG document.
    var svg: String {
        var frame = PlotFrame(heading: heading, subheading: subheading)
        let groups = groups
        let hasLatency = results.contains { named in named.result.rows.contains { $0.latencyNanoseconds != nil } }
        var keys = (results.count > 1 ? results.map(\.name) : groups[0].series.map(\.name)).enumerated().map {
            PlotFrame.Key(mark: .series($0), text: key($1, result: results.count > 1 ? results[$0].result : nil))
        }
        if hasLatency {
            keys.append(PlotFrame.Key(mark: .line(isDashed: false), text: "median (p50)"))
            keys.append(PlotFrame.Key(mark: .line(isDashed: true), text: "99th percentile (p99)"))
        }
        frame.addLegend(keys)
        for group in groups { draw(group, &frame, hasLatency: hasLatency) }
        return frame.text(title: heading, description: description(groups))
    }

    // MARK: Text

    private var heading: String {
        results.count > 1
            ? "verbs perf: \(results.count) results compared" : "verbs perf: \(results[0].result.run.summary)"
    }

    private var subheading: String {
        let latency = "latency: half the round-trip time; of read, fetch-add and compare-swap, until the completion"
        guard results.count == 1 else { return latency }
        return "\(results[0].result.settings); \(latency)"
    }

    private func key(_ name: String, result: PerfResult?) -> String {
        guard let result else { return name }
        let differ = results.contains { $0.result.settings != result.settings }
        return "\(PlotFrame.shortened(name)): \(result.run.summary)" + (differ ? ", \(result.settings)" : "")
    }

    private func description(_ groups: [(heading: String, series: [Series])]) -> String {
        var lines = ["Latency (p50, p99) and bandwidth over the size of a message."]
        for group in groups {
            for series in group.series {
                let name = group.heading.isEmpty ? series.name : "\(group.heading), \(series.name)"
                lines += series.rows.map { "\(name), \(Self.tooltip($0))." }
            }
        }
        return lines.joined(separator: " ")
    }

    private static func tooltip(_ row: PerfResult.Row) -> String {
        var text = Units.size(UInt64(row.size)) + ":"
        if let latency = row.latencyNanoseconds {
            text += " p50 \(Units.duration(nanoseconds: latency.p50)), p99 \(Units.duration(nanoseconds: latency.p99)),"
        }
        return text + " \(Units.megabytesPerSecond(row.bytesPerSecond)) MB/s"
    }

    // MARK: Panels

    /// The rows of panels.
    private var groups: [(heading: String, series: [Series])] {
        func rows(_ result: PerfResult, _ operation: Operation) -> [PerfResult.Row] {
            result.rows.filter { $0.operation == operation }.sorted { $0.size < $1.size }
        }
        if results.count == 1 {
            let series = operations.enumerated().map { index, operation in
                Series(index: index, name: operation.rawValue, rows: rows(results[0].result, operation))
            }
            return [("", series)]
        }
        return operations.map { operation in
            let series = results.enumerated().map { index, named in
                Series(index: index, name: named.name, rows: rows(named.result, operation))
            }
            return (operation.rawValue, series)
        }
    }

    private func draw(_ group: (heading: String, series: [Series]), _ frame: inout PlotFrame, hasLatency: Bool) {
        let rows = group.series.flatMap(\.rows)
        let height = results.count == 1 ? 340.0 : 220.0
        let sizes = Axis.sizes(rows.map(\.size), mostTicks: hasLatency ? 7 : 14)
        let times = rows.flatMap { row in
            row.latencyNanoseconds.map { [Double($0.p50), Double($0.p99)] } ?? []
        }
        let prefix = group.heading.isEmpty ? "" : group.heading + ": "
        let bandwidth = (
            heading: prefix + "bandwidth", horizontal: sizes,
            vertical: Axis.values(rows.map(\.bytesPerSecond), mostTicks: 9, label: Axis.rateLabel), name: "message size"
        )
        guard hasLatency else {
            let panels = frame.addRow([bandwidth], height: height)
            return drawBandwidth(group.series, panels[0], &frame)
        }
        let latency = (
            heading: prefix + "latency", horizontal: sizes,
            vertical: Axis.values(times, mostTicks: 9, label: Axis.timeLabel), name: "message size"
        )
        let panels = frame.addRow([latency, bandwidth], height: height)
        for series in group.series {
            let measured = series.rows.filter { $0.latencyNanoseconds != nil }
            draw(series, measured, panels[0], &frame, isDashed: true) { Double($0.latencyNanoseconds?.p99 ?? 0) }
            draw(series, measured, panels[0], &frame) { Double($0.latencyNanoseconds?.p50 ?? 0) }
        }
        drawBandwidth(group.series, panels[1], &frame)
    }

    private func drawBandwidth(_ series: [Series], _ panel: PlotFrame.Panel, _ frame: inout PlotFrame) {
        for one in series { draw(one, one.rows, panel, &frame, value: \.bytesPerSecond) }
    }

    /// Draws a line through the values of a series, and a marker for each.
    private func draw(
        _ series: Series, _ rows: [PerfResult.Row], _ panel: PlotFrame.Panel, _ frame: inout PlotFrame,
        isDashed: Bool = false, value: (PerfResult.Row) -> Double
    ) {
        let points = rows.filter { Axis.drawable.contains(value($0)) }.map { row in
            (x: panel.x(Double(row.size)), y: panel.y(value(row)), row: row)
        }
        let color = SVGDocument.style(ofSeries: series.index)
        frame.draw { document in
            if points.count > 1 {
                document.addLine(
                    through: points.map { ($0.x, $0.y) }, style: "\(color) line" + (isDashed ? " dashed" : ""))
            }
            for point in points {
                document.addMarker(
                    series.index, x: point.x, y: point.y, style: isDashed ? "marker hollow" : "marker",
                    tooltip: "\(series.name), \(Self.tooltip(point.row))")
            }
        }
    }
}
