import Testing

@testable import VerbsCommand

@Suite("Text output: tables, quantities, histograms")
struct OutputTests {
    @Test("a table column is as wide as its widest cell, numbers are right-aligned, lines have no trailing blanks")
    func table() {
        var table = Table(.left("device"), .right("ports"), .left("state"))
        table.add("soft0", "1", "active")
        table.add("mlx5_10", "12", "")
        #expect(
            table.text == """
                device   ports  state
                soft0        1  active
                mlx5_10     12

                """)
    }

    @Test("control characters from a file or a peer are replaced")
    func controlCharacters() {
        var table = Table(.left("why"))
        table.add("red \u{1B}[31m\n\u{7}ü")
        #expect(table.text == "why\nred ?[31m??ü\n")
    }

    @Test("properties are aligned")
    func properties() {
        var list = PropertyList()
        list.add("GUID", "0x2")
        list.add("firmware", "1.0")
        #expect(list.text(indent: 2) == "  GUID:     0x2\n  firmware: 1.0\n")
    }

    @Test(
        "durations have a unit and three significant digits",
        arguments: [
            (0, "0 ns"), (999, "999 ns"), (1000, "1.00 us"), (1234, "1.23 us"), (99_960, "100 us"), (999_499, "999 us"),
            (999_500, "1.00 ms"), (45_600_000, "45.6 ms"), (999_499_999, "999 ms"), (999_500_000, "1.00 s"),
            (61_000_000_000, "61.0 s"),
        ] as [(UInt64, String)])
    func durations(nanoseconds: UInt64, text: String) {
        #expect(Units.duration(nanoseconds: nanoseconds) == text)
    }

    @Test(
        "sizes use binary multiples",
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.50 KiB"), (1 << 20, "1 MiB"), (8 << 30, "8 GiB"),
        ] as [(UInt64, String)])
    func sizes(bytes: UInt64, text: String) {
        #expect(Units.size(bytes) == text)
    }

    @Test("sizes are parsed, other text is rejected")
    func parseSize() {
        #expect(Units.parseSize("64") == 64)
        #expect(Units.parseSize("4k") == 4096)
        #expect(Units.parseSize("1M") == 1 << 20)
        #expect(Units.parseSize("2GiB") == 2 << 30)
        for text in ["", "k", "-1", "4x", "1.5k", "99999999999999999999", "18446744073709551615k"] {
            #expect(Units.parseSize(text) == nil, "\(text)")
        }
    }

    @Test("times are parsed, other text is rejected")
    func parseDuration() {
        #expect(Units.parseDuration("2") == .seconds(2))
        #expect(Units.parseDuration("500ms") == .milliseconds(500))
        #expect(Units.parseDuration("1.5m") == .seconds(90))
        for text in ["", "s", "-1", "5 parsecs", "1e400"] { #expect(Units.parseDuration(text) == nil, "\(text)") }
    }

    @Test("counts are grouped, decimals are rounded, NaN and infinity are a dash")
    func numbers() {
        #expect(Units.count(0) == "0")
        #expect(Units.count(1_234_567) == "1,234,567")
        #expect(Units.decimal(2.345, places: 1) == "2.3")
        #expect(Units.decimal(0.05, places: 2) == "0.05")
        #expect(Units.decimal(.nan, places: 2) == "-")
        #expect(Units.decimal(.infinity, places: 0) == "-")
        #expect(Units.threeDigits(9.996) == "10.0")
    }

    @Test("a histogram covers all values with ranges of equal ratio")
    func histogram() {
        let values: [(value: UInt64, count: UInt64)] = [(1000, 70), (1500, 20), (4000, 9), (15_999, 1)]
        let ranges = HistogramChart.ranges(of: values, lines: 4)
        #expect(
            ranges == [
                .init(from: 1000, to: 2000, count: 90), .init(from: 2000, to: 4000, count: 0),
                .init(from: 4000, to: 8000, count: 9), .init(from: 8000, to: 16_000, count: 1),
            ])
        #expect(
            HistogramChart.text(ranges, width: 20) == """
                  1.00 us  90   90.0%  ####################
                  2.00 us   0    0.0%
                  4.00 us   9    9.0%  ##
                  8.00 us   1    1.0%  #

                """)
    }

    @Test("histograms of nothing, of one value and of zeros")
    func smallHistograms() {
        #expect(HistogramChart.ranges(of: [(value: UInt64, count: UInt64)](), lines: 8).isEmpty)
        #expect(HistogramChart.text([], width: 20) == "")
        #expect(HistogramChart.ranges(of: [(value: 7, count: 3)], lines: 8) == [.init(from: 7, to: 8, count: 3)])
        let zero = HistogramChart.ranges(of: [(value: 0, count: 1), (value: 3, count: 2)], lines: 8)
        #expect(zero.first?.from == 0 && zero.reduce(0) { $0 + $1.count } == 3)
    }

    @Test("the text of an error has message and hint")
    func errors() {
        let error = ToolError(.noDevice, "there is no device \"x\"", hint: "verbs devices lists them")
        #expect(error.text == "verbs: there is no device \"x\"\n  try: verbs devices lists them")
        #expect(error.exit == .noDevice)
    }
}
