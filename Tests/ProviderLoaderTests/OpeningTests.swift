import CIBVerbs
import CProviderABI
import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Opening a device")
struct OpeningTests {
    @Test("Without driver files, the built-in providers serve kernel and software devices")
    func builtIn() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let survey = bench.loader.survey()
        #expect(survey.entries.map(\.device.name) == ["mlx5_0", "soft0"])
        #expect(survey["mlx5_0"]?.chosen?.provider == "libibverbs")
        #expect(survey["soft0"]?.chosen?.provider == "soft")
        #expect(survey.problems == [])
        for name in ["mlx5_0", "soft0"] {
            let opened = try bench.loader.open(name)
            #expect(opened.description.name == name)
            #expect(opened.warnings == [])
            #expect(opened.context.pointee.device == opened.device.pointee.device)
            #expect(opened.close() == 0)
        }
    }
}

@Suite("Opening libraries")
struct LibraryOpeningTests {
    /// Two kernel devices, each with its own driver file and library, and soft0.
    private func prepared() throws -> (bench: Workbench, libraries: [String]) {
        let bench = try Workbench()
        let libraries = try ["t0", "t1"].enumerated().map { index, name in
            try bench.sysfs.addDevice(name, index: index)
            let provider = bench.unique + name
            try bench.driver(name, "driver \(provider)\nmatch name \(name)\n")
            return try bench.library("\(provider).so", ["name": provider])
        }
        return (bench, libraries)
    }

    @Test("A snapshot opens no library, and opening a device opens only its own")
    func snapshot() throws {
        let (bench, libraries) = try prepared()
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == ["t0", "t1", "soft0"])
        #expect(libraries.map(bench.trace) == ["", ""])
        #expect(try snapshot.open("soft0").close() == 0)
        #expect(libraries.map(bench.trace) == ["", ""])
        #expect(try snapshot.open("t1").close() == 0)
        #expect(libraries.map(bench.trace) == ["", "mepoc"])
    }

    @Test("A survey of some devices opens only their libraries")
    func survey() throws {
        let (bench, libraries) = try prepared()
        let snapshot = bench.loader.snapshot()
        let survey = snapshot.survey(of: snapshot.devices.filter { $0.name == "t0" })
        #expect(survey.entries.map(\.device.name) == ["t0"])
        #expect(survey["t0"]?.chosen?.library == libraries[0])
        #expect(libraries.map(bench.trace) == ["mep", ""])
    }

    @Test("A library removed after the snapshot causes a fall-back with a warning")
    func staleSnapshot() throws {
        let (bench, libraries) = try prepared()
        let snapshot = bench.loader.snapshot()
        try FileManager.default.removeItem(atPath: libraries[0])
        let opened = try snapshot.open("t0")
        #expect(opened.provider.name == "libibverbs")
        #expect(opened.warnings.count == 1)
        #expect(opened.warnings.first?.contains("\(libraries[0]) cannot be read") == true)
        #expect(opened.close() == 0)
    }
}
