import CIBVerbs
import Cxgb4Provider
import Glibc
import Hfi1Provider
import Mlx5Provider
import PeerSupport
import ProviderLoader

// A program in verbs.h alone, which runs on any device. Its arguments are scenarios; its exit status is 0 when each of
// them behaves as verbs.h and IBTA specify.
//
//     sim-peer [--native] [SCENARIO…]
//
// With --native it uses the device's provider of this package, through the loader and the provider ABI; without it,
// libibverbs.

let scenarios: [(name: String, body: () -> Void)] = [
    ("rc-send", { sendMessages(IBV_QPT_RC) }),
    ("uc-send", { sendMessages(IBV_QPT_UC) }),
    ("rc-write", { writes(IBV_QPT_RC) }),
    ("uc-write", { writes(IBV_QPT_UC) }),
    ("reads", { reads() }),
    ("datagrams", { datagrams() }),
    ("many", { manyMessages(rounds: 150) }),
    ("shared", { sharedReceives() }),
    ("events", { completionEvents() }),
    ("acknowledgement", { acknowledgement() }),
    ("failures", { failures() }),
    ("states", { states() }),
    ("resizing", { resizing() }),
    ("windows", { windows() }),
    ("builders", { builders() }),
    ("doorbells", { doorbells() }),
    ("stores", { stores() }),
    ("synthetic", { synthetic() }),
    ("direct", { direct() }),
    ("fatal", { fatalError() }),
]

/// The scenarios of iWARP devices, in place of those above.
let iWARPScenarios: [(name: String, body: () -> Void)] = [
    ("iwarp-send", { iWARPMessages() }),
    ("iwarp-write", { iWARPWrites() }),
    ("iwarp-read", { iWARPReads() }),
    ("iwarp-pairs", { iWARPPairs() }),
    ("iwarp-invalidate", { iWARPInvalidation() }),
    ("many", { manyMessages(rounds: 150) }),
    ("iwarp-shared", { iWARPSharedReceives() }),
    ("events", { completionEvents() }),
    ("acknowledgement", { acknowledgement() }),
    ("iwarp-failures", { iWARPFailures() }),
    ("iwarp-flush", { iWARPFlush() }),
    ("iwarp-states", { iWARPStates() }),
    ("iwarp-storm", { iWARPStorm() }),
    ("iwarp-doorbells", { iWARPDoorbells() }),
    ("iwarp-dropped", { iWARPDroppedDoorbells() }),
    ("iwarp-overflow", { iWARPOverflow() }),
    ("iwarp-synthetic", { iWARPSynthetic() }),
    ("iwarp-threads", { iWARPThreads() }),
    ("iwarp-many", { iWARPConnections() }),
    ("fatal", { fatalError() }),
]

var wanted = Array(CommandLine.arguments.dropFirst())
if wanted.first == "--native" {
    let hfi1 = BuiltInProvider(name: "hfi1", entry: { Hfi1Provider.providerEntry(core: $0, why: $1) })
    let mlx5 = BuiltInProvider(name: "mlx5", entry: { Mlx5Provider.providerEntry(core: $0, why: $1) })
    let cxgb4 = BuiltInProvider(name: "cxgb4", entry: { Cxgb4Provider.providerEntry(core: $0, why: $1) })
    library = NativeLibrary(builtIn: [hfi1, mlx5, cxgb4])
    wanted.removeFirst()
}
/// Scenarios that run only when named: `wraps` takes long, `silent-ports` needs a wire.
let longScenarios: [(name: String, body: () -> Void)] = [
    ("wraps", { manyMessages(rounds: 8300) }), ("silent-ports", { silentPorts() }),
]

let usual = hasIWARPDevice() ? iWARPScenarios : scenarios

for name in wanted.isEmpty ? usual.map(\.name) : wanted {
    guard let scenario = (usual + longScenarios).first(where: { $0.name == name }) else {
        print("there is no scenario \(name); there are: \(usual.map(\.name).joined(separator: " "))")
        exit(2)
    }
    scenario.body()
    print("ok \(name)")
}
