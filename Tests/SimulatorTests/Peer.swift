import Foundation
import Testing

/// Runs programs with the simulated device preloaded.
enum Peer {
    struct Outcome {
        var status: Int32
        var output: String
    }

    /// The folder of the test's build products.
    static let folder: String = {
        for argument in CommandLine.arguments {
            guard let range = argument.range(of: ".xctest", options: .backwards) else { continue }
            return URL(fileURLWithPath: String(argument[..<range.upperBound])).deletingLastPathComponent().path
        }
        return URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path
    }()

    /// Path of the preloaded library: RDMA_TEST_SIMULATOR, or that of this build.
    static let library =
        ProcessInfo.processInfo.environment["RDMA_TEST_SIMULATOR"] ?? folder + "/libuverbs-sim.so"

    /// A library that was built with a sanitizer can only be preloaded into a program that was built with it too.
    static let canPreload = dlsym(UnsafeMutableRawPointer(bitPattern: 0), "__asan_init") == nil

    /// Runs a program over a device. Returns its exit status and everything that it prints.
    static func run(
        _ program: String, _ arguments: [String] = [], over device: String, _ environment: [String: String] = [:]
    ) throws -> Outcome {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: program.contains("/") ? program : "/usr/bin/" + program)
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }.merging([
            "LD_PRELOAD": library, "UVERBS_SIM": device,
        ]) { $1 }
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return Outcome(
            status: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
            output: output)
    }

    /// Runs all scenarios of `sim-peer`.
    static func scenarios(over device: String, _ environment: [String: String] = [:]) throws {
        let outcome = try run(folder + "/sim-peer", over: device, environment)
        #expect(outcome.status == 0, "\(device) \(environment): \(outcome.output)")
    }

    /// Runs all scenarios of `sim-peer` through the native provider.
    static func nativeScenarios(over device: String, _ environment: [String: String] = [:]) throws {
        let outcome = try run(folder + "/sim-peer", ["--native"], over: device, environment)
        #expect(outcome.status == 0, "\(device) \(environment): \(outcome.output)")
    }
}
