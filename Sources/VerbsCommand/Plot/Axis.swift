import Glibc

/// An axis of a picture: the values at its ends, and its ticks.
struct Axis: Equatable {
    enum Scale { case linear, logarithmic }

    struct Tick: Equatable {
        var value: Double
        var label: String
    }

    let scale: Scale
    /// The value at the beginning; above 0 on a logarithmic axis.
    let low: Double
    /// The value at the end; above `low`.
    let high: Double
    let ticks: [Tick]

    /// The position of a value: 0 at the beginning of the axis, 1 at its end. On a logarithmic axis, 0 is at its
    /// beginning.
    func fraction(_ value: Double) -> Double {
        switch scale {
        case .linear: (value - low) / (high - low)
        case .logarithmic: value > low ? log(value / low) / log(high / low) : 0
        }
    }

    // MARK: Sizes

    /// An axis of message sizes: logarithmic, with ticks at powers of two. If there are messages without payload, it
    /// begins with a tick for them.
    ///
    /// - Parameter mostTicks: The largest number of ticks, without that of size 0; at least 3.
    static func sizes(_ sizes: [Int], mostTicks: Int) -> Axis {
        let positive = sizes.filter { $0 > 0 }
        var first = positive.min().map { Int(log2(Double($0)).rounded(.down)) } ?? 0
        var last = positive.max().map { Int(log2(Double($0)).rounded(.up)) } ?? 0
        if first == last {
            first = max(0, first - 1)
            last += 1
        }
        let step = [1, 2, 4].first { (last - first) / $0 < mostTicks } ?? 10
        var ticks = stride(from: (first + step - 1) / step * step, through: last, by: step).map { exponent in
            Tick(value: exp2(Double(exponent)), label: Units.size(UInt64(1) << UInt64(min(exponent, 62))))
        }
        let hasEmpty = sizes.contains { $0 <= 0 }
        let low = exp2(Double(hasEmpty ? first - step : first))
        if hasEmpty { ticks.insert(Tick(value: low, label: "0 B"), at: 0) }
        return Axis(scale: .logarithmic, low: low, high: exp2(Double(last)), ticks: ticks)
    }

    // MARK: Values

    /// The ratio of the largest to the smallest value from which an axis of values is logarithmic: on a linear axis,
    /// the smallest value would be less than a twentieth of the height above zero.
    private static let logarithmicFrom = 20.0

    /// The values that a logarithmic axis can show. A rate or latency of 0 was not measured.
    static let drawable = 1e-3...1e24

    /// An axis of positive values, with ticks at 1, 2 and 5 times a power of ten: linear from 0, or logarithmic if the
    /// values differ by more than a factor of 20.
    ///
    /// - Parameters:
    ///   - values: Those that are not in `drawable` are ignored.
    ///   - mostTicks: The largest number of ticks; at least 4.
    static func values(_ values: [Double], mostTicks: Int, label: (Double) -> String) -> Axis {
        let present = values.filter(drawable.contains)
        let low = present.min() ?? 1
        let high = present.max() ?? 1
        guard high / low > logarithmicFrom else { return linear(to: high, mostTicks: mostTicks, label: label) }
        return logarithmic(from: round125(low, .down), to: round125(high, .up), mostTicks: mostTicks, label: label)
    }

    /// A linear axis that begins at 0 and ends at a tick that is not below `high`.
    static func linear(to high: Double, mostTicks: Int, label: (Double) -> String) -> Axis {
        let step = round125(high / Double(mostTicks - 1), .up)
        let count = max(1, Int((high / step - 1e-9).rounded(.up)))
        let ticks = (0...count).map { Double($0) * step }
        return Axis(
            scale: .linear, low: 0, high: Double(count) * step, ticks: ticks.map { Tick(value: $0, label: label($0)) })
    }

    /// A logarithmic axis with these ends.
    static func logarithmic(from low: Double, to high: Double, mostTicks: Int, label: (Double) -> String) -> Axis {
        let ticks = logarithmicTicks(low, high, mostTicks)
        return Axis(
            scale: .logarithmic, low: low, high: high, ticks: ticks.map { Tick(value: $0, label: label($0)) })
    }

    private static func logarithmicTicks(_ low: Double, _ high: Double, _ most: Int) -> [Double] {
        let decades = Int(log10(low).rounded(.down))...Int(log10(high).rounded(.up))
        func present(_ values: [Double]) -> [Double] {
            values.filter { $0 >= low * (1 - 1e-9) && $0 <= high * (1 + 1e-9) }
        }
        let fine = present(decades.flatMap { decade in [1, 2, 5].map { $0 * pow(10, Double(decade)) } })
        if fine.count < 3 {
            // Less than a decade: multiples of a round step.
            let step = round125((high - low) / Double(max(most - 2, 1)), .up)
            let first = (low / step - 1e-9).rounded(.up)
            return present((0...most).map { (first + Double($0)) * step })
        }
        if fine.count <= most { return fine }
        for step in 1... {
            let coarse = present(decades.filter { $0.isMultiple(of: step) }.map { pow(10, Double($0)) })
            if coarse.count <= most { return coarse }
        }
        return fine
    }

    /// The nearest of 1, 2 and 5 times a power of ten that is not above (`down`) or not below (`up`) the value.
    static func round125(_ value: Double, _ rule: FloatingPointRoundingRule) -> Double {
        let decade = pow(10, log10(value).rounded(.down))
        let mantissa = value / decade
        let choices: [Double] = [0.5, 1, 2, 5, 10]
        let chosen =
            rule == .up
            ? choices.first { $0 >= mantissa * (1 - 1e-9) } ?? 10 : choices.last { $0 <= mantissa * (1 + 1e-9) } ?? 1
        return chosen * decade
    }

    // MARK: Labels

    /// `250 ns`, `1.5 us`, `2 s`: without zeros at the end.
    static func timeLabel(nanoseconds: Double) -> String { label(nanoseconds, ["ns", "us", "ms", "s"]) }

    /// `500 kB/s`, `1.5 GB/s`, with decimal multiples.
    static func rateLabel(bytesPerSecond: Double) -> String {
        label(bytesPerSecond, ["B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"])
    }

    /// `0%`, `2.5%`.
    static func percentLabel(_ percent: Double) -> String { trimmed(percent) + "%" }

    private static func label(_ value: Double, _ units: [String]) -> String {
        guard value > 0 else { return "0" }
        var value = value
        var unit = 0
        while value >= 1000 * (1 - 1e-9), unit < units.count - 1 {
            value /= 1000
            unit += 1
        }
        return "\(trimmed(value)) \(units[unit])"
    }

    private static func trimmed(_ value: Double) -> String {
        var text = Units.decimal(value, places: value < 1e6 ? 6 : 0)
        guard text.contains(".") else { return text }
        while text.last == "0" { text.removeLast() }
        if text.last == "." { text.removeLast() }
        return text
    }
}
