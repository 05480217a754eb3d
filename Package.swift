// swift-tools-version: 6.2
import Foundation
import PackageDescription

// Two builds come out of this one tree.
//
// The ordinary build: the Swift library, the tool and every test.
//
// The provider build (SWIFT_RDMA_EMBEDDED=1, with a --scratch-path of its own): every provider as a
// shared library in Embedded Swift, which needs nothing but libc and exports one symbol. Only here are
// unsafe flags used: a package that has them cannot be a dependency by version.
let embedded = ProcessInfo.processInfo.environment["SWIFT_RDMA_EMBEDDED"] == "1"

// SWIFT_RDMA_MUTANTS=1 builds providers of which RDMA_MUTANT in the environment alters one field of one layout: a test
// must notice.
let mutants = ProcessInfo.processInfo.environment["SWIFT_RDMA_MUTANTS"] == "1"

// SWIFT_RDMA_FUZZ=1 adds the fuzz programs; they only link under `--sanitize=fuzzer`.
let fuzz = ProcessInfo.processInfo.environment["SWIFT_RDMA_FUZZ"] == "1"

// SWIFT_RDMA_COLD=1 is for builds that are thrown away, as CI's are: nobody looks for the system's symbols in their
// index, and they are a fifth of the compiler's work. A build with it and one without it share nothing.
let cold = ProcessInfo.processInfo.environment["SWIFT_RDMA_COLD"] == "1"

// A source package of scripts/package holds the packages that the command links, in Components/, so that it builds without
// network. The tests, which need further ones, are left out of such a build.
let hasComponents = FileManager.default.fileExists(atPath: "\(Context.packageDirectory)/Components")

let strict: [SwiftSetting] =
    [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]
    + (cold ? [.unsafeFlags(["-index-ignore-system-modules"])] : [])

/// The C library checks the buffers of its functions in optimized C code. Not in C that Swift imports: an inline function of its
/// headers has to be the same one in every module, and the standard library's modules are without.
let fortified: [CSetting] = [.define("_FORTIFY_SOURCE", to: "2", .when(configuration: .release))]

/// The link settings of a provider module that any program can load: one symbol, nothing missing, nothing needed but
/// libc, and never unloaded, which Swift code does not survive.
let moduleLinking: [LinkerSetting] =
    [
        "--version-script=\(Context.packageDirectory)/providers/module.map", "--no-undefined", "--as-needed",
        "--gc-sections", "-z", "nodelete", "-z", "now", "-z", "relro",
    ].map { .unsafeFlags(["-Xlinker", $0]) } + [.unsafeFlags(["-use-ld=lld"])]

/// The simulated device is loaded before the C library, by any program: it shows the functions that it puts in front of
/// the C library's.
let preloadLinking: [LinkerSetting] =
    [
        "--version-script=\(Context.packageDirectory)/Sources/SimulatorPreload/preload.map", "--no-undefined",
        "--as-needed", "--gc-sections", "-z", "nodelete", "-z", "now", "-z", "relro",
    ].map { .unsafeFlags(["-Xlinker", $0]) } + [.unsafeFlags(["-use-ld=lld"])]

/// SWIFT_RDMA_DROPIN=1 adds the library that stands in front of the distribution's libibverbs: scripts/build-dropin.
let dropIn = ProcessInfo.processInfo.environment["SWIFT_RDMA_DROPIN"] == "1"

/// It has libibverbs's soname, version nodes and nothing else to show, contains the Swift runtime, and is never unloaded,
/// which Swift code does not survive. It does not need itself: all functions of libibverbs are in it.
let dropInLinking: [LinkerSetting] =
    [
        "-soname=libibverbs.so.1", "--version-script=\(Context.packageDirectory)/Sources/CDropIn/libibverbs.map",
        "--no-undefined", "--gc-sections", "-z", "nodelete", "-z", "now", "-z", "relro",
    ].map { .unsafeFlags(["-Xlinker", $0]) }
    + [.unsafeFlags(["-use-ld=\(Context.packageDirectory)/scripts/lib/ld-as-needed", "-static-stdlib"])]

