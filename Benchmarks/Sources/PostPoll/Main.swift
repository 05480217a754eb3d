import CLoops
import CRing
import Glibc
import ProviderLoader
import Verbs

/// Compares post and poll through the Swift API with the same loops in C, on one queue pair of one provider.
///
/// `swift run -c release --package-path Benchmarks PostPoll [ROUNDS]`
@main
struct PostPoll {
    /// The project's goal: the highest ratio to the time of C.
    static let goal = 1.05

    static func main() throws(VerbsError) {
        let rounds = CommandLine.arguments.dropFirst().first.flatMap { Int($0) } ?? 400
        var configuration = LoaderConfiguration()
        configuration.builtIn = [BuiltInProvider(name: "ring", entry: rdma_provider_entry_ring)]
        let device = try Device.named("ring0", from: ProviderLoader(configuration: configuration))
        let context = try device.open()
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 64, access: [.localWrite])
        let completions = try context.makeCompletionQueue(capacity: 256)
        let queuePair = try domain.makeQueuePair(.reliableConnection, completions: completions)
        let qp = queuePair.unsafeRaw
        let cq = completions.unsafeRaw
        let sge = try region.sge()
        var sge = ibv_sge(addr: sge.address, length: UInt32(sge.byteCount), lkey: sge.lkey)
        var loops = SwiftLoops(queuePair: queuePair, completions: completions, sge: sge)

        // The queue has 256 entries, so that posts and polls can be timed separately.
        let depth: UInt64 = 256
        let fills = 8
        var results: [Comparison] = []

        var both = Comparison("post+poll, single")
        both.run(
            rounds: rounds, operations: 4096, c: { c_post_and_poll(qp, cq, &sge, 4096) },
            swift: { must { () throws(VerbsError) in try loops.postAndPoll(4096) } })
        results.append(both)

        var batches = Comparison("post+poll, batches of 16")
        batches.run(
            rounds: rounds, operations: 4096, c: { c_post_and_poll_16(qp, cq, &sge, 256) },
            swift: { must { () throws(VerbsError) in try loops.postAndPoll16(256) } })
        results.append(batches)

        // The queue is emptied after a block of posts, and filled before a block of polls; neither is timed.
        var posts = Comparison("post, single")
        var posts16 = Comparison("post, chains of 16")
        var polls = Comparison("poll, single")
        var polls16 = Comparison("poll, 16 per call")
        for _ in 0..<fills * rounds {
            posts.runOnce(
                operations: depth, c: { c_post(qp, &sge, depth) },
                swift: { must { () throws(VerbsError) in try loops.post(depth) } },
                after: { _ = c_drain_16(cq, depth) })
            posts16.runOnce(
                operations: depth, c: { c_post_16(qp, &sge, depth / 16) },
                swift: { must { () throws(VerbsError) in try loops.post16(depth / 16) } },
                after: { _ = c_drain_16(cq, depth) })
            polls.runOnce(
                operations: depth, before: { _ = c_post_16(qp, &sge, depth / 16) },
                c: { c_drain(cq, depth) }, swift: { must { () throws(VerbsError) in try loops.drain(depth) } })
            polls16.runOnce(
                operations: depth, before: { _ = c_post_16(qp, &sge, depth / 16) },
                c: { c_drain_16(cq, depth) }, swift: { must { () throws(VerbsError) in try loops.drain16(depth) } })
        }
        results += [posts, posts16, polls, polls16]
        report(results)
    }

    /// The result of `body`; an error ends the benchmark.
    static func must(_ body: () throws(VerbsError) -> UInt64) -> UInt64 {
        do throws(VerbsError) { return try body() } catch { fatalError("\(error)") }
    }

    static func report(_ results: [Comparison]) {
        print("Swift compared with C on one provider, alternating blocks; nanoseconds are medians and only indicate the scale")
        print("")
        print(row("", "C", "Swift", "ratio", "quartiles"))
        for result in results {
            let ratio = result.ratio
            print(
                row(
                    result.name, fixed(Comparison.median(result.c), 2), fixed(Comparison.median(result.swift), 2),
                    fixed(ratio.median, 3), "\(fixed(ratio.lower, 3))-\(fixed(ratio.upper, 3))")
                    + (ratio.median <= goal ? "" : "  above \(fixed(goal, 2))"))
        }
    }

    static func row(_ columns: String...) -> String {
        var line = pad(columns[0], to: 26, left: true)
        for column in columns.dropFirst().dropLast() { line += pad(column, to: 9, left: false) }
        return line + "  " + pad(columns[columns.count - 1], to: 12, left: true)
    }

    static func pad(_ text: String, to width: Int, left: Bool) -> String {
        let room = String(repeating: " ", count: max(0, width - text.count))
        return left ? text + room : room + text
    }

    static func fixed(_ value: Double, _ digits: Int) -> String {
        let scale = digits == 2 ? 100.0 : 1000.0
        let scaled = Int((value * scale).rounded())
        let rest = String(scaled % Int(scale))
        return "\(scaled / Int(scale))." + String(repeating: "0", count: digits - rest.count) + rest
    }
}
