// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "ping-pong",
    dependencies: [.package(name: "swift-rdma", path: "../..")],
    targets: [
        .executableTarget(
            name: "ping-pong",
            dependencies: [
                .product(name: "Rendezvous", package: "swift-rdma"), .product(name: "Verbs", package: "swift-rdma"),
            ])
    ])
