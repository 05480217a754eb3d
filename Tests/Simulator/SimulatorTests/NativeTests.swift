import Testing

/// The native providers of this package over the same devices, by way of the loader and the waist.
@Suite("Simulator: under the native providers", .enabled(if: Peer.canPreload))
struct NativeTests {
    @Test("every scenario that the vendor's C library passes", arguments: ["hfi1", "hfi1 write"])
    func scenarios(device: String) throws {
        let outcome = try Peer.run(Peer.folder + "/sim-peer", ["--native"], over: device)
        #expect(outcome.status == 0, "\(device): \(outcome.output)")
    }
}
