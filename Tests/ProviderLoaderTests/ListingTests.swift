import CIBVerbs
import CProviderABI
import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Software devices of loaded providers")
struct ListingTests {
    /// A library that lists `<unique>d0` with the given settings (Fixtures/provider.c), and its driver file.
    private func prepared(
        _ settings: [String: String] = [:], lines: String = ""
    ) throws -> (bench: Workbench, library: String) {
        let bench = try Workbench()
        try bench.driver("acme", "driver \(bench.unique)\nlist-devices yes\n\(lines)")
        return (bench, try library(bench, settings))
    }

    @discardableResult
    private func library(
        _ bench: Workbench, _ settings: [String: String] = [:], as name: String? = nil, in directory: String? = nil
    ) throws -> String {
        let basic = ["name": bench.unique, "list": bench.unique + "d"]
        return try bench.library(
            name ?? "\(bench.unique).so", basic.merging(settings) { _, given in given }, in: directory)
    }

    @Test("A library whose driver file says so lists devices, which it serves with location and cookie")
    func lists() throws {
        let (bench, library) = try prepared([
            "list-number": "40", "list-cookie": "0xfedcba9800000000", "list-location": "pci 0000:3b:00",
        ])
        let snapshot = bench.loader.snapshot()
        // Before soft0, because a driver file ranks before a built-in provider. 40 is more than the first call has room for.
        #expect(snapshot.devices.map(\.name) == (0..<40).map { "\(bench.unique)d\($0)" } + ["soft0"])
        #expect(snapshot.problems == [])
        #expect(bench.trace(library) == "mell")
        let device = try #require(snapshot.devices.dropFirst(39).first)
        #expect(device.kind == .software && device.listedBy == bench.unique && device.networkInterface == nil)
        #expect(device.location == "pci 0000:3b:00 39" && device.cookie == 0xfedc_ba98_0000_0027)
        let opened = try snapshot.open(device.name)
        #expect(opened.provider.name == bench.unique && opened.warnings == [])
        #expect(String(cString: opened.device.pointee.location) == "pci 0000:3b:00 39")
        #expect(opened.device.pointee.cookie == device.cookie)
        #expect(opened.device.pointee.interface.pointee == 0 && opened.device.pointee.ifindex == 0)
        #expect(opened.device.pointee.kind == RDMA_DEVICE_SOFTWARE.rawValue)
        #expect(opened.close() == 0)
        let listing = try #require(snapshot.listings.first { $0.candidate.provider == bench.unique })
        #expect(listing.devices.count == 40 && listing.candidate.verdict.outcome == .chosen)
    }

