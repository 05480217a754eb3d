import CIBVerbs
import Glibc
import PeerSupport

// One stream of calls through two libraries, each on a simulated device of its own: the vendor's C library, and the
// provider of this package from RDMA_DRIVER_PATH. Compares the memory that the device reads, the stores to UAR pages,
// and all completions. Exits with status 0 when nothing differs; otherwise prints the first difference.
//
//     sim-stream [--seed S] [--count N] [KIND…]
//     sim-stream --list
//
// N work requests for each KIND of device: a description for uverbs_sim_create, with ` 128` for CQEs of 128 bytes.

let usage = "usage: sim-stream [--seed S] [--count N] [KIND...] | --list"
var seed: UInt64 = 1
var count = 10_000
var kinds: [String] = []
var arguments = CommandLine.arguments.dropFirst()

func fail(_ text: String) -> Never {
    print(text)
    exit(2)
}

while let argument = arguments.popFirst() {
    switch argument {
    case "--seed":
        guard let value = arguments.popFirst().flatMap({ UInt64($0) }) else { fail(usage) }
        seed = value
    case "--count":
        guard let value = arguments.popFirst().flatMap({ Int($0) }), value > 0 else { fail(usage) }
        count = value
    case "--list":
        print(Matrix.all.joined(separator: "\n"))
        exit(0)
    case _ where argument.hasPrefix("-"): fail(usage)
    default: kinds.append(argument)
    }
}
if kinds.isEmpty { kinds = Matrix.all }
guard sim != nil else { fail("the simulator is not there: run this by scripts/differential") }
// libmlx5 writes a dump of every error CQE to this file.
setenv("MLX5_DEBUG_FILE", "/dev/null", 1)

let vendor = Library()

/// A seeded stream of calls to both libraries.
protocol ComparedStream {
    init(kind: String, seed: UInt64, libraries: Twin<Library>) throws(Difference)
    /// Makes calls until `count` work requests are posted.
    func run(count: Int) throws(Difference)
    func close()
    var step: Int { get }
    var posted: Int { get }
    var completed: Int { get }
}

extension Stream: ComparedStream {}
extension RdmavtStream: ComparedStream {}
extension Cxgb4Stream: ComparedStream {}

/// Runs a stream. Returns the numbers of accepted work requests and of polled completions.
@MainActor
func compare(
    _ kind: String, _ native: NativeLibrary, by type: (some ComparedStream).Type
) throws(Difference) -> (Int, Int) {
    let stream = try type.init(kind: kind, seed: seed, libraries: Twin(vendor, native))
    check(native.module != nil, "our provider is not a library: set RDMA_DRIVER_PATH")
    do throws(Difference) {
        try stream.run(count: count)
    } catch {
        throw Difference("step \(stream.step): \(error.text)")
    }
    stream.close()
    return (stream.posted, stream.completed)
}

var posted = 0
var completed = 0
for kind in kinds {
    let native = NativeLibrary()
    do throws(Difference) {
        let type: any ComparedStream.Type =
            if kind.hasPrefix("hfi1") { RdmavtStream.self } else if kind.hasPrefix("cxgb4") { Cxgb4Stream.self } else {
                Stream.self
            }
        let (accepted, read) = try compare(kind, native, by: type)
        posted += accepted
        completed += read
    } catch {
        print("different, with seed \(seed) over '\(kind)', \(error.text)")
        print("again: scripts/differential --seed \(seed) --count \(count) '\(kind)'")
        exit(1)
    }
}
print("equal: \(posted) work requests, \(completed) completions over \(kinds.count) kinds of device, seed \(seed)")
