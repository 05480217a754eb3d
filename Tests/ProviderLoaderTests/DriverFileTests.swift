import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("The syntax of driver files")
struct DriverFileTests {
    private func parse(_ text: String) throws(Problem) -> DriverFile {
        try DriverFile(parsing: Array(text.utf8), path: "x.driver")
    }

    @Test("Every keyword is read")
    func everyKeyword() throws {
        let file = try parse(
            """
            # A provider with everything.
            driver mlx5
            library /usr/lib/acme/libmlx5 provider.so
            version 24.10-2.1
            vendor ACME \u{2014} Fabrics GmbH
            provider-abi 0.9
            kernel-abi 1..7
            match driver-id 1
            match pci 15b3:1017
            match pci 15B3:*
            match name mlx5_*
            critical yes
            proved silicon

            """)
        #expect(file.name == "mlx5")
        #expect(file.library == "/usr/lib/acme/libmlx5 provider.so")
        #expect(file.version == ProviderVersion("24.10-2.1"))
        #expect(file.vendor == "ACME \u{2014} Fabrics GmbH")
        #expect(file.providerABI == ABIVersion(major: 0, minor: 9))
        #expect(file.kernelABI == 1...7)
        #expect(
            file.matches == [
                .driverID(1), .pci(vendor: 0x15b3, device: 0x1017), .pci(vendor: 0x15b3, device: nil),
                .name(try #require(NamePattern("mlx5_*"))),
            ])
        #expect(file.isCritical)
        #expect(file.proof == .silicon)
    }

    @Test("The one-line files of rdma-core are driver files")
    func oneLine() throws {
        let file = try parse("driver mlx5\n")
        #expect(file.name == "mlx5")
        #expect(file.library == nil && file.version == nil && file.vendor == nil && file.proof == nil)
        #expect(file.providerABI == nil && file.kernelABI == nil && file.matches == [] && !file.isCritical)
    }

    @Test(
        "Blanks, comments, CR LF and a missing last line end change nothing",
        arguments: [
            "driver mlx5", "driver mlx5\r\n", "driver mlx5\r", "  driver \t mlx5 \t \n",
            "\n\n#\n# driver rxe\ndriver mlx5\n",
            "driver mlx5 # rxe\n", "driver mlx5\t#\n\n\n",
        ])
    func layout(_ text: String) throws {
        #expect(try parse(text) == parse("driver mlx5\n"))
    }

    @Test("A # within a word is part of it")
    func hash() throws {
        #expect(try parse("driver a\nvendor C#Co # really\n").vendor == "C#Co")
    }

    @Test("A single number is a range of kernel ABIs, and `critical no` is the default")
    func small() throws {
        let file = try parse("driver a\nkernel-abi 3\ncritical no\nproved simulator\nuntil 0.3\n")
        #expect(file.until == ProviderVersion("0.3"))
        #expect(file.kernelABI == 3...3)
        #expect(!file.isCritical)
        #expect(file.proof == .simulator)
    }

