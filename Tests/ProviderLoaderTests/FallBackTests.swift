import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Fall-back")
struct FallBackTests {
    @Test(
        "If the first provider fails to open the device, the next serves; warnings and messages have the reason"
    )
    func keptReason() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let reason = "cannot open /dev/infiniband/uverbs0 \(UUID())"
        try bench.driver("mlx5", "driver mlx5\n", in: bench.override)
        let library = try bench.library("mlx5.so", ["name": "mlx5", "open-fails": reason])
        let opened = try bench.loader.open("mlx5_0")
        #expect(opened.provider.name == "libibverbs")
        #expect(
            opened.warnings == [
                "mlx5 of \(bench.override)/mlx5.driver does not serve mlx5_0: it does not open the device: \(reason); "
                    + "libibverbs (built in) does"
            ])
        #expect(opened.candidates.map(\.verdict.outcome) == [.failed, .chosen, .rejected])
        #expect(opened.candidates[1].verdict.message == "next in rank after mlx5 of \(bench.override)/mlx5.driver")
        #expect(bench.trace(library) == "mepo")
        #expect(opened.close() == 0)
        let kept = bench.loader.survey().messages.filter { $0.text.contains(reason) }
        #expect(kept == [LogMessage(level: .warning, provider: "loader", text: opened.warnings[0])])
    }

    @Test("Older versions of a provider are tried one after the other when newer ones fail")
    func chain() throws {
        let bench = try Workbench()
        try bench.mlx5()
        for version in 1...3 {
            try bench.driver("v\(version)", "driver mlx5\nversion \(version)\nlibrary v\(version).so\n")
            try bench.library(
                "v\(version).so", version == 1 ? ["name": "mlx5"] : ["name": "mlx5", "refuses": "no \(version)"])
        }
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.candidates.prefix(4).map(\.verdict.outcome) == [.failed, .failed, .chosen, .standsBy])
        #expect(entry.candidates.prefix(3).map(\.version) == ["3", "2", "1"])
        #expect(entry.warnings.count == 2)
    }

    @Test(
        "`critical yes` turns a fall-back into an error: for a broken library, a refused one and a wrong kernel",
        arguments: [0, 1, 2])
    func critical(_ kind: Int) throws {
        let bench = try Workbench()
        try bench.mlx5(kernelABI: 6)
        let window = kind == 2 ? "kernel-abi 1..5\n" : ""
        let file = try bench.driver("mlx5", "driver mlx5\ncritical yes\n\(window)")
        let library = try bench.library("mlx5.so", ["name": "mlx5", "refuses": "too old"])
        if kind == 1 { #expect(chmod(library, 0o777) == 0) }
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.chosen == nil)
        #expect(entry.verdict("libibverbs") == Verdict(.standsBy, .rank, "not tried: mlx5 is critical"))
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_0") }
        #expect(error == entry.error)
        #expect(error.code == (kind == 1 ? EPERM : EPROTONOSUPPORT))
        #expect(error.message.hasPrefix("mlx5 of \(file): "))
        #expect(error.message.hasSuffix("(mlx5 is critical)"))
        #expect(error.candidates == entry.candidates)
    }

    @Test("A critical driver file of a lower rank, or for other devices, has no effect")
    func criticalElsewhere() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("good", "driver mlx5\nlibrary good.so\n", in: bench.override)
        try bench.library("good.so", ["name": "mlx5"])
        try bench.driver("lower", "driver mlx5\nlibrary bad.so\ncritical yes\n")
        try bench.library("bad.so", ["refuses": "never"])
        try bench.driver("other", "driver rxe\nlibrary bad.so\ncritical yes\n", in: bench.override)
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("good")?.outcome == .chosen)
        #expect(entry.error == nil && entry.warnings == [])
    }

    @Test("RDMA_PROVIDER also turns a fall-back into an error, with the provider's errno value")
    func requested() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("mlx5", "driver mlx5\n")
        try bench.library("mlx5.so", ["name": "mlx5", "open-fails": "no permission", "open-errno": "\(EACCES)"])
        bench.configuration.environment["RDMA_PROVIDER"] = "mlx5"
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_0") }
        #expect(error.code == EACCES)
        #expect(error.message.contains("no permission (RDMA_PROVIDER names mlx5)"))
        // With raised privileges the variable is ignored.
        bench.configuration.isPrivileged = true
        if geteuid() == 0 {
            let opened = try bench.loader.open("mlx5_0")
            #expect(opened.provider.name == "libibverbs")
            #expect(opened.close() == 0)
        }
    }

    @Test("If all providers fail the error has each reason, and the errno value of open_device")
    func allFail() throws {
        let bench = try Workbench(builtIn: [.refusingTest])
        try bench.mlx5()
        try bench.driver("mlx5", "driver mlx5\n")
        try bench.library("mlx5.so", ["name": "mlx5", "open-fails": "no permission", "open-errno": "\(EACCES)"])
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_0") }
        #expect(error.code == EACCES)
        #expect(
            error.message
                == "no provider serves it: mlx5 of \(bench.main)/mlx5.driver: "
                + "it does not open the device: no permission; "
                + "libibverbs (built in): it cannot serve mlx5_0: there is no C provider for it")
        #expect(error.candidates.map(\.verdict.outcome) == [.failed, .failed])
        #expect(error.description.hasPrefix("mlx5_0: no provider serves it"))
    }

    @Test("The error for a kernel device without a candidate has a hint")
    func noCandidate() throws {
        let bench = try Workbench(builtIn: [])
        try bench.mlx5()
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_0") }
        #expect(error.code == ENOENT && error.message == "no provider serves it")
        #expect(error.hint.contains("install the provider"))
    }
}

@Suite("Replacing the built-in providers")
struct ReplacementTests {
    @Test("A soft.driver in the override directory replaces the built-in soft while its library exists")
    func soft() async {
        // In a process of its own, because other tests load libraries of this name, too, which gives a warning.
        await #expect(processExitsWith: .success) {
            let bench = try Workbench()
            try bench.driver("soft", "driver soft\nversion 2\n", in: bench.override)
            let library = try bench.library("soft.so", ["name": "soft"])
            let opened = try bench.loader.open("soft0")
            #expect(opened.provider.library == library)
            #expect(opened.warnings == [])
            #expect(bench.trace(library) == "mepo")
            #expect(opened.close() == 0)
            try FileManager.default.removeItem(atPath: library)
            let entry = try #require(bench.loader.survey()["soft0"])
            #expect(entry.chosen?.origin == .builtIn)
            #expect(entry.verdict("soft")?.outcome == .chosen || entry.candidates.last?.verdict.outcome == .absent)
        }
    }

    @Test("The ranges of kernel ABIs of driver file and library do not apply to a software device")
    func noKernel() throws {
        let bench = try Workbench()
        try bench.driver("x", "driver \(bench.unique)\nmatch name soft*\nkernel-abi 5\n", in: bench.override)
        let library = try bench.library("\(bench.unique).so", ["name": bench.unique, "kernel-min": "5"])
        #expect(bench.loader.survey()["soft0"]?.chosen?.library == library)
    }

    @Test("A libibverbs.driver serves every kernel device that has no higher-ranked provider")
    func libibverbs() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.sysfs.addDevice("rxe0", index: 1)
        try bench.driver("libibverbs", "driver libibverbs\n")
        try bench.library("libibverbs.so", ["name": "libibverbs"])
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.chosen?.origin == .main && survey["rxe0"]?.chosen?.origin == .main)
        #expect(survey["soft0"]?.chosen?.provider == "soft")
    }
}
