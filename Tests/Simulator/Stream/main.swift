import CIBVerbs
import Glibc
import PeerSupport

// One stream of calls through two libraries, each over a simulated device of its own: the vendor's C library, and the
// provider of this package that RDMA_DRIVER_PATH leads to. Everything that a device would see of it is compared, and
// everything that completions say. Ends with status 0 when nothing differs, and else says where the first difference is.
//
//     sim-stream [--seed S] [--count N] [KIND…]
//     sim-stream --list
//
// N work requests for each kind of device: what uverbs_sim_create understands, and ` 128` for large completions.

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
// libmlx5 writes a dump of every completion with an error.
setenv("MLX5_DEBUG_FILE", "/dev/null", 1)

let vendor = Library()

/// Runs a stream: how many work requests were taken, and completions read.
@MainActor
func compare(_ kind: String, _ native: NativeLibrary) throws(Difference) -> (Int, Int) {
    let stream = try Stream(kind: kind, seed: seed, libraries: Twin(vendor, native))
    check(native.module != nil, "our provider is not a library: set RDMA_DRIVER_PATH")
    do throws(Difference) {
        try stream.run(count: count, warmsUp: count >= 5000 && !stream.isTrapped)
    } catch {
        throw Difference("step \(stream.step): \(error.text)")
    }
    stream.close()
    return (stream.posted, stream.completed)
}

@MainActor
func compareRdmavt(_ kind: String, _ native: NativeLibrary) throws(Difference) -> (Int, Int) {
    let stream = try RdmavtStream(kind: kind, seed: seed, libraries: Twin(vendor, native))
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
        let (taken, read) = try kind.hasPrefix("hfi1") ? compareRdmavt(kind, native) : compare(kind, native)
        posted += taken
        completed += read
    } catch {
        print("different, with seed \(seed) over '\(kind)', \(error.text)")
        print("again: scripts/differential --seed \(seed) --count \(count) '\(kind)'")
        exit(1)
    }
}
print("equal: \(posted) work requests, \(completed) completions over \(kinds.count) kinds of device, seed \(seed)")
