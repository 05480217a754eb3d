import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Directories of driver files")
struct DirectoryTests {
    @Test("Only files that end in .driver and are not hidden are read")
    func suffix() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.library("mlx5.so", ["name": "mlx5"])
        for name in ["mlx5.driver.rpmsave", "mlx5.driver~", "mlx5.drivers", ".mlx5.driver", "mlx5", ".driver"] {
            try bench.write("\(bench.main)/\(name)", "driver mlx5\n")
        }
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.candidates.map(\.provider) == ["libibverbs", "soft"])
        #expect(survey.problems == [])
    }

    @Test("The rank is RDMA_DRIVER_PATH, override directory, main directory, built-in providers")
    func order() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let first = bench.directory.path("first")
        let second = bench.directory.path("second")
        for (directory, stem) in [(first, "a"), (second, "b"), (bench.override, "c"), (bench.main, "d")] {
            try bench.driver(stem, "driver mlx5\nversion 1.\(stem == "a" ? 0 : 9)\nlibrary \(stem).so\n", in: directory)
            try bench.library("\(stem).so", ["name": "mlx5"], in: stem < "c" ? directory : nil)
        }
        bench.configuration.environment["RDMA_DRIVER_PATH"] = "\(first)::\(second):"
        var entry = try #require(bench.loader.survey()["mlx5_0"])
        let ranked = entry.candidates.filter { $0.verdict.outcome != .rejected }
        #expect(
            ranked.map { lastComponent($0.driverFile ?? "built in") }
                == ["a.driver", "b.driver", "c.driver", "d.driver", "built in"])
        #expect(
            ranked.map(\.origin)
                == [.environment(position: 0), .environment(position: 1), .override, .main, .builtIn])
        #expect(entry.verdict("a")?.outcome == .chosen)
        #expect(entry.verdict("b")?.message.contains("goes before directory 2 of RDMA_DRIVER_PATH") == true)

        bench.configuration.environment = [:]
        entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("c")?.outcome == .chosen)
        #expect(entry.verdict("d")?.message.contains("the override directory goes before the main directory") == true)
        #expect(entry.verdict("libibverbs")?.outcome == .standsBy)
    }

    @Test("A missing directory of RDMA_DRIVER_PATH is a problem; a missing standard directory is not")
    func missingDirectories() throws {
        let bench = try Workbench()
        try FileManager.default.removeItem(atPath: bench.main)
        bench.configuration.environment["RDMA_DRIVER_PATH"] = bench.directory.path("nowhere")
        let problems = bench.loader.survey().problems
        #expect(problems.map(\.path) == [bench.directory.path("nowhere")])
        #expect(problems.first?.hint.contains("RDMA_DRIVER_PATH") == true)
    }

    @Test(
        "A relative or missing `library` is in the provider directory; for RDMA_DRIVER_PATH, beside the driver file")
    func relativeLibraries() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let own = bench.directory.path("own")
        try bench.driver("default", "driver mlx5\n")
        try bench.driver("relative", "driver mlx5\nlibrary sub/x.so\n")
        try bench.driver("absolute", "driver mlx5\nlibrary /nowhere/y.so\n")
        try bench.driver("here", "driver mlx5\nlibrary sub/x.so\n", in: own)
        bench.configuration.environment["RDMA_DRIVER_PATH"] = own
        let candidates = try #require(bench.loader.survey()["mlx5_0"]).candidates
        let libraries = Dictionary(
            uniqueKeysWithValues: candidates.compactMap { candidate in
                candidate.driverFile.map { (lastComponent($0), candidate.library ?? "") }
            })
        #expect(
            libraries == [
                "default.driver": bench.providers + "/mlx5.so", "relative.driver": bench.providers + "/sub/x.so",
                "absolute.driver": "/nowhere/y.so", "here.driver": own + "/sub/x.so",
            ])
    }

    @Test("A driver file with an error is a problem, and all others are used")
    func mistakeInOneFile() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let bad = try bench.driver("a", "driver mlx5\nspeed high\n")
        try bench.driver("b", "driver mlx5\n")
        try bench.library("mlx5.so", ["name": "mlx5"])
        let survey = bench.loader.survey()
        #expect(survey.problems.map(\.path) == [bad])
        #expect(survey.problems.map(\.line) == [2])
        #expect(survey["mlx5_0"]?.verdict("b")?.outcome == .chosen)
    }

    @Test("A file that is not regular, or a dangling link, is a problem and does not block")
    func oddFiles() throws {
        let bench = try Workbench()
        try bench.makeDirectory(bench.main + "/folder.driver")
        #expect(mkfifo(bench.main + "/fifo.driver", 0o644) == 0)
        try bench.directory.link("etc/dangling.driver", to: "nowhere")
        try bench.directory.link("etc/zero.driver", to: "/dev/zero")
        let problems = bench.loader.survey().problems
        #expect(
            problems.map { lastComponent($0.path ?? "") }
                == ["dangling.driver", "fifo.driver", "folder.driver", "zero.driver"])
        #expect(problems.first?.message == "it links to nowhere, which is not there")
    }

    @Test("A file name that is not UTF-8 is a problem, and all other files are used")
    func badFileName() throws {
        let bench = try Workbench()
        let bytes = Array("\(bench.main)/".utf8) + [0xff] + Array(".driver".utf8) + [0]
        let descriptor = bytes.withUnsafeBytes {
            open($0.baseAddress!.assumingMemoryBound(to: CChar.self), O_CREAT, 0o644)
        }
        #expect(descriptor >= 0)
        close(descriptor)
        let survey = bench.loader.survey()
        #expect(survey.problems.count == 1)
        #expect(survey["soft0"]?.chosen?.provider == "soft")
    }

    @Test("The rank does not depend on the order in which the files were created")
    func independentOfReaddir() throws {
        let stems = (0..<12).map { "p\($0)" }
        var outcomes: Set<[String]> = []
        for order in [stems, stems.reversed(), stems.sorted { $0.reversed().lexicographicallyPrecedes($1.reversed()) }]
        {
            let bench = try Workbench(builtIn: [])
            try bench.mlx5()
            for stem in order {
                try bench.driver(stem, "driver mlx5\nlibrary \(stem).so\nversion \(stem.count)\n")
                try bench.write("\(bench.providers)/\(stem).so", "not a library")
            }
            let entry = try #require(bench.loader.survey()["mlx5_0"])
            outcomes.insert(entry.candidates.map { lastComponent($0.driverFile ?? "") })
        }
        #expect(
            outcomes == [
                (["p10", "p11"] + (0..<10).map { "p\($0)" }).map { $0 + ".driver" }
            ])
    }
}

