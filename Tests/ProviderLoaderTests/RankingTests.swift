import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Ranking")
struct RankingTests {
    @Test("The higher version wins whatever the file names are; a file without a version comes last")
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
        #expect(entry.verdict("c")?.sentence.contains("version 1.10 goes before 1.10~rc1") == true)
        #expect(entry.verdict("b")?.sentence.contains("version 1.10 goes before 1.9") == true)
        #expect(entry.verdict("a")?.sentence.contains("goes before a driver file without a version") == true)
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
        #expect(entry.verdict("a10")?.sentence.contains("file name B.driver goes before a10.driver") == true)
    }

    @Test(
        "Rules go before rank: what does not fit is not elected from any directory, and no loser's library is opened"
    )
    func fitsFirst() throws {
        let bench = try Workbench()
        try bench.mlx5(kernelABI: 6)
        var losers: [String] = []
        for (stem, line) in [("abi", "provider-abi 0.2"), ("major", "provider-abi 1.0"), ("kernel", "kernel-abi 1..5")]
        {
            try bench.driver(stem, "driver mlx5\nlibrary \(stem).so\nversion 9\n\(line)\n", in: bench.override)
            losers.append(try bench.library("\(stem).so", ["name": "mlx5"]))
        }
        try bench.driver("good", "driver mlx5\nlibrary good.so\nprovider-abi 0.1\nkernel-abi 6\nproved simulator\n")
        let winner = try bench.library("good.so", ["name": "mlx5"])
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.chosen?.library == winner)
        #expect(entry.chosen?.proof == .simulator)
        #expect(entry.candidates.first == entry.chosen)
        #expect(entry.verdict("abi")?.rule == .providerABI)
        #expect(entry.verdict("abi")?.sentence == "needs provider ABI 0.2; this core has 0.1")
        #expect(entry.verdict("major")?.rule == .providerABI)
        #expect(entry.verdict("kernel")?.rule == .kernelABI)
        #expect(
            entry.verdict("kernel")?.sentence == "does not support kernel ABI 6 of mlx5_0 (supports 1 to 5)")
        // They are for this device, so that they do not serve it is worth a warning each.
        #expect(entry.warnings.count == 3)
        #expect(losers.map(bench.trace) == ["", "", ""])
        #expect(bench.trace(winner) == "mep")
    }

    @Test("The election is by device: each device gets its own winner")
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

    @Test("A file whose library is not there counts as absent, and is shown")
    func absent() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("mlx5", "driver mlx5\nversion 9\ncritical yes\n", in: bench.override)
        let survey = bench.loader.survey()
        let entry = try #require(survey["mlx5_0"])
        #expect(entry.chosen?.provider == "libibverbs")
        #expect(entry.verdict("mlx5")?.outcome == .absent)
        #expect(entry.verdict("mlx5")?.sentence == "there is no library \(bench.providers)/mlx5.so")
        #expect(entry.warnings == [] && survey.problems == [])
    }

    @Test("RDMA_PROVIDER elects among the candidates of that name alone")
    func asked() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("mlx5", "driver mlx5\n")
        let library = try bench.library("mlx5.so", ["name": "mlx5"])
        bench.configuration.environment["RDMA_PROVIDER"] = "libibverbs"
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.chosen?.provider == "libibverbs")
        #expect(
            survey["mlx5_0"]?.verdict("mlx5") == Verdict(.rejected, .environment, "RDMA_PROVIDER asks for libibverbs"))
        #expect(bench.trace(library) == "")
        // soft0 is none of libibverbs' devices.
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("soft0") }
        #expect(error.code == ENOENT)
        #expect(error.sentence == "no provider serves it: libibverbs (built in): it is for devices of the kernel")
        // A mask of another provider does not matter then.
        try bench.driver("soft", "", in: bench.override)
        #expect(bench.loader.survey()["soft0"]?.error?.sentence == error.sentence)
    }

    @Test("RDMA_PROVIDER with a name that nobody has is an error that lists the names")
    func askedForUnknown() throws {
        let bench = try Workbench()
        try bench.mlx5()
        bench.configuration.environment["RDMA_PROVIDER"] = "mlx6"
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_0") }
        #expect(error.code == ENOENT)
        #expect(error.sentence == "RDMA_PROVIDER asks for mlx6, and there is no such provider")
        #expect(error.hint == "there are: libibverbs, soft")
        #expect(
            bench.loader.survey().problems.map(\.sentence)
                == ["RDMA_PROVIDER asks for `mlx6`, and there is no such provider"])
    }

    @Test("A name that no device has is an error that lists the devices")
    func unknownDevice() throws {
        let bench = try Workbench()
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("mlx5_7") }
        #expect(error.device == "mlx5_7" && error.code == ENODEV)
        #expect(error.hint == "there are: soft0")
    }

    @Test("Two driver files with one library, also by a link, are one candidate; the second is told to be a duplicate")
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
            entry.verdict("b")?.sentence.contains("the same file as that of mlx5 of \(bench.override)/a.driver") == true
        )
        #expect(bench.trace(library) == "mep")
    }
}
