/// A histogram as text: one line per range of values, with a bar.
enum HistogramChart {
    /// The number of values in [from, to).
    struct Range: Equatable, Codable {
        var from: UInt64
        var to: UInt64
        var count: UInt64
    }

    /// Sorts values into at most `lines` ranges of equal ratio between the smallest and the largest value. A ratio is
    /// used because latencies spread over orders of magnitude.
    ///
    /// - Parameter values: distinct values with their counts, in any order.
    static func ranges(of values: some Sequence<(value: UInt64, count: UInt64)>, lines: Int) -> [Range] {
        let present = values.filter { $0.count > 0 }
        guard let low = present.map(\.value).min(), let high = present.map(\.value).max() else { return [] }
        var bounds = [low]
        // Bound i is low * ((high + 1) / low) ^ (i / lines), computed by repeated multiplication, so that the result
        // does not depend on the rounding of a transcendental function.
        let ratio = root(Double(high + 1) / Double(max(low, 1)), degree: lines)
        var exact = Double(max(low, 1))
        for _ in 1..<max(lines, 1) {
            exact *= ratio
            let bound = UInt64(exact.rounded())
            if bound > bounds[bounds.count - 1], bound <= high { bounds.append(bound) }
        }
        bounds.append(high + 1)
        var ranges = zip(bounds, bounds.dropFirst()).map { Range(from: $0, to: $1, count: 0) }
        for (value, count) in present {
            let index = ranges.lastIndex { $0.from <= value }!
            ranges[index].count += count
        }
        return ranges
    }

    /// Merges adjacent ranges, so that at most `lines` are left.
    static func merged(_ ranges: [Range], lines: Int) -> [Range] {
        let step = max(1, (ranges.count + lines - 1) / lines)
        return stride(from: 0, to: ranges.count, by: step).map { start in
            let group = ranges[start..<min(start + step, ranges.count)]
            return Range(
                from: group[start].from, to: group[group.endIndex - 1].to, count: group.reduce(0) { $0 + $1.count })
        }
    }

    /// The lines, each with a newline. The bar of the fullest range has `width` characters; a range with any value has
    /// at least one.
    static func text(_ ranges: [Range], width: Int) -> String {
        let most = ranges.map(\.count).max() ?? 0
        guard most > 0 else { return "" }
        let total = ranges.reduce(0) { $0 + $1.count }
        let labels = ranges.map { Units.duration(nanoseconds: $0.from) }
        let counts = ranges.map { Units.count($0.count) }
        let labelWidth = labels.map(\.count).max()!
        let countWidth = counts.map(\.count).max()!
        return ranges.indices.map { index in
            let count = ranges[index].count
            let length = count == 0 ? 0 : max(1, Int(Double(count) / Double(most) * Double(width) + 0.5))
            let share = Units.decimal(Double(count) / Double(total) * 100, places: 1)
            var line = "  " + pad(labels[index], labelWidth) + "  " + pad(counts[index], countWidth) + "  "
            line += pad(share, 5) + "%"
            if length > 0 { line += "  " + String(repeating: "#", count: length) }
            return line + "\n"
        }.joined()
    }

    private static func pad(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    /// The root of degree `degree` of a value of at least 1, by bisection.
    private static func root(_ value: Double, degree: Int) -> Double {
        var low = 1.0
        var high = value
        for _ in 0..<200 where high - low > low * 1e-12 {
            let middle = (low + high) / 2
            var power = 1.0
            for _ in 0..<degree { power *= middle }
            if power < value { low = middle } else { high = middle }
        }
        return high
    }
}
