import ArgumentParser

struct PlotCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plot",
        abstract: "Draw results of verbs perf or of verbs ping into one picture.",
        discussion: """
            Reads documents that "verbs perf --json" or "verbs ping --json" has written, such as those of two devices, \
            providers or versions, and writes an SVG picture. Results of perf: for each operation that all of them have, \
            latency (p50 and p99) and bandwidth over the size of a message, with a line for each result. Results of ping: \
            their histograms. A single result is drawn as by the option --plot of perf and ping.

                verbs perf --device soft0 --json >soft0.json
                verbs perf --device rxe0 --json >rxe0.json
                verbs plot soft0.json rxe0.json --output devices.svg
            """)

    @Argument(help: "The documents: at most \(SVGDocument.seriesCount), all of perf or all of ping.")
    var file: [String]

    @Option(help: ArgumentHelp("The picture to write; without it, standard output.", valueName: "file"))
    var output: String?

    func validate() throws {
        guard file.count <= SVGDocument.seriesCount else {
            throw ValidationError(
                "A picture shows at most \(SVGDocument.seriesCount) results, and \(file.count) are given: leave some out."
            )
        }
        if output == "" { throw ValidationError("The name of the picture is empty: --output FILE.svg") }
        if let output, let same = file.first(where: { OutputFile.isSame($0, output) }) {
            throw ValidationError("--output \(output) would replace the result \(same): name another file.")
        }
    }

    func run() throws {
        if let output { try OutputFile.check(output) }
        let svg: String
        switch try Results.read(file) {
        case .perf(let results):
            let plot = try PerfPlot(results)
            if let omission = plot.omission { Console.note("verbs: \(omission)") }
            svg = plot.svg
        case .ping(let results): svg = PingPlot(results).svg
        }
        if let output { try OutputFile.write(svg, to: output) } else { Console.output(svg) }
    }
}

/// The option `--plot` of perf and ping.
struct PlotOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Write a picture of the result to this file, as SVG; see verbs plot.", valueName: "file"))
    var plot: String?

    func validate() throws {
        if plot == "" { throw ValidationError("The name of the picture is empty: --plot FILE.svg") }
        if let plot, OutputFile.isStandardOutput(plot) {
            throw ValidationError("--plot \(plot) would replace the result on standard output: name another file.")
        }
    }

    /// Throws if the picture cannot be written, before the measurement.
    func check() throws(ToolError) {
        if let plot { try OutputFile.check(plot) }
    }

    /// Writes the picture of a result of perf.
    func write(_ report: PerfReport) throws(ToolError) {
        guard let plot else { return }
        guard !report.rows.isEmpty else { return Self.noteNothing(plot) }
        let result = Named(name: report.run.client.device, result: PerfResult(report))
        try OutputFile.write(PerfPlot([result]).svg, to: plot)
    }

    /// Writes the picture of a result of ping.
    func write(_ report: PingReport) throws(ToolError) {
        guard let plot else { return }
        guard report.measured > 0 else { return Self.noteNothing(plot) }
        let result = Named(name: report.run.client.device, result: PingResult(report))
        try OutputFile.write(PingPlot([result]).svg, to: plot)
    }

    /// A run that ended before its first result keeps its own exit code.
    private static func noteNothing(_ plot: String) {
        Console.note("verbs: nothing was measured, so \(plot) is not written")
    }
}
