import Testing

/// The native providers of this package over the same devices, by way of the loader and the waist.
@Suite("Simulator: under the native providers", .enabled(if: Peer.canPreload))
struct NativeTests {
    @Test("every scenario that the vendor's C library passes", arguments: VendorTests.devices)
    func scenarios(device: String) throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", ["--native"], over: device)
        #expect(outcome.status == 0, "\(device): \(outcome.output)")
    }

    @Test(
        "the same with doorbells that are trapped one by one, and other forms of completions",
        .enabled(if: VendorTests.canTrap),
        arguments: VendorTests.trapped + [
            ("mlx5", ["MLX5_CQE_SIZE": "128"]), ("mlx5 cqe0", ["MLX5_SCATTER_TO_CQE": "0"]),
        ])
    func trapping(device: String, environment: [String: String]) throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", ["--native"], over: device, environment)
        #expect(outcome.status == 0, "\(device) \(environment): \(outcome.output)")
    }
}
