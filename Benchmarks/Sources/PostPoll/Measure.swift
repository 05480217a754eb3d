import Glibc

/// Two implementations of the same work, timed in alternating blocks, so that other load of the machine affects both
/// equally.
struct Comparison {
    /// The name of the measurement.
    let name: String
    /// Nanoseconds per operation of each block, in the order of the run.
    private(set) var c: [Double] = []
    private(set) var swift: [Double] = []

    init(_ name: String) { self.name = name }

    /// Runs `rounds` pairs of blocks. Each block runs `operations` operations and returns the number of completions.
    mutating func run(rounds: Int, operations: UInt64, c runC: () -> UInt64, swift runSwift: () -> UInt64) {
        // Warms up caches and branch predictors; not timed.
        check(runC(), operations)
        check(runSwift(), operations)
        for _ in 0..<rounds { runOnce(operations: operations, c: runC, swift: runSwift) }
    }

    /// Runs one pair of blocks. `before` and `after` run around each block and are not timed.
    mutating func runOnce(
        operations: UInt64, before: () -> Void = {}, c runC: () -> UInt64, swift runSwift: () -> UInt64,
        after: () -> Void = {}
    ) {
        func timed(_ body: () -> UInt64) -> Double {
            before()
            defer { after() }
            return time(operations, body)
        }
        // The order alternates, so that it favors neither.
        if c.count.isMultiple(of: 2) {
            c.append(timed(runC))
            swift.append(timed(runSwift))
        } else {
            swift.append(timed(runSwift))
            c.append(timed(runC))
        }
    }

    private func time(_ operations: UInt64, _ body: () -> UInt64) -> Double {
        let start = now()
        let seen = body()
        let end = now()
        check(seen, operations)
        return Double(end - start) / Double(operations)
    }

    private func check(_ seen: UInt64, _ expected: UInt64) {
        precondition(seen == expected, "\(name): \(seen) of \(expected) operations completed")
    }

    private func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// The median and the quartiles of the ratios of adjacent blocks, in which common disturbances cancel.
    var ratio: (lower: Double, median: Double, upper: Double) {
        let ratios = zip(swift, c).map { $0 / $1 }.sorted()
        return (ratios[ratios.count / 4], ratios[ratios.count / 2], ratios[ratios.count * 3 / 4])
    }

    static func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
}
