import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Whose files are believed")
struct OwnershipTests {
    /// A driver file of mlx5 with its library, in the main directory.
    private func prepared() throws -> (bench: Workbench, file: String, library: String) {
        let bench = try Workbench()
        try bench.mlx5()
        let file = try bench.driver("mlx5", "driver mlx5\n")
        return (bench, file, try bench.library("mlx5.so", ["name": "mlx5"]))
    }

    private func mode(_ path: String, _ mode: mode_t) {
        #expect(chmod(path, mode) == 0)
    }

    @Test(
        "A driver file or library that others may write is refused, and the next in rank serves with a warning",
        arguments: [true, false], [0o666, 0o602] as [mode_t])
    func writableByOthers(theLibrary: Bool, bits: mode_t) throws {
        let (bench, file, library) = try prepared()
        mode(theLibrary ? library : file, bits)
        let survey = bench.loader.survey()
        let entry = try #require(survey["mlx5_0"])
        let verdict = try #require(entry.verdict("mlx5"))
        #expect(verdict.outcome == .rejected && verdict.rule == .ownership)
        #expect(
            verdict.sentence.contains(
                "\(theLibrary ? library : file) is writable by others (mode 0\(String(bits, radix: 8)))"))
        #expect(entry.chosen?.provider == "libibverbs")
        #expect(entry.warnings.count == 1)
        #expect(entry.warnings.first?.contains("writable by others") == true)
        #expect(bench.trace(library) == "")
        // A driver file is about no single device, so it is told as a problem as well.
        #expect(survey.problems.map(\.path) == (theLibrary ? [] : [file]))
    }

    @Test("A file of another user is refused", arguments: [true, false])
    func ownedByAnother(theLibrary: Bool) throws {
        let (bench, file, library) = try prepared()
        bench.giveAway(theLibrary ? library : file)
        let survey = bench.loader.survey()
        if geteuid() == 0 {
            let verdict = try #require(survey["mlx5_0"]?.verdict("mlx5"))
            #expect(verdict.rule == .ownership)
            #expect(verdict.sentence.contains("is owned by user 65534, not by root or the caller"))
        } else {
            // Then the directory, too, belongs to somebody else.
            #expect(survey["mlx5_0"]?.verdict("mlx5") == nil)
            #expect(survey.problems.isEmpty == false)
        }
        #expect(bench.trace(library) == "")
    }

    @Test(
        "A file of the caller is believed, unless the process runs with raised privileges",
        .enabled(if: geteuid() == 0, "only root can give files away"))
    func ownedByCaller() throws {
        let (bench, file, library) = try prepared()
        for path in [file, library, bench.main, bench.providers, bench.directory.path] { chown(path, 4242, 4242) }
        bench.configuration.userID = 4242
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
        bench.configuration.isPrivileged = true
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.verdict("mlx5") == nil)
        #expect(survey["mlx5_0"]?.chosen?.provider == "libibverbs")
        #expect(survey.problems.first?.sentence.contains("raised privileges") == true)
    }

    @Test(
        "A group that may write counts as others, unless it is root's or the caller's private one",
        .enabled(if: geteuid() == 0, "only root can give files away"))
    func writableByGroup() throws {
        let (bench, file, library) = try prepared()
        mode(file, 0o664)
        mode(library, 0o775)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
        chown(library, 0, 4242)
        mode(library, 0o775)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.sentence.contains("writable by group 4242") == true)
        bench.configuration.userID = 4242
        bench.configuration.groupID = 4242
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
        bench.configuration.groupID = 100
        chown(library, 0, 100)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.rule == .ownership)
    }

    @Test("A directory of driver files that others may write is not read, unless it is sticky as /tmp is")
    func directory() throws {
        let (bench, _, _) = try prepared()
        mode(bench.main, 0o777)
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.verdict("mlx5") == nil)
        #expect(survey.problems.first?.path == bench.override)
        #expect(survey.problems.last?.path == bench.main)
        #expect(survey.problems.last?.sentence.contains("is writable by others (mode 0777)") == true)
        mode(bench.main, 0o1777)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
    }

    @Test("A directory above the library that others may write makes it refused, also behind a link")
    func directoryAboveLibrary() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let open = bench.directory.path("open")
        try bench.library("mlx5.so", ["name": "mlx5"], in: open + "/inner")
        mode(open, 0o777)
        try bench.directory.link("lib/mlx5.so", to: open + "/inner/mlx5.so")
        try bench.driver("mlx5", "driver mlx5\n")
        let verdict = try #require(bench.loader.survey()["mlx5_0"]?.verdict("mlx5"))
        #expect(verdict.rule == .ownership)
        #expect(verdict.sentence.contains("\(open) is writable by others"))
    }

    @Test("A link that somebody else made is refused, wherever it leads", .enabled(if: geteuid() == 0))
    func foreignLink() throws {
        let (bench, file, _) = try prepared()
        let shared = try bench.directory.makeDirectory("shared")
        mode(shared, 0o1777)
        for (name, target) in [("a.driver", file), ("soft.driver", "/dev/null")] {
            try bench.directory.link("shared/\(name)", to: target)
            lchown("\(shared)/\(name)", 65534, 65534)
        }
        bench.configuration.environment["RDMA_DRIVER_PATH"] = shared
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.verdict("a")?.rule == .ownership)
        #expect(survey["soft0"]?.chosen?.provider == "soft")
        #expect(survey.problems.map(\.path) == ["\(shared)/a.driver", "\(shared)/soft.driver"])
    }

    @Test("A driver file that is not believed cannot forbid a fall-back")
    func untrustedCritical() throws {
        let (bench, file, _) = try prepared()
        try bench.write(file, "driver mlx5\ncritical yes\n", mode: 0o666)
        #expect(bench.loader.survey()["mlx5_0"]?.chosen?.provider == "libibverbs")
    }
}
