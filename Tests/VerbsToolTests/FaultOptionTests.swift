import Foundation
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs ping --faults and RDMA_SOFT_FAULTS", .serialized)
struct FaultOptionTests {
    @Test("--faults injects into the devices of both processes, and the log counts what was injected")
    func injected() async throws {
        let outcome = try await Tool.run(
            "ping", "--faults", "seed=7; loss every=20 operation=send", "--count", "60", "--warm-up", "0", "--verify",
            environment: ["RDMA_LOG": "info"])
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.errors.contains("faults are injected on request"), "\(outcome.errors)")
        #expect(
            outcome.errors.contains(/rule 1 \(loss\) at line 1, column 9: [1-9][0-9]* injected on/), "\(outcome.errors)"
        )
    }

    @Test("The variable is read by every program; a verb that fails is reported with the rule as the reason")
    func variable() async throws {
        let outcome = try await Tool.run(
            "ping", "--device", "soft0", "--in-process",
            environment: ["RDMA_SOFT_FAULTS": "fail=reg_mr errno=ENOMEM"])
        #expect(outcome.status == 4 || outcome.status == 6, "\(outcome)")
        #expect(
            outcome.errors.contains("ibv_reg_mr fails with ENOMEM on request (RDMA_SOFT_FAULTS)"), "\(outcome.errors)")
        let wrong = try await Tool.run("info", "soft0", environment: ["RDMA_SOFT_FAULTS": "los=1%"])
        #expect(wrong.status != 0)
        #expect(
            wrong.errors.contains("RDMA_SOFT_FAULTS: line 1, column 1: \"los\" is not a rule; allowed: seed, loss"),
            "\(wrong.errors)")
    }

    @Test("Rules that do not parse end the command before anything starts; so does no device, or one without faults")
    func refused() async throws {
        for command in ["ping", "perf"] {
            let wrong = try await Tool.run(command, "--faults", "seed=1; loss=1")
            #expect(wrong.status == 64)
            #expect(
                wrong.errors.contains("--faults: line 1, column 14: \"1\" is not a probability; allowed: 0% to 100%"),
                "\(wrong.errors)")
            let unnamed = try await Tool.run(command, "localhost", "--faults", "loss=1%")
            #expect(unnamed.status == 64 && unnamed.errors.contains("--faults needs a software device"), "\(unnamed)")
            let kernel = try await SimulatedDeviceTests.sim(
                ["mlx5"], [Tool.path, command, "--device", "mlx5_0", "--faults", "loss=1%"])
            #expect(kernel.status == ToolExit.unsupported.rawValue && kernel.output.isEmpty, "\(kernel)")
            #expect(
                kernel.errors.contains("mlx5_0 is not a software device: faults cannot be injected"), "\(kernel.errors)"
            )
        }
    }
}
