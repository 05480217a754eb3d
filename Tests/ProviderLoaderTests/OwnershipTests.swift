import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Ownership of files")
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
        "A driver file or library that is writable by others is refused, and the next in rank serves with a warning",
        arguments: [true, false], [0o666, 0o602] as [mode_t])
    func writableByOthers(theLibrary: Bool, bits: mode_t) throws {
        let (bench, file, library) = try prepared()
        mode(theLibrary ? library : file, bits)
        let survey = bench.loader.survey()
        let entry = try #require(survey["mlx5_0"])
        let verdict = try #require(entry.verdict("mlx5"))
        #expect(verdict.outcome == .rejected && verdict.rule == .ownership)
        #expect(
            verdict.message.contains(
                "\(theLibrary ? library : file) is writable by others (mode 0\(String(bits, radix: 8)))"))
        #expect(entry.chosen?.provider == "libibverbs")
        #expect(entry.warnings.count == 1)
        #expect(entry.warnings.first?.contains("writable by others") == true)
        #expect(bench.trace(library) == "")
        // A driver file is not of a single device, so it is also a problem of the survey.
        #expect(survey.problems.map(\.path) == (theLibrary ? [] : [file]))
    }

    @Test("A file of another user is refused", arguments: [true, false])
    func ownedByAnother(theLibrary: Bool) throws {
        let (bench, file, library) = try prepared()
        bench.changeOwner(theLibrary ? library : file)
        let survey = bench.loader.survey()
        if geteuid() == 0 {
            let verdict = try #require(survey["mlx5_0"]?.verdict("mlx5"))
            #expect(verdict.rule == .ownership)
            #expect(verdict.message.contains("is owned by user 65534, not by root or the caller"))
        } else {
            // As another user, the loader also refuses the directory.
            #expect(survey["mlx5_0"]?.verdict("mlx5") == nil)
            #expect(survey.problems.isEmpty == false)
        }
        #expect(bench.trace(library) == "")
    }

    @Test(
        "A file of the caller is accepted, unless the process runs with raised privileges",
        .enabled(if: geteuid() == 0, "only root can change the owner of a file"))
    func ownedByCaller() throws {
        let (bench, file, library) = try prepared()
        for path in [file, library, bench.main, bench.providers, bench.directory.path] { chown(path, 4242, 4242) }
        bench.configuration.userID = 4242
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
        bench.configuration.isPrivileged = true
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.verdict("mlx5") == nil)
        #expect(survey["mlx5_0"]?.chosen?.provider == "libibverbs")
        #expect(survey.problems.first?.message.contains("raised privileges") == true)
    }

    @Test(
        "A file that is writable by a group is refused, unless it is root's group or the caller's private one",
        .enabled(if: geteuid() == 0, "only root can change the owner of a file"))
    func writableByGroup() throws {
        let (bench, file, library) = try prepared()
        mode(file, 0o664)
        mode(library, 0o775)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
        chown(library, 0, 4242)
        mode(library, 0o775)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.message.contains("writable by group 4242") == true)
        bench.configuration.userID = 4242
        bench.configuration.groupID = 4242
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
        bench.configuration.groupID = 100
        chown(library, 0, 100)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.rule == .ownership)
    }

    @Test("A directory of driver files that is writable by others is not read, unless it is sticky as /tmp is")
    func directory() throws {
        let (bench, _, _) = try prepared()
        mode(bench.main, 0o777)
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"]?.verdict("mlx5") == nil)
        #expect(survey.problems.first?.path == bench.override)
        #expect(survey.problems.last?.path == bench.main)
        #expect(survey.problems.last?.message.contains("is writable by others (mode 0777)") == true)
        mode(bench.main, 0o1777)
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("mlx5")?.outcome == .chosen)
    }

    @Test("A library below a directory that is writable by others is refused, also through a link")
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
        #expect(verdict.message.contains("\(open) is writable by others"))
    }

    @Test("A link of another user is refused, whatever its target", .enabled(if: geteuid() == 0))
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

    @Test("`critical yes` in a refused driver file does not prevent a fall-back")
    func untrustedCritical() throws {
        let (bench, file, _) = try prepared()
        try bench.write(file, "driver mlx5\ncritical yes\n", mode: 0o666)
        #expect(bench.loader.survey()["mlx5_0"]?.chosen?.provider == "libibverbs")
    }
}
