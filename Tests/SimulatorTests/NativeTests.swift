import Testing

/// The native providers of this package on the devices of `VendorTests`, through the loader and the provider ABI.
@Suite("Simulator: with the native providers", .enabled(if: Peer.canPreload))
struct NativeTests {
    @Test("a native provider passes every scenario of sim-peer", arguments: VendorTests.devices)
    func scenarios(device: String) throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", ["--native"], over: device)
        #expect(outcome.status == 0, "\(device): \(outcome.output)")
    }

    @Test("the native cxgb4 passes every iWARP scenario of sim-peer", arguments: VendorTests.iWARPDevices)
    func iWARP(device: String) throws {
        try Peer.nativeScenarios(over: device)
    }

    @Test("the native cxgb4 passes every scenario without write-combining doorbells, and with the workaround for T4")
    func iWARPForms() throws {
        for device in ["cxgb4 t5", "cxgb4 t6 reorder"] {
            try Peer.nativeScenarios(over: device, ["T5_ENABLE_WC": "0"])
        }
        try Peer.nativeScenarios(over: "cxgb4 t4 onchip", ["CXGB4_MA_WR": "1"])
    }

    @Test(
        "every scenario passes with trapped doorbells, CQEs of 128 bytes, and without scatter to CQE",
        .enabled(if: VendorTests.canTrap),
        arguments: VendorTests.trapped + [
            ("mlx5", ["MLX5_CQE_SIZE": "128"]), ("mlx5 cqe0", ["MLX5_SCATTER_TO_CQE": "0"]),
        ])
    func trapping(device: String, environment: [String: String]) throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", ["--native"], over: device, environment)
        #expect(outcome.status == 0, "\(device) \(environment): \(outcome.output)")
    }
}
