import Foundation
import Testing
import ToolSupport

@Suite("verbs over the simulated device of Tests/Simulator")
struct SimulatedDeviceTests {
    /// Built beside the tool.
    private static let library =
        URL(fileURLWithPath: Tool.path).deletingLastPathComponent().path + "/libuverbs-sim.so"

    @Test(
        "verbs ping: every operation of every transport, both sides in one process, every byte looked at",
        arguments: ["hfi1 free", "mlx5 free", "mlx5 free roce"])
    func ping(device: String) async throws {
        let outcome = try await Tool.run(
            "ping", "--in-process", "--all", "--verify", "--count", "20", "--device", "\(device.prefix(4))_0",
            environment: ["LD_PRELOAD": Self.library, "UVERBS_SIM": device])
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.output.contains("compare-swap"))
    }
}