@Suite("Masks")
struct MaskTests {
    @Test("An empty driver file, or a link to /dev/null, masks the provider of its name", arguments: [true, false])
    func masks(byLink: Bool) throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("vendor", "driver mlx5\n")
        let library = try bench.library("mlx5.so", ["name": "mlx5"])
        if byLink {
            try bench.directory.link("etc/override.d/mlx5.driver", to: "/dev/null")
        } else {
            try bench.driver("mlx5", "", in: bench.override)
        }
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        let verdict = try #require(entry.verdict("vendor"))
        #expect(verdict.outcome == .masked && verdict.rule == .mask)
        #expect(verdict.message == "masked by \(bench.override)/mlx5.driver")
        #expect(entry.chosen?.provider == "libibverbs")
        #expect(entry.warnings == [])
        #expect(bench.trace(library) == "")
    }

    @Test("A mask in the main directory hides built-in providers, but not those of the override directory")
    func lowerRanksOnly() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("mlx5", "")
        try bench.driver("libibverbs", "")
        try bench.driver("vendor", "driver mlx5\n", in: bench.override)
        try bench.library("mlx5.so", ["name": "mlx5"])
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("vendor")?.outcome == .chosen)
        #expect(entry.verdict("libibverbs")?.outcome == .masked)
    }

    @Test("The device of a masked soft is still in the survey, with the reason why no provider serves it")
    func maskedSoft() throws {
        let bench = try Workbench()
        try bench.directory.link("etc/override.d/soft.driver", to: "/dev/null")
        let entry = try #require(bench.loader.survey()["soft0"])
        #expect(entry.chosen == nil)
        #expect(entry.verdict("soft")?.outcome == .masked)
        let error = try #require(throws: LoaderError.self) { try bench.loader.open("soft0") }
        #expect(error == entry.error)
        #expect(error.code == ENOENT)
        #expect(error.message.contains("masked by \(bench.override)/soft.driver"))
    }

    @Test("A mask that is writable by others is a problem, and has no effect")
    func untrustedMask() throws {
        let bench = try Workbench()
        let mask = try bench.write("\(bench.override)/soft.driver", "", mode: 0o666)
        let survey = bench.loader.survey()
        #expect(survey["soft0"]?.chosen?.provider == "soft")
        #expect(survey.problems.map(\.path) == [mask])
    }
}