/// The settings of code that providers contain: it builds as ordinary and as Embedded Swift.
func providerSide(
    _ name: String, dependencies: [Target.Dependency], path: String? = nil, exclude: [String] = [],
    isModule: Bool = false, linking: [LinkerSetting] = []
) -> Target {
    .target(
        name: name, dependencies: dependencies, path: path, exclude: exclude,
        swiftSettings: strict + [.enableExperimentalFeature("Extern")]
            + (mutants ? [.define("SWIFT_RDMA_MUTANTS")] : [])
            + (embedded
                ? [
                    .enableExperimentalFeature("Embedded"),
                    .define("SWIFT_RDMA_MODULE"),
                    // A section for every function, so that the linker leaves out what nobody calls; and no word of
                    // libibverbs, whose headers we use and whose code we do not.
                    .unsafeFlags([
                        "-wmo", "-Xcc", "-fvisibility=hidden", "-Xfrontend", "-function-sections",
                        "-Xfrontend", "-disable-autolink-library", "-Xfrontend", "ibverbs",
                    ]),
                ] : []),
        linkerSettings: embedded ? (isModule ? moduleLinking : linking) : [])
}

/// The modules below the provider ABI: the libraries of providers, and the providers in Swift.
let providerTargets: [Target] = [
    .systemLibrary(
        name: "CIBVerbs", pkgConfig: embedded ? nil : "libibverbs",
        providers: [.apt(["libibverbs-dev"]), .yum(["rdma-core-devel"])]),
    .target(name: "CProviderABI", dependencies: ["CIBVerbs"], exclude: ["abi"], cSettings: fortified),
    .target(name: "CLinux", cSettings: fortified),
    .target(name: "CPackage", cSettings: fortified),
    .target(name: "CCRC32"),
    .target(name: "CKernelABI", dependencies: ["CIBVerbs"], exclude: ["abi"], cSettings: fortified),
    providerSide("ProviderKit", dependencies: ["CPackage", "CProviderABI", "CIBVerbs", "CLinux"]),
    providerSide(
        "KernelVerbs", dependencies: ["ProviderKit", "CKernelABI", "CProviderABI", "CIBVerbs", "CLinux"]),
    providerSide("RoCEWire", dependencies: ["CCRC32"]),
    providerSide("RoCETransport", dependencies: ["RoCEWire", "CIBVerbs"]),
    providerSide(
        "SoftProvider",
        dependencies: [
            "ProviderKit", "RoCETransport", "RoCEWire", "CSoftExtension", "CPackage", "CProviderABI", "CIBVerbs",
            "CLinux",
        ],
        path: "providers/soft/Sources", isModule: true),
    providerSide(
        "RxeProvider",
        dependencies: ["ProviderKit", "KernelVerbs", "CKernelABI", "CProviderABI", "CIBVerbs", "CLinux"],
        path: "providers/rxe/Sources", isModule: true),
    providerSide(
        "Hfi1Provider",
        dependencies: ["ProviderKit", "KernelVerbs", "CKernelABI", "CProviderABI", "CIBVerbs", "CLinux"],
        path: "providers/hfi1/Sources", isModule: true),
    // The extensions of providers, rdma_soft.h and rdma_mlx5.h.
    .target(name: "CSoftExtension", path: "providers/soft/Extension"),
    .target(name: "CMlx5Extension", path: "providers/mlx5/Extension"),
    providerSide(
        "Cxgb4Provider",
        dependencies: ["ProviderKit", "KernelVerbs", "CKernelABI", "CProviderABI", "CIBVerbs", "CLinux"],
        path: "providers/cxgb4/Sources", isModule: true),
    providerSide(
        "Mlx5Provider",
        dependencies: [
            "ProviderKit", "KernelVerbs", "CMlx5Extension", "CKernelABI", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        path: "providers/mlx5/Sources", isModule: true),
    .target(name: "CSimulatorABI"),
    .target(name: "CSimulator", dependencies: ["CSimulatorABI", "CKernelABI", "CIBVerbs"], cSettings: fortified),
    providerSide(
        "Simulator", dependencies: ["CSimulator", "CSimulatorABI", "CKernelABI", "CIBVerbs"],
        exclude: ["README.md"], linking: preloadLinking),
    // The functions of the C library that the simulated device takes over; only in the library that is preloaded.
    .target(name: "SimulatorPreload", dependencies: ["CSimulator", "CSimulatorABI"], exclude: ["preload.map"]),
]

func providerLibrary(_ name: String, target: String) -> Product {
    .library(name: name, type: .dynamic, targets: [target])
}

let coreTargets: [Target] = [
    .systemLibrary(
        name: "CRDMACM", pkgConfig: "librdmacm",
        providers: [.apt(["librdmacm-dev"]), .yum(["rdma-core-devel"])]),
    .systemLibrary(
        name: "CNetlink", pkgConfig: "libnl-3.0",
        providers: [.apt(["libnl-3-dev"]), .yum(["libnl3-devel"])]),
    .target(name: "CProviderCore", dependencies: ["CPackage", "CProviderABI", "CIBVerbs"], cSettings: fortified),
    .target(name: "Locking", swiftSettings: strict),
    .target(
        name: "KernelOps",
        dependencies: ["KernelVerbs", "ProviderKit", "CKernelABI", "CProviderABI", "CIBVerbs", "CLinux"],
        swiftSettings: strict),
    .target(
        name: "Rendezvous", dependencies: ["Locking", .product(name: "SystemPackage", package: "swift-system")],
        swiftSettings: strict),
    .target(name: "RDMANetlink", dependencies: ["CNetlink"], swiftSettings: strict),
    .target(
        name: "LibibverbsProvider", dependencies: ["ProviderKit", "CProviderABI", "CIBVerbs", "CLinux"],
        path: "providers/libibverbs/Sources", swiftSettings: strict),
    .target(
        name: "ProviderLoader",
        dependencies: [
            "RDMANetlink", "KernelOps", "Locking", "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        swiftSettings: strict),
    .target(
        name: "Verbs",
        dependencies: [
            "ProviderLoader", "Locking", "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux", "LibibverbsProvider",
            "SoftProvider", "CSoftExtension",
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        // Spans over registered memory, as the standard library gives them over its own collections.
        swiftSettings: strict + [.enableExperimentalFeature("Lifetimes")]),
    // The library for programs in C: its exported functions, and its use of the loader.
    .target(
        name: "CDropIn", dependencies: ["CProviderCore", "CProviderABI", "CIBVerbs", "CLinux"],
        exclude: ["libibverbs.map"], cSettings: fortified),
    .target(
        name: "DropIn",
        dependencies: [
            "CDropIn", "RDMACMNode", "SoftwareConnections", "ProviderLoader", "SoftProvider", "CProviderCore",
            "CProviderABI", "CIBVerbs", .product(name: "SystemPackage", package: "swift-system"),
        ],
        swiftSettings: strict, linkerSettings: dropIn ? dropInLinking : []),
    .target(name: "CMProtocol", swiftSettings: strict),
    .target(
        name: "SoftwareConnections",
        dependencies: [
            "ProviderLoader", "Locking", "CMProtocol", "CSoftExtension", "CRDMACM", "CProviderABI", "CIBVerbs",
            "CLinux",
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        swiftSettings: strict),
    .target(name: "CRDMACMNode", dependencies: ["CIBVerbs"], cSettings: fortified),
    // The kernel's interface of rdma_cm for software devices, for programs in C.
    .target(
        name: "RDMACMNode",
        dependencies: [
            "SoftwareConnections", "Locking", "CMProtocol", "CRDMACMNode", "CRDMACM", "CIBVerbs", "CLinux",
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        swiftSettings: strict),
    .target(
        name: "ConnectionManager",
        dependencies: [
            "Verbs", "ProviderLoader", "Locking", "SoftwareConnections", "CMProtocol", "CRDMACM", "CIBVerbs",
            "CLinux",
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        swiftSettings: strict),
    // The command `verbs`. A file system that ignores case has no room for it beside the library Verbs.
    .executableTarget(
        name: "VerbsCommand",
        dependencies: [
            "Verbs", "ConnectionManager", "Rendezvous", "RDMANetlink", "ProviderLoader", "Locking", "CProviderCore",
            "CProviderABI", "CLinux",
            .product(name: "ArgumentParser", package: "swift-argument-parser"),
            .product(name: "Histogram", package: "hdrhistogram-swift"),
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        swiftSettings: strict),
]

let testTargets: [Target] = [
    .target(
        name: "TestSupport", dependencies: ["CProviderCore", "CProviderABI", "CIBVerbs"],
        path: "Tests/Support/TestSupport",
        swiftSettings: strict),
    .executableTarget(
        name: "LoaderProbe", dependencies: ["ProviderLoader"], path: "Tests/Support/LoaderProbe",
        swiftSettings: strict),
    .testTarget(
        name: "CProviderTests", dependencies: ["TestSupport", "CProviderCore", "CProviderABI", "CIBVerbs"],
        swiftSettings: strict),
    .testTarget(
        name: "ProviderKitTests",
        dependencies: ["TestSupport", "ProviderKit", "CProviderABI", "CIBVerbs", "CLinux"], swiftSettings: strict),
    .target(
        name: "KernelTestSupport", dependencies: ["KernelVerbs", "CKernelABI", "CIBVerbs", "CLinux"],
        path: "Tests/Support/KernelTestSupport", swiftSettings: strict),
    .testTarget(
        name: "KernelVerbsTests",
        dependencies: [
            "TestSupport", "KernelTestSupport", "CAllocationCounter", "KernelVerbs", "RxeProvider", "CKernelABI",
            "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        swiftSettings: strict),
    .testTarget(
        name: "KernelOpsTests",
        dependencies: [
            "TestSupport", "KernelTestSupport", "KernelOps", "KernelVerbs", "ProviderLoader", "CKernelABI",
            "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        swiftSettings: strict),
    .target(
        name: "WireSupport", dependencies: ["RoCEWire"], path: "Tests/Support/WireSupport", swiftSettings: strict),
    .testTarget(
        name: "RoCEWireTests", dependencies: ["TestSupport", "WireSupport", "RoCEWire", "CCRC32"],
        resources: [.copy("Fixtures")], swiftSettings: strict),
    .target(name: "CAllocationCounter", path: "Tests/Support/CAllocationCounter"),
    .testTarget(
        name: "RoCETransportTests",
        dependencies: ["TestSupport", "RoCETransport", "RoCEWire", "CAllocationCounter", "CIBVerbs"],
        swiftSettings: strict),
    // Connections past 2^24 packets, for an optimised build: scripts/test laps.
    .executableTarget(
        name: "transport-laps", dependencies: ["RoCETransport", "RoCEWire"], path: "Tests/Support/TransportLaps",
        swiftSettings: strict),
    // Any number of random histories, for an optimised build: scripts/simulate.
    .executableTarget(
        name: "transport-histories", dependencies: ["TestSupport", "RoCETransport", "RoCEWire"],
        path: "Tests/Support/TransportHistories", swiftSettings: strict),
    .testTarget(
        name: "ProviderLoaderTests",
        dependencies: [
            "TestSupport", "LoaderProbe", "ProviderLoader", "Locking", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        exclude: ["Fixtures"], swiftSettings: strict),
    .testTarget(
        name: "RDMANetlinkTests", dependencies: ["TestSupport", "RDMANetlink", "CNetlink"],
        resources: [.copy("Fixtures")], swiftSettings: strict),
    .testTarget(
        name: "VerbsTests",
        dependencies: [
            "TestSupport", "CAllocationCounter", "Verbs", "Rendezvous", "SoftProvider", "Locking", "CProviderABI",
            "CIBVerbs", "CLinux", "fork-peer",
        ],
        swiftSettings: strict),
    .testTarget(name: "RendezvousTests", dependencies: ["Rendezvous"], swiftSettings: strict),
    .target(
        name: "ToolSupport",
        dependencies: [
            .product(name: "Subprocess", package: "swift-subprocess"),
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        path: "Tests/Support/ToolSupport", swiftSettings: strict),
    .testTarget(
        name: "VerbsToolTests",
        dependencies: [
            "TestSupport", "ToolSupport", "VerbsCommand", "Rendezvous", "ProviderLoader", "refuse-calls", "fork-peer",
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        swiftSettings: strict),
    // Runs a program for which system calls fail.
    .executableTarget(name: "refuse-calls", path: "Tests/Support/RefuseCalls"),
    .executableTarget(
        name: "pingpong-peer", dependencies: ["Verbs"], path: "Tests/Support/PingpongPeer", swiftSettings: strict),
    .executableTarget(
        name: "multicast-peer", dependencies: ["Verbs"], path: "Tests/Support/MulticastPeer", swiftSettings: strict),
    .executableTarget(
        name: "placement-peer", dependencies: ["Verbs"], path: "Tests/Support/PlacementPeer", swiftSettings: strict),
    .target(name: "CForkedChild", dependencies: ["CIBVerbs"], path: "Tests/Support/CForkedChild"),
    // Calls fork(2) while it moves data: of a process with few threads, since a child has a copy of every lock.
    .executableTarget(
        name: "fork-peer", dependencies: ["CForkedChild", "CIBVerbs", "Verbs"], path: "Tests/Support/ForkPeer",
        swiftSettings: strict),
    // Runs in a guest with a kernel that has RDMA: scripts/guest.
    .testTarget(
        name: "GuestTests",
        dependencies: [
            "ToolSupport", "WireSupport", "RoCEWire", "ConnectionManager", "Verbs", "ProviderLoader", "RDMANetlink",
            "KernelVerbs", "LibibverbsProvider", "pingpong-peer", "multicast-peer", "placement-peer", "fork-peer",
            "CProviderCore", "CProviderABI", "CIBVerbs",
        ],
        path: "Tests/Guest", exclude: ["README.md", "rdmavt_loopback"], swiftSettings: strict),
    .testTarget(
        name: "CMProtocolTests", dependencies: ["CMProtocol", "TestSupport", "WireSupport"], swiftSettings: strict),
    // Stands in for librdmacm while a test says so: every function of it that the package calls.
    .target(name: "CFakeRDMACM", dependencies: ["CRDMACM"], path: "Tests/Support/CFakeRDMACM"),
    .testTarget(
        name: "ConnectionManagerTests",
        dependencies: [
            "CFakeRDMACM", "CRDMACM", "CProviderABI", "CIBVerbs", "ConnectionManager", "SoftwareConnections",
            "CMProtocol",
            "ProviderLoader", "Verbs",
        ],
        swiftSettings: strict),
    .testTarget(
        name: "RDMACMNodeTests",
        dependencies: [
            "RDMACMNode", "SoftwareConnections", "CMProtocol", "CRDMACMNode", "ProviderLoader",
            .product(name: "SystemPackage", package: "swift-system"),
        ],
        swiftSettings: strict),
    .target(
        name: "SoftTestSupport", dependencies: ["SoftProvider", "CProviderCore", "CProviderABI", "CIBVerbs"],
        path: "providers/soft/Tests/SoftTestSupport", swiftSettings: strict),
    .executableTarget(
        name: "soft-peer", dependencies: ["SoftTestSupport", "CProviderABI", "CIBVerbs"],
        path: "providers/soft/Tests/SoftPeer", swiftSettings: strict),
    // Two processes that exchange data while harm is done to them; SoftProviderTests runs it for some seconds.
    .target(name: "CNamespaces", path: "Tests/Support/CNamespaces"),
    .executableTarget(
        name: "soft-chaos", dependencies: ["CNamespaces", "Verbs"], path: "providers/soft/Tests/SoftChaos",
        swiftSettings: strict),
    .testTarget(
        name: "SoftProviderTests",
        dependencies: [
            "soft-peer", "soft-chaos", "refuse-calls", "SoftTestSupport", "TestSupport", "CAllocationCounter",
            "SoftProvider",
            "ProviderLoader",
            "Verbs", "RoCETransport", "RoCEWire",
            "ProviderKit", "CSoftExtension", "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        path: "providers/soft/Tests/SoftProviderTests", swiftSettings: strict),
    .testTarget(
        name: "RxeProviderTests",
        dependencies: [
            "TestSupport", "CAllocationCounter", "RxeProvider", "ProviderKit", "CKernelABI", "CProviderABI", "CIBVerbs",
            "CLinux",
        ],
        path: "providers/rxe/Tests/RxeProviderTests", swiftSettings: strict),
    .target(
        name: "PeerSupport",
        dependencies: [
            "CSimulatorABI", "CMlx5DV", "CMlx5Extension", "ProviderLoader", "CProviderABI", "CIBVerbs",
        ],
        path: "Tests/Support/PeerSupport", swiftSettings: strict),
    .executableTarget(
        name: "sim-peer",
        dependencies: [
            "PeerSupport", "CSimulatorABI", "CMlx5Extension", "Hfi1Provider", "Mlx5Provider", "Cxgb4Provider",
            "ProviderLoader",
            "CProviderABI", "CIBVerbs",
        ],
        path: "Tests/Support/SimPeer", swiftSettings: strict),
    // Compares a provider of this package with the vendor's C library, request by request.
    .executableTarget(
        name: "sim-stream", dependencies: ["PeerSupport", "CSimulatorABI", "CProviderABI", "CMlx5DV", "CIBVerbs"],
        path: "Tests/Support/SimStream", swiftSettings: strict),
    .testTarget(
        name: "SimulatorTests",
        dependencies: [
            "sim-peer", "Simulator", "CSimulator", "CSimulatorABI", "KernelVerbs", "CKernelABI", "CIBVerbs",
        ],
        swiftSettings: strict),
    .testTarget(
        name: "Hfi1ProviderTests",
        dependencies: [
            "TestSupport", "KernelTestSupport", "CAllocationCounter", "Hfi1Provider", "KernelVerbs", "ProviderKit",
            "CKernelABI", "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        path: "providers/hfi1/Tests/Hfi1ProviderTests", swiftSettings: strict),
    .systemLibrary(
        name: "CMlx5DV", path: "providers/mlx5/Tests/CMlx5DV", providers: [.apt(["libibverbs-dev"])]),
    .testTarget(
        name: "Mlx5ProviderTests",
        dependencies: [
            "TestSupport", "KernelTestSupport", "CAllocationCounter", "CMlx5DV", "Mlx5Provider", "KernelVerbs",
            "ProviderKit", "CKernelABI", "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        path: "providers/mlx5/Tests/Mlx5ProviderTests", swiftSettings: strict),
    .testTarget(
        name: "Cxgb4ProviderTests",
        dependencies: [
            "TestSupport", "KernelTestSupport", "CAllocationCounter", "Cxgb4Provider", "KernelVerbs", "ProviderKit",
            "CKernelABI", "CProviderCore", "CProviderABI", "CIBVerbs", "CLinux",
        ],
        path: "providers/cxgb4/Tests/Cxgb4ProviderTests", swiftSettings: strict),
    .testTarget(
        name: "LibibverbsProviderTests",
        dependencies: ["TestSupport", "LibibverbsProvider", "CProviderABI", "CIBVerbs", "CLinux"],
        path: "providers/libibverbs/Tests", swiftSettings: strict),
]

func fuzzer(_ name: String, dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: "Tests/Fuzz/\(name)",
        swiftSettings: strict + [.unsafeFlags(["-parse-as-library"])])
}

// Each exists once its folder does.
let fuzzTargets: [Target] = [
    fuzzer("FuzzPackets", dependencies: ["RoCEWire", "WireSupport"]),
    fuzzer("FuzzTransport", dependencies: ["RoCETransport", "RoCEWire"]),
    fuzzer("FuzzDriverFiles", dependencies: ["ProviderLoader"]),
    fuzzer("FuzzFaultRules", dependencies: ["RoCETransport"]),
    fuzzer("FuzzSharedMemory", dependencies: ["SoftProvider", "RoCETransport", "RoCEWire"]),
    fuzzer("FuzzNetlink", dependencies: ["RDMANetlink"]),
    fuzzer("FuzzCompletions", dependencies: ["Mlx5Provider", "ProviderKit", "CIBVerbs"]),
    fuzzer("FuzzCMMessages", dependencies: ["CMProtocol"]),
    fuzzer("FuzzRDMACMNode", dependencies: ["RDMACMNode", "SoftwareConnections", "CRDMACMNode"]),
    fuzzer("FuzzManagement", dependencies: ["SoftProvider"]),
    fuzzer("FuzzConnectionManager", dependencies: ["Simulator", "CSimulator", "CSimulatorABI"]),
].filter { FileManager.default.fileExists(atPath: "\(Context.packageDirectory)/Tests/Fuzz/\($0.name)") }

let allTargets =
    embedded
    ? providerTargets
    : providerTargets + coreTargets + (hasComponents ? [] : testTargets + (fuzz ? fuzzTargets : []))

/// The targets of those names, and those that they depend on.
func closure(of names: [String], in targets: [Target]) -> Set<String> {
    var found: Set<String> = []
    var open = names
    while let name = open.popLast() {
        guard let target = targets.first(where: { $0.name == name }), found.insert(name).inserted else { continue }
        for dependency in target.dependencies {
            if case .byNameItem(let name, _) = dependency { open.append(name) }
        }
    }
    return found
}

// SWIFT_RDMA_TESTS=VerbsTests,… leaves nothing but those test targets and what they are built from, and
// SWIFT_RDMA_TESTS=-VerbsToolTests,… all of them but those: a build for a sanitizer is a build from nothing, and not
// all of the house is a part of it.
let kept = ProcessInfo.processInfo.environment["SWIFT_RDMA_TESTS"].map { setting in
    let names = setting.split(separator: ",").map(String.init)
    let leftOut = Set(names.filter { $0.hasPrefix("-") }.map { String($0.dropFirst()) })
    let tests = allTargets.filter { $0.type == .test && !leftOut.contains($0.name) }.map(\.name)
    return closure(of: leftOut.isEmpty ? names : tests, in: allTargets)
}

let package = Package(
    name: "swift-rdma",
    products: embedded
        ? [
            ("soft", "SoftProvider"), ("rxe", "RxeProvider"), ("hfi1", "Hfi1Provider"), ("mlx5", "Mlx5Provider"),
            ("cxgb4", "Cxgb4Provider"),
        ].map { providerLibrary($0, target: $1) }
        : [
            .library(name: "Verbs", targets: ["Verbs"]),
            .library(name: "ConnectionManager", targets: ["ConnectionManager"]),
            .library(name: "Rendezvous", targets: ["Rendezvous"]),
            .library(name: "ProviderLoader", targets: ["ProviderLoader"]),
            .library(name: "RDMANetlink", targets: ["RDMANetlink"]),
            .library(name: "ProviderKit", targets: ["ProviderKit", "CProviderABI"]),
            .library(name: "RoCEWire", targets: ["RoCEWire"]),
            .executable(name: "verbs", targets: ["VerbsCommand"]),
        ],
    dependencies: embedded
        ? []
        : hasComponents
            ? ["swift-argument-parser", "swift-system", "hdrhistogram-swift"].map {
                .package(path: "Components/\($0)")
            }
            : [
                .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
                .package(url: "https://github.com/apple/swift-system", from: "1.6.0"),
                .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.0"),
                .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
                .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.4.0"),
            ],
    targets: allTargets.filter { kept?.contains($0.name) != false }
)
// Loaded before any program, it simulates a device: for tests, and for those who develop a provider.
package.products.append(
    .library(name: "uverbs-sim", type: .dynamic, targets: ["Simulator", "SimulatorPreload"]))
if dropIn {
    package.products.append(.library(name: "verbs-dropin", type: .dynamic, targets: ["DropIn"]))
}
if let kept {
    package.products = kept.contains("VerbsCommand") ? [.executable(name: "verbs", targets: ["VerbsCommand"])] : []
}
