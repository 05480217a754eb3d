import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

/// Replacements of several vendors, and replacements that have outlived their reason: the rules of rdma-driver(5), and
/// their warnings.
@Suite("Between vendors")
struct BetweenVendorsTests {
    /// mlx5_0 with the bundled provider, of version 1.0, in the main directory.
    private func bundled() throws -> Workbench {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("mlx5", "driver mlx5\nversion 1.0\nvendor swift-rdma\n")
        try bench.library("mlx5.so", ["name": "mlx5", "version": "1.0", "vendor": "swift-rdma"])
        return bench
    }

    /// Installs a replacement in the override directory.
    private func replacement(
        _ bench: Workbench, _ stem: String, vendor: String, version: String, lines: String = ""
    ) throws {
        try bench.driver(
            stem, "driver mlx5\nlibrary \(stem).so\nversion \(version)\nvendor \(vendor)\n\(lines)", in: bench.override)
        try bench.library("\(stem).so", ["name": "mlx5", "version": version, "vendor": vendor])
    }

    @Test("Versions of two vendors are not compared: the name of the vendor decides, and a warning names both files")
    func vendors() throws {
        let bench = try bundled()
        try replacement(bench, "globex-mlx5", vendor: "Globex", version: "24.10")
        try replacement(bench, "acme-mlx5", vendor: "ACME", version: "2.4")
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("acme-mlx5")?.outcome == .chosen)
        #expect(entry.verdict("globex-mlx5")?.message.contains("vendor ACME goes before Globex, by name") == true)
        #expect(entry.warnings.count == 1)
        #expect(entry.warnings.first?.contains("acme-mlx5.driver") == true)
        #expect(entry.warnings.first?.contains("globex-mlx5.driver are of two vendors") == true)
    }

    @Test("Versions of one vendor are compared, whatever lies between them, and without a warning")
    func oneVendor() throws {
        let bench = try bundled()
        try replacement(bench, "a", vendor: "ACME", version: "2.4")
        try replacement(bench, "z", vendor: "ACME", version: "2.10")
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("z")?.outcome == .chosen)
        #expect(entry.warnings == [])
    }

    @Test("The order of files with and without a vendor and a version is total", arguments: 0..<24)
    func total(_ permutation: Int) throws {
        let bench = try Workbench()
        try bench.mlx5()
        var left = [
            ("a", "version 2.4\nvendor ACME\n"), ("b", "version 9\n"), ("c", "version 24.10\nvendor Globex\n"),
            ("d", "version 2.5\nvendor ACME\n"),
        ]
        // Files are created in another order each time.
        var number = permutation
        for count in (1...4).reversed() {
            let (stem, lines) = left.remove(at: number % count)
            number /= count
            try bench.driver(stem, "driver mlx5\nlibrary \(stem).so\n\(lines)")
            try bench.library("\(stem).so", ["name": "mlx5"])
        }
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        let order = entry.candidates.prefix(4).map { lastComponent($0.driverFile ?? "") }
        #expect(order == ["d.driver", "a.driver", "c.driver", "b.driver"])
    }

    @Test("A replacement gives way to a main directory's version that reaches its bound, and serves if that one fails")
    func until() throws {
        for (bound, chosen) in [("1.1", "acme-mlx5"), ("1.0", "mlx5"), ("0.9", "mlx5")] {
            let bench = try bundled()
            try replacement(bench, "acme-mlx5", vendor: "ACME", version: "2.4", lines: "until \(bound)\n")
            let entry = try #require(bench.loader.survey()["mlx5_0"])
            #expect(entry.verdict(chosen)?.outcome == .chosen, "until \(bound)")
            guard chosen == "mlx5" else { continue }
            #expect(entry.verdict("acme-mlx5")?.outcome == .standsBy)
            #expect(entry.verdict("acme-mlx5")?.message.contains("gives way to version \(bound)") == true)
            #expect(entry.warnings == [])
        }
        let bench = try bundled()
        try replacement(bench, "acme-mlx5", vendor: "ACME", version: "2.4", lines: "until 1.0\n")
        try bench.library("mlx5.so", ["name": "mlx5", "refuses": "broken"])
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("mlx5")?.outcome == .failed)
        #expect(entry.verdict("acme-mlx5")?.outcome == .chosen)
    }

    @Test("A replacement without a library gives a warning; a driver file of the main directory without one does not")
    func missing() throws {
        let bench = try bundled()
        try bench.driver("acme-mlx5", "driver mlx5\nlibrary moved/mlx5.so\nvendor ACME\n", in: bench.override)
        try bench.driver("old", "driver mlx5\nlibrary old.so\nversion 9\n")
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("mlx5")?.outcome == .chosen)
        #expect(entry.verdict("old")?.outcome == .absent)
        #expect(entry.warnings.count == 1)
        #expect(entry.warnings.first?.contains("acme-mlx5.driver has no library: there is no library") == true)
    }

    @Test("A driver file that states another version or vendor than its library gives a warning")
    func contradiction() throws {
        let bench = try bundled()
        // Without a `library` line: the bundled library under another vendor's name.
        try bench.driver("acme-mlx5", "driver mlx5\nversion 2.4\nvendor ACME\nproved silicon\n", in: bench.override)
        let expected =
            "mlx5 of \(bench.override)/acme-mlx5.driver: its driver file states version 2.4, vendor ACME, its library "
            + "version 1.0, vendor swift-rdma"
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("acme-mlx5")?.outcome == .chosen)
        #expect(entry.warnings == [expected])
        let opened = try bench.loader.open("mlx5_0")
        // Others are about the libraries of that provider which other tests have opened in this process.
        #expect(opened.warnings.first == expected)
        #expect(opened.close() == 0)
    }

    @Test("A mask of a file leaves other vendors' providers of that name; a mask of the name hides them all")
    func masks() throws {
        let bench = try bundled()
        try replacement(bench, "acme-mlx5", vendor: "ACME", version: "2.4")
        try replacement(bench, "globex-mlx5", vendor: "Globex", version: "1")
        // In place of the vendor's file: its stem is the name of no provider.
        try bench.write("\(bench.override)/acme-mlx5.driver", "")
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("globex-mlx5")?.outcome == .chosen)
        // In place of the bundled file: a mask counts in its own directory and in later ones.
        try bench.write("\(bench.main)/mlx5.driver", "")
        #expect(bench.loader.survey()["mlx5_0"]?.verdict("globex-mlx5")?.outcome == .chosen)
        try bench.write("\(bench.override)/mlx5.driver", "")
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("globex-mlx5")?.outcome == .masked)
        #expect(entry.verdict("libibverbs")?.outcome == .chosen)
    }
}
