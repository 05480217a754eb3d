import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Ranking")
struct RankingTests {
    @Test("The higher version ranks first, independent of file names; a file without a version ranks last")
    func version() throws {
        let bench = try Workbench()
        try bench.mlx5()
        for (stem, version) in [
            ("a", ""), ("b", "version 1.9\n"), ("c", "version 1.10\n"), ("d", "version 1.10~rc1\n"),
        ] {
            try bench.driver(stem, "driver mlx5\nlibrary \(stem).so\n\(version)")
            try bench.library("\(stem).so", ["name": "mlx5"])
        }
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(
            entry.candidates.prefix(4).map { lastComponent($0.driverFile ?? "") }
                == ["c.driver", "d.driver", "b.driver", "a.driver"])
        #expect(entry.verdict("c")?.outcome == .chosen)
        #expect(entry.verdict("c")?.message.contains("version 1.10 goes before 1.10~rc1") == true)
        #expect(entry.verdict("b")?.message.contains("version 1.10 goes before 1.9") == true)
        #expect(entry.verdict("a")?.message.contains("goes before a driver file without a version") == true)
    }

    @Test("Equal versions are ranked by file name, byte by byte")
    func fileName() throws {
        let bench = try Workbench()
        try bench.mlx5()
        for stem in ["b", "B", "a10", "a9"] {
            try bench.driver(stem, "driver mlx5\nlibrary \(stem).so\nversion 1\n")
            try bench.library("\(stem).so", ["name": "mlx5"])
        }
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(
            entry.candidates.prefix(4).map { lastComponent($0.driverFile ?? "") }
                == ["B.driver", "a10.driver", "a9.driver", "b.driver"])
        #expect(entry.verdict("a10")?.message.contains("file name B.driver goes before a10.driver") == true)
    }

    @Test(
        "Rules precede rank: a provider that does not match is not selected, and only the chosen library is opened"
    )
    func rulesFirst() throws {
        let bench = try Workbench()
        try bench.mlx5(kernelABI: 6)
        var losers: [String] = []
        for (stem, line) in [
            ("abi", "provider-abi 0.10"), ("major", "provider-abi 1.0"), ("kernel", "kernel-abi 1..5"),
        ] {
            try bench.driver(stem, "driver mlx5\nlibrary \(stem).so\nversion 9\n\(line)\n", in: bench.override)
            losers.append(try bench.library("\(stem).so", ["name": "mlx5"]))
        }
        try bench.driver("good", "driver mlx5\nlibrary good.so\nprovider-abi 0.9\nkernel-abi 6\nproved simulator\n")
        let winner = try bench.library("good.so", ["name": "mlx5"])
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.chosen?.library == winner)
        #expect(entry.chosen?.proof == .simulator)
        #expect(entry.candidates.first == entry.chosen)
        #expect(entry.verdict("abi")?.rule == .providerABI)
        #expect(entry.verdict("abi")?.message == "needs provider ABI 0.10; this core has 0.9")
        #expect(entry.verdict("major")?.rule == .providerABI)
        #expect(entry.verdict("kernel")?.rule == .kernelABI)
        #expect(
            entry.verdict("kernel")?.message == "does not support kernel ABI 6 of mlx5_0 (supports 1 to 5)")
        // The three files match this device but cannot serve it, so there is a warning for each.
        #expect(entry.warnings.count == 3)
        #expect(losers.map(bench.trace) == ["", "", ""])
        #expect(bench.trace(winner) == "mep")
    }

    @Test("The provider is selected for each device")
    func perDevice() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.sysfs.addDevice("rxe0", index: 1)
        for name in ["mlx5", "rxe"] {
            try bench.driver(name, "driver \(name)\n")
            try bench.library("\(name).so", ["name": name])
        }
        let survey = bench.loader.survey()
        #expect(survey.entries.map { $0.chosen?.provider } == ["mlx5", "rxe", "soft"])
        #expect(survey["rxe0"]?.verdict("mlx5")?.rule == .match)
        #expect(survey["mlx5_0"]?.verdict("rxe")?.rule == .match)
    }

    @Test("A driver file whose library is missing has the outcome absent")
    func absent() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("mlx5", "driver mlx5\nversion 9\ncritical yes\n")
        let survey = bench.loader.survey()
        let entry = try #require(survey["mlx5_0"])
        #expect(entry.chosen?.provider == "libibverbs")
        #expect(entry.verdict("mlx5")?.outcome == .absent)
        #expect(entry.verdict("mlx5")?.message == "there is no library \(bench.providers)/mlx5.so")
        #expect(entry.warnings == [] && survey.problems == [])
    }

    @Test("RDMA_PROVIDER restricts the selection to candidates of that name")
    func requested() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("mlx5", "driver mlx5\n")
        let library = try bench.library("mlx5.so", ["name": "mlx5"])
        bench.configuration.environment["RDMA_PROVIDER"] = "libibverbs"
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.chosen?.provider == "libibverbs")
        #expect(
            survey["mlx5_0"]?.verdict("mlx5") == Verdict(.rejected, .environment, "RDMA_PROVIDER names libibverbs"))
        #expect(bench.trace(library) == "")
        // libibverbs does not serve soft0.
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("soft0") }
        #expect(error.code == ENOENT)
        #expect(error.message == "no provider serves it: libibverbs (built in): it is for devices of the kernel")
        // A mask of another provider does not change the error.
        try bench.driver("soft", "", in: bench.override)
        #expect(bench.loader.survey()["soft0"]?.error?.message == error.message)
    }

    @Test("The error for an unknown name in RDMA_PROVIDER lists the names of the providers")
    func requestedUnknown() throws {
        let bench = try Workbench()
        try bench.mlx5()
        bench.configuration.environment["RDMA_PROVIDER"] = "mlx6"
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_0") }
        #expect(error.code == ENOENT)
        #expect(error.message == "RDMA_PROVIDER names mlx6, and there is no such provider")
        #expect(error.hint == "there are: libibverbs, soft")
        #expect(
            bench.loader.survey().problems.map(\.message)
                == ["RDMA_PROVIDER names `mlx6`, and there is no such provider"])
    }

    @Test("The error for an unknown device lists the devices")
    func unknownDevice() throws {
        let bench = try Workbench()
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_7") }
        #expect(error.device == "mlx5_7" && error.code == ENODEV)
        #expect(error.hint == "there are: soft0")
    }

    @Test("Of two driver files with one library, also by a link, the second has the outcome duplicate")
    func duplicateLibrary() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let library = try bench.library("mlx5.so", ["name": "mlx5"])
        try bench.directory.link("lib/other.so", to: library)
        try bench.driver("a", "driver mlx5\n", in: bench.override)
        try bench.driver("b", "driver mlx5\nlibrary other.so\n")
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("a")?.outcome == .chosen)
        #expect(entry.verdict("b")?.rule == .duplicate)
        #expect(
            entry.verdict("b")?.message.contains("the same file as that of mlx5 of \(bench.override)/a.driver") == true
        )
        #expect(bench.trace(library) == "mep")
    }
}
