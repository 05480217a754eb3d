import FoundationEssentials

/// Formats quantities for people, and parses them from the command line.
enum Units {
    /// `950 ns`, `1.23 us`, `45.6 ms`, `2.00 s`: three significant digits.
    static func duration(nanoseconds: UInt64) -> String {
        let value = Double(nanoseconds)
        return switch nanoseconds {
        case ..<1000: "\(nanoseconds) ns"
        case ..<999_500: threeDigits(value / 1e3) + " us"
        case ..<999_500_000: threeDigits(value / 1e6) + " ms"
        default: threeDigits(value / 1e9) + " s"
        }
    }

    /// Microseconds with two decimals, for columns of values to compare.
    static func microseconds(nanoseconds: UInt64) -> String { decimal(Double(nanoseconds) / 1e3, places: 2) }

    /// `64 B`, `4 KiB`, `1.5 MiB`.
    static func size(_ bytes: UInt64) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var scale = 0
        var value = Double(bytes)
        while value >= 1024, scale < units.count - 1 {
            value /= 1024
            scale += 1
        }
        let text = value == value.rounded() ? decimal(value, places: 0) : threeDigits(value)
        return "\(text) \(units[scale])"
    }

    /// `1,234,567`.
    static func count(_ value: UInt64) -> String {
        var text = ""
        for (index, digit) in String(value).reversed().enumerated() {
            if index > 0, index.isMultiple(of: 3) { text.append(",") }
            text.append(digit)
        }
        return String(text.reversed())
    }

    /// Millions of bytes per second, the unit of network rates.
    static func megabytesPerSecond(_ bytesPerSecond: Double) -> String { threeDigits(bytesPerSecond / 1e6) }

    /// Thousands of messages per second.
    static func kiloPerSecond(_ perSecond: Double) -> String { threeDigits(perSecond / 1e3) }

    /// At least three significant digits, without an exponent.
    static func threeDigits(_ value: Double) -> String {
        decimal(value, places: value < 9.995 ? 2 : value < 99.95 ? 1 : 0)
    }

    static func decimal(_ value: Double, places: Int) -> String {
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        guard value.isFinite, value >= 0, value * scale < 1e18 else { return "-" }
        let scaled = UInt64((value * scale).rounded())
        guard places > 0 else { return String(scaled) }
        let digits = String(scaled)
        let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
        return "\(padded.dropLast(places)).\(padded.suffix(places))"
    }

    /// Parses `64`, `4k`, `1M`, `2GiB`: bytes, with a binary multiple; nil if it is not a size.
    static func parseSize(_ text: String) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        let suffix = text.dropFirst(digits.count).lowercased()
        let shifts: [String: UInt64] = [
            "": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30, "gib": 30,
        ]
        guard let value = UInt64(digits), let shift = shifts[suffix] else { return nil }
        let (product, overflow) = value.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : product
    }

    /// Parses `500ms`, `2s`, `1m`, `2`; without a unit, seconds; nil if it is not a time.
    static func parseDuration(_ text: String) -> Duration? {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let value = Double(number), value.isFinite, value < 1e9 else { return nil }
        switch text.dropFirst(number.count).lowercased() {
        case "us": return .microseconds(value)
        case "ms": return .milliseconds(value)
        case "", "s": return .seconds(value)
        case "m", "min": return .seconds(value * 60)
        case "h": return .seconds(value * 3600)
        default: return nil
        }
    }
}
