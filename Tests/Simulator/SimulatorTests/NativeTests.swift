import Testing

/// The native providers of this package over the same devices, by way of the loader and the waist.
@Suite("Simulator: under the native providers", .enabled(if: Peer.canPreload))
struct NativeTests {
    @Test("every scenario that the vendor's C library passes", arguments: ["hfi1", "hfi1 write"])
    func scenarios(device: String) throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", ["--native"], over: device)
        #expect(outcome.status == 0, "\(device): \(outcome.output)")
    }

    @Test("verbs ping: every operation of every transport, both sides in one process, every byte looked at")
    func ping() throws {
        for device in ["hfi1 free", "mlx5 free", "mlx5 free roce"] {
            let outcome = try Peer.run(
                Peer.folder + "/verbs",
                ["ping", "--in-process", "--all", "--verify", "--count", "20", "--device", "\(device.prefix(4))_0"],
                over: device)
            #expect(outcome.status == 0, "\(device): \(outcome.output)")
            #expect(outcome.output.contains("compare-swap"))
        }
    }
}