    @Test("Without the line `list-devices yes` no library is opened for a list", arguments: ["", "list-devices no\n"])
    func onlyIfSaid(_ lines: String) throws {
        let bench = try Workbench()
        try bench.driver("acme", "driver \(bench.unique)\nmatch name \(bench.unique)*\n\(lines)")
        let library = try library(bench)
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == ["soft0"] && bench.trace(library) == "")
    }

    static let refusals: [(lines: String, change: @Sendable (Workbench, String) throws -> Void, rule: Verdict.Rule)] = [
        ("", { bench, _ in try bench.write("\(bench.override)/\(bench.unique).driver", "") }, .mask),
        ("", { bench, _ in bench.configuration.environment["RDMA_PROVIDER"] = "soft" }, .environment),
        ("", { _, library in try FileManager.default.removeItem(atPath: library) }, .missing),
        ("", { _, library in chmod(library, 0o777) }, .ownership),
        ("provider-abi 0.10\n", { _, _ in }, .providerABI),
    ]

    @Test(
        "No library is opened for a list if it is masked, not that of RDMA_PROVIDER, missing, writable by others, too new",
        arguments: refusals.indices)
    func refused(_ index: Int) throws {
        let (lines, change, rule) = ListingTests.refusals[index]
        let (bench, library) = try prepared(lines: lines)
        try change(bench, library)
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == ["soft0"])
        #expect(bench.trace(library) == "")
        let listing = try #require(snapshot.listings.first { $0.candidate.provider == bench.unique })
        #expect(listing.candidate.verdict.rule == rule && listing.devices == [])
        // What somebody wanted is no problem; what keeps devices from being known is one.
        let isProblem = rule == .ownership || rule == .providerABI
        #expect(snapshot.problems.contains { $0.message.hasPrefix("the devices of \(bench.unique)") } == isProblem)
        #expect(snapshot.problems.contains { $0.code != nil } == isProblem)
    }

    @Test("A driver file that others may write lists nothing, and is a problem")
    func refusedDriverFile() throws {
        let (bench, library) = try prepared()
        #expect(chmod("\(bench.main)/acme.driver", 0o666) == 0)
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == ["soft0"] && bench.trace(library) == "")
        #expect(snapshot.problems.count == 1)
    }

    @Test("With raised privileges a library that root does not own lists nothing, and RDMA_DRIVER_PATH is ignored")
    func raisedPrivileges() throws {
        let (bench, library) = try prepared()
        bench.configuration.isPrivileged = true
        bench.changeOwner(library)
        let own = try self.library(bench, as: "own.so", in: bench.directory.path("own"))
        try bench.driver(
            "own", "driver \(bench.unique)\nlist-devices yes\nlibrary own.so\n", in: bench.directory.path("own"))
        bench.configuration.environment["RDMA_DRIVER_PATH"] = bench.directory.path("own")
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == ["soft0"])
        #expect(bench.trace(library) == "" && bench.trace(own) == "")
    }

    static let faults: [(settings: [String: String], mention: String)] = [
        (["list-fails": "no Thunderbolt controller"], "it cannot list its devices: no Thunderbolt controller"),
        (["list-grows": "1"], "grows whenever it is read (17, 34, 51, 68): it has no end"),
        (["list-grows": "1000000"], "it lists 1000016 devices; at most 4096 are accepted"),
        (["list-count": "4294967295"], "it lists 4294967295 devices; at most 4096 are accepted"),
        (["list-number": "20", "list-over": "1"], "it writes more than the 16 devices that there is room for"),
        (["list": ""], "its driver file says `list-devices yes`, but it has no list_devices"),
        (["refuses": "needs a newer core"], "it refuses this core: needs a newer core"),
        (["name": "other"], "has the name other, its driver file the name t"),
        (["major": "1"], "it was built for provider ABI 1.9"),
    ]

    @Test(
        "A library that fails to list is explained, and the next in rank lists",
        arguments: faults.indices, [true, false])
    func fault(_ index: Int, _ hasNext: Bool) throws {
        var (settings, mention) = ListingTests.faults[index]
        let bench = try Workbench()
        if settings["list"] == "" { settings["list"] = nil }
        let all = ["name": bench.unique].merging(
            ListingTests.faults[index].settings["list"] == "" ? [:] : ["list": bench.unique + "d"]
        ) { given, _ in given }.merging(settings) { _, given in given }
        try bench.library("\(bench.unique).so", all)
        try bench.driver("acme", "driver \(bench.unique)\nlist-devices yes\n", in: bench.override)
        if hasNext {
            try bench.driver("next", "driver \(bench.unique)\nlist-devices yes\nlibrary next.so\n")
            try library(bench, as: "next.so")
        }
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == (hasNext ? ["\(bench.unique)d0"] : []) + ["soft0"])
        #expect(snapshot.problems.count == 1)
        let problem = try #require(snapshot.problems.first)
        #expect(problem.message.contains(mention), "\(problem.message)")
        #expect((problem.code == nil) == hasNext)
        let verdicts = snapshot.listings.filter { $0.candidate.provider == bench.unique }.map(\.candidate.verdict)
        #expect(verdicts.map(\.outcome) == (hasNext ? [.failed, .chosen] : [.failed]))
        mention = "acme.driver does not list the devices of \(bench.unique): "
        if hasNext { #expect(problem.message.contains(mention), "\(problem.message)") }
    }

    @Test(
        "With `critical yes` or RDMA_PROVIDER no other library lists in place of one that fails",
        arguments: [true, false])
    func critical(_ isCritical: Bool) throws {
        let bench = try Workbench()
        let line = isCritical ? "critical yes\n" : ""
        try bench.driver("acme", "driver \(bench.unique)\nlist-devices yes\n\(line)", in: bench.override)
        try library(bench, ["list-fails": "no controller"])
        try bench.driver("next", "driver \(bench.unique)\nlist-devices yes\nlibrary next.so\n")
        let next = try library(bench, as: "next.so")
        if !isCritical { bench.configuration.environment["RDMA_PROVIDER"] = bench.unique }
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == ["soft0"] && bench.trace(next) == "")
        #expect(snapshot.problems.map(\.code) == [EACCES])
    }

    @Test("Of several files of one provider the first in rank lists; the library of another is not opened")
    func ranking() throws {
        let (bench, low) = try prepared(lines: "version 2\n")
        try bench.driver("new", "driver \(bench.unique)\nlist-devices yes\nversion 10\nlibrary new.so\n")
        let high = try library(bench, ["list": bench.unique + "n"], as: "new.so")
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == ["\(bench.unique)n0", "soft0"])
        #expect(bench.trace(low) == "" && bench.trace(high) == "mel")
    }

    @Test("A file of the provider in the override directory serves the devices that the main directory's library lists")
    func replacedServer() throws {
        let (bench, lister) = try prepared(["list-cookie": "7"])
        try bench.driver("server", "driver \(bench.unique)\nlibrary server.so\n", in: bench.override)
        let server = try bench.library("server.so", ["name": bench.unique])
        let opened = try bench.loader.open("\(bench.unique)d0")
        #expect(opened.provider.library == server && opened.device.pointee.cookie == 7)
        #expect(bench.trace(lister) == "mel" && bench.trace(server) == "mepo")
        #expect(opened.close() == 0)
    }

    @Test(
        "A library of the name `soft` lists in place of the built-in soft, which lists again when it fails",
        arguments: [true, false])
    func replacedSoft(_ works: Bool) throws {
        let bench = try Workbench()
        try bench.driver("soft", "driver soft\nlist-devices yes\n", in: bench.override)
        var settings = ["name": "soft", "list": "fast"]
        if !works { settings["list-fails"] = "no AF_XDP" }
        try bench.library("soft.so", settings)
        let snapshot = bench.loader.snapshot()
        #expect(snapshot.devices.map(\.name) == [works ? "fast0" : "soft0"])
        #expect(snapshot.select(for: snapshot.devices[0]).chosen?.origin == .override)
    }

    @Test("A library that lists devices serves others too, if its driver file matches them by name")
    func matchesToo() throws {
        let (bench, library) = try prepared(lines: "match name soft0\n")
        let snapshot = bench.loader.snapshot()
        for name in ["soft0", "\(bench.unique)d0"] {
            let opened = try snapshot.open(name)
            #expect(opened.provider.library == library)
            #expect(opened.close() == 0)
        }
        try bench.mlx5()
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("acme")?.message.contains("and the software devices that it lists") == true)
    }

    @Test(
        "A device whose name is taken by the kernel or by another provider, or is no name, is passed over",
        arguments: 0..<4)
    func names(_ index: Int) throws {
        let names = ["mlx5_0", "soft0", "../x", "x y"]
        let (bench, _) = try prepared(["list-number": "2", "list-name": names[index]])
        try bench.mlx5()
        if names[index] == "soft0" { try bench.driver("first", "driver soft\nlist-devices yes\n", in: bench.override) }
        try bench.library("soft.so", ["name": "soft", "list": "soft"])
        let snapshot = bench.loader.snapshot()
        #expect(
            snapshot.devices.map(\.name).sorted()
                == ["mlx5_0", "soft0", "\(bench.unique)d1"].sorted())
        let problem = try #require(snapshot.problems.first)
        #expect(snapshot.problems.count == 1)
        let reasons = ["taken, by a kernel device", "taken, by soft of", "not a device name", "not a device name"]
        #expect(
            problem.message.contains("lists a device `\(names[index])`, which is passed over"), "\(problem.message)")
        #expect(problem.message.contains(reasons[index]), "\(problem.message)")
    }

    @Test(
        "A library that ignores `stride` loses the devices that lie elsewhere, each with a sentence",
        arguments: [104, 8])
    func stride(_ stride: Int) throws {
        let (bench, _) = try prepared(["list-number": "3", "list-stride": "\(stride)", "list-location": "there"])
        let snapshot = bench.loader.snapshot()
        let known = snapshot.devices.map(\.name).filter { $0 != "soft0" }
        #expect(known.count <= 1 && known.allSatisfy { $0 == "\(bench.unique)d0" })
        #expect(snapshot.problems.count >= 2)
        #expect(snapshot.problems.allSatisfy { $0.message.contains("is passed over") })
    }

    @Test("A device appears and goes between two snapshots, and is another device when it comes back")
    func hotPlug() throws {
        let (bench, library) = try prepared(["list-number": "0", "device-state": "1"])
        let name = "\(bench.unique)d0"
        #expect(bench.loader.snapshot().devices.map(\.name) == ["soft0"])
        func set(number: Int, cookie: Int) throws -> SystemSnapshot {
            let settings = [
                "name \(bench.unique)", "list \(bench.unique)d", "list-number \(number)", "list-cookie \(cookie)",
                "device-state 1",
            ]
            try bench.write(library + ".conf", settings.map { $0 + "\n" }.joined())
            return bench.loader.snapshot()
        }
        let old = try set(number: 1, cookie: 1)
        let first = try old.open(name)
        #expect(try set(number: 1, cookie: 1).open(name).device == first.device)
        #expect(throws: LoaderError.self) { try set(number: 0, cookie: 1).open(name) }
        let returned = try set(number: 1, cookie: 2).open(name)
        #expect(returned.device != first.device)
        #expect(returned.device.pointee.device != first.device.pointee.device)
        #expect(first.device.pointee.cookie == 1 && returned.device.pointee.cookie == 2)
        // init_device was called for the device that came back, while a context of the old one is open.
        #expect(bench.trace(library).filter { $0 == "i" }.count == 2)
        #expect(first.context.pointee.device == first.device.pointee.device)
        #expect(first.close() == 0 && returned.close() == 0)
        #expect(bench.trace(library).filter { $0 == "f" }.count == 1)
        _ = old
    }

    @Test("A kernel device that is registered again under its name is another device")
    func kernelDeviceReturns() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let first = try bench.loader.open("mlx5_0")
        let again = try bench.loader.open("mlx5_0")
        #expect(again.device == first.device)
        // A new directory with the same contents, as sysfs makes it. The old one stays, so that its inode is not reused.
        let path = bench.sysfs.path + "/class/infiniband/mlx5_0"
        try FileManager.default.moveItem(atPath: path, toPath: bench.sysfs.path + "/old")
        try FileManager.default.copyItem(atPath: bench.sysfs.path + "/old", toPath: path)
        let returned = try bench.loader.open("mlx5_0")
        #expect(returned.device != first.device && returned.description.registration != first.description.registration)
        #expect(first.close() == 0 && again.close() == 0 && returned.close() == 0)
    }
}
