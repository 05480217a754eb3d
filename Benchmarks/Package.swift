// swift-tools-version: 6.2
import PackageDescription

// Benchmark programs. PostPoll prints the ratio of two loops that alternate in one process; WakeUp, how long it takes to
// wake a process; UDPLimit, what UDP allows without RDMA; ProcessVM, how long the kernel takes to copy 8 bytes to another
// process; CacheLine, what messages of one cache line cost without RDMA; VerbsLine, what they cost with what verbs require;
// QueueMemory, how the memory of many queues limits their rate; DeviceCost, what an open device costs.
let package = Package(
    name: "Benchmarks",
    dependencies: [.package(name: "swift-rdma", path: "..")],
    targets: [
        .target(name: "CRing", dependencies: [.product(name: "ProviderKit", package: "swift-rdma")]),
        .target(
            name: "CLoops", dependencies: [.product(name: "ProviderKit", package: "swift-rdma")],
            // The optimization level of distributions.
            cSettings: [.unsafeFlags(["-O2"])]),
        .executableTarget(
            name: "PostPoll",
            dependencies: [
                "CRing", "CLoops",
                .product(name: "Verbs", package: "swift-rdma"),
                .product(name: "ProviderLoader", package: "swift-rdma"),
            ],
            swiftSettings: [.swiftLanguageMode(.v6)]),
        // Clock, processor and peer process of the programs in C.
        .target(name: "CMeasure", cSettings: [.unsafeFlags(["-O2"])]),
        .executableTarget(name: "UDPLimit", dependencies: ["CMeasure"], cSettings: [.unsafeFlags(["-O2"])]),
        .executableTarget(
            name: "WakeUp", dependencies: [.product(name: "Verbs", package: "swift-rdma")],
            swiftSettings: [.swiftLanguageMode(.v6)]),
        .executableTarget(
            name: "DeviceCost", dependencies: [.product(name: "Verbs", package: "swift-rdma")],
            swiftSettings: [.swiftLanguageMode(.v6)]),
        .executableTarget(name: "ProcessVM", dependencies: ["CMeasure"]),
        .executableTarget(name: "CacheLine", dependencies: ["CMeasure"], cSettings: [.unsafeFlags(["-O2"])]),
        .executableTarget(name: "VerbsLine", dependencies: ["CMeasure"], cSettings: [.unsafeFlags(["-O2"])]),
        .executableTarget(name: "QueueMemory", dependencies: ["CMeasure"], cSettings: [.unsafeFlags(["-O2"])]),
    ]
)