    /// Text, line of the error (0: none), and a part of the message.
    static let errors: [(text: String, line: Int, mention: String)] = [
        ("driver mlx5\nlibary x.so\n", 2, "unknown keyword `libary`"),
        ("Driver mlx5\n", 1, "unknown keyword `Driver`"),
        ("driver=mlx5\n", 1, "unknown keyword `driver=mlx5`"),
        ("# only words\n", 0, "no `driver` line"),
        ("\n \n", 0, "no `driver` line"),
        ("library x.so\n", 0, "no `driver` line"),
        ("driver\n", 1, "no value"),
        ("driver # mlx5\n", 1, "no value"),
        ("driver mlx5\nvendor   \n", 2, "`vendor` has no value"),
        ("driver Mlx5\n", 1, "`driver` cannot be `Mlx5`"),
        ("driver mlx5 rxe\n", 1, "`driver` cannot be `mlx5 rxe`"),
        ("driver ../x\n", 1, "`driver` cannot be"),
        ("driver \(String(repeating: "a", count: 64))\n", 1, "`driver` cannot be"),
        ("driver a\ndriver b\n", 2, "given twice, first on line 1"),
        ("driver a\nlibrary a.so\nlibrary a.so\n", 3, "`library` is given twice, first on line 2"),
        ("driver a\ncritical yes\n\ncritical no\n", 4, "given twice, first on line 2"),
        ("driver a\nlibrary plugins/\n", 2, "`library` cannot be"),
        ("driver a\nlibrary /\(String(repeating: "a", count: 4095))\n", 2, "`library` cannot be"),
        ("driver a\nversion new\n", 2, "`version` cannot be `new`"),
        ("driver a\nversion 1.2 3\n", 2, "`version` cannot be `1.2 3`"),
        ("driver a\nprovider-abi 1\n", 2, "`provider-abi` cannot be `1`"),
        ("driver a\nprovider-abi 1.2.3\n", 2, "`provider-abi` cannot be"),
        ("driver a\nprovider-abi -1.2\n", 2, "`provider-abi` cannot be"),
        ("driver a\nprovider-abi 1.65536\n", 2, "`provider-abi` cannot be"),
        ("driver a\nkernel-abi 7..1\n", 2, "`kernel-abi` cannot be `7..1`"),
        ("driver a\nkernel-abi 1...7\n", 2, "`kernel-abi` cannot be"),
        ("driver a\nkernel-abi 1..\n", 2, "`kernel-abi` cannot be"),
        ("driver a\nkernel-abi 1-7\n", 2, "`kernel-abi` cannot be"),
        ("driver a\nkernel-abi 4294967296\n", 2, "`kernel-abi` cannot be"),
        ("driver a\nmatch\n", 2, "`match` has no value"),
        ("driver a\nmatch name\n", 2, "`match` cannot be `name`"),
        ("driver a\nmatch name [\n", 2, "`match` cannot be `name [`"),
        ("driver a\nmatch driver-id mlx5\n", 2, "`match` cannot be"),
        ("driver a\nmatch driver-id 4294967295\n", 2, "`match` cannot be"),
        ("driver a\nmatch driver-id +1\n", 2, "`match` cannot be"),
        ("driver a\nmatch pci 15b3\n", 2, "`match` cannot be"),
        ("driver a\nmatch pci 15b3:101\n", 2, "`match` cannot be"),
        ("driver a\nmatch pci *:1017\n", 2, "`match` cannot be"),
        ("driver a\nmatch pci 0x15b3:0x1017\n", 2, "`match` cannot be"),
        ("driver a\nmatch vendor 1\n", 2, "`match` cannot be `vendor 1`"),
        ("driver a\nlist-devices ctest0\n", 2, "`list-devices` cannot be `ctest0`"),
        ("driver a\ncritical maybe\n", 2, "`critical` cannot be `maybe`"),
        ("driver a\nproved paper\n", 2, "`proved` cannot be `paper`"),
        ("driver a\nuntil soon\n", 2, "`until` cannot be `soon`"),
        ("driver a\nvendor x\u{1b}[31m\n", 2, "control character U+001b"),
        ("driver a\nvendor x\0y\n", 2, "control character U+0000"),
        ("driver a\rvendor x\n", 1, "control character U+000d"),
        ("driver a\nvendor x\u{85}y\n", 2, "control character U+0085"),
        ("driver a\n# \u{7f}\n", 2, "control character U+007f"),
        ("\u{feff}driver a\n", 1, "byte order mark"),
    ]

    @Test("An error has the file, the line, a message and a hint", arguments: errors.indices)
    func error(_ index: Int) throws {
        let (text, line, mention) = DriverFileTests.errors[index]
        let problem = try #require(throws: Problem.self) { try parse(text) }
        #expect(problem.path == "x.driver")
        #expect(problem.line == (line == 0 ? nil : line))
        #expect(problem.message.contains(mention), "\(problem)")
        #expect(!problem.hint.isEmpty)
        #expect(problem.description.hasPrefix("x.driver:"))
    }

    @Test("Bytes that are not UTF-8 are an error with their line")
    func notUTF8() throws {
        let problem = try #require(throws: Problem.self) {
            try DriverFile(parsing: Array("driver a\nvendor ".utf8) + [0xff, 0x0a], path: "x.driver")
        }
        #expect(problem.line == 2 && problem.message.contains("UTF-8"))
    }

    @Test("A file of the largest size is read, a larger one is refused")
    func size() throws {
        let line = "driver a\n"
        let filler = "#" + String(repeating: "x", count: DriverFile.maximumSize - line.utf8.count - 1)
        #expect(try parse(line + filler).name == "a")
        let problem = try #require(throws: Problem.self) { try parse(line + filler + "x") }
        #expect(problem.message.contains("65536"))
    }

    @Test(
        "The canonical text parses to the same value",
        arguments: [
            "driver a", "vendor  A  B #x\nmatch name x[!a-c]*\ndriver a_b-c\nmatch pci 00aB:00CD\nmatch pci 1234:*",
            "driver a\nversion 1.2~rc1\nkernel-abi 4\nprovider-abi 7.9\ncritical yes\nproved silicon\nuntil 0.3~rc1",
            "driver a\nlibrary sub dir/x#y.so\ncritical no",
            "driver a\nlist-devices yes\nmatch name a*",
        ])
    func roundTrip(_ text: String) throws {
        let file = try parse(text)
        #expect(try parse(file.description) == file)
    }

    @Test("The examples of the manual are driver files", arguments: ["providers.md", "man/rdma-driver.5"])
    func manual(_ name: String) throws {
        let path = Compiler.packageRoot + "/Documentation/" + name
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(
            separator: "\n", omittingEmptySubsequences: false
        ).map { $0.trimmingCharacters(in: .whitespaces) }
        let start = try #require(lines.firstIndex(of: "driver mlx5"))
        let end = lines[start...].firstIndex { $0.isEmpty || $0.hasPrefix(".") || $0 == "```" } ?? lines.endIndex
        let example = lines[start..<end].joined(separator: "\n")
        let file = try parse(example)
        #expect(file.vendor == "ACME Fabrics")
        #expect(file.matches == [.pci(vendor: 0x15b3, device: nil)])
        #expect(file.proof == .silicon)
    }
}
