import Histogram

/// Collects the times of messages. `record` does not allocate.
struct Recorder {
    /// One minute in nanoseconds; the histogram clamps longer times to it.
    private static let longest: UInt64 = 60_000_000_000

    private var histogram = Histogram<UInt64>(
        lowestDiscernibleValue: 1, highestTrackableValue: longest, numberOfSignificantValueDigits: .three)
    private(set) var minimum = UInt64.max
    private(set) var maximum: UInt64 = 0
    private(set) var sum: UInt64 = 0
    private(set) var count: UInt64 = 0

    mutating func record(nanoseconds: UInt64) {
        histogram.record(min(nanoseconds, Self.longest))
        minimum = min(minimum, nanoseconds)
        maximum = max(maximum, nanoseconds)
        sum &+= nanoseconds
        count += 1
    }

    /// The distinct times, to three digits, each with the number of messages.
    var times: [(value: UInt64, count: UInt64)] { histogram.recordedValues().map { ($0.value, $0.count) } }

    /// Adds `count` messages of `times` of another recorder.
    mutating func add(_ value: UInt64, count: UInt64) {
        histogram.record(min(value, Self.longest), count: count)
        self.count &+= count
    }

    /// Sets what `times` does not contain exactly.
    mutating func setExact(minimum: UInt64, maximum: UInt64, sum: UInt64) {
        (self.minimum, self.maximum, self.sum) = (minimum, maximum, sum)
    }

    /// Adds the messages of another recorder.
    mutating func merge(_ other: Recorder) {
        for (value, count) in other.times { add(value, count: count) }
        minimum = min(minimum, other.minimum)
        maximum = max(maximum, other.maximum)
        sum &+= other.sum
    }

    /// The time that `share` percent of the messages do not exceed.
    func percentile(_ share: Double) -> UInt64 { min(max(histogram.valueAtPercentile(share), minimum), maximum) }

    /// Nil if nothing was recorded.
    var summary: LatencySummary? {
        guard count > 0 else { return nil }
        return LatencySummary(
            min: minimum, p50: percentile(50), p99: percentile(99), p999: percentile(99.9), max: maximum,
            mean: sum / count)
    }

    func ranges(lines: Int) -> [HistogramChart.Range] {
        // The histogram keeps three digits; minimum and maximum are known exactly.
        HistogramChart.ranges(
            of: histogram.recordedValues().map { (value: min(max($0.value, minimum), maximum), count: $0.count) },
            lines: lines)
    }
}

/// The distribution of message times, in nanoseconds.
struct LatencySummary: Codable, Equatable {
    var min: UInt64
    var p50: UInt64
    var p99: UInt64
    var p999: UInt64
    var max: UInt64
    var mean: UInt64

    /// Headings of the columns of `cells`. `minimum` contains the unit if the table does not.
    static func columns(minimum: String) -> [Table.Column] {
        [.right(minimum), .right("p50"), .right("p99"), .right("p99.9"), .right("max")]
    }

    /// The values in microseconds, as text.
    var cells: [String] { [min, p50, p99, p999, max].map(Units.microseconds(nanoseconds:)) }

    /// The cells if nothing was measured.
    static let noCells = [String](repeating: "", count: 5)
}
