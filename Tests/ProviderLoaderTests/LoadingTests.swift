import CIBVerbs
import CProviderABI
import Foundation
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Loading a library")
struct LoadingTests {
    /// mlx5_0 with one driver file, whose library has the given settings (Fixtures/provider.c).
    private func prepared(
        _ settings: [String: String] = [:], variant: ProviderVariant = .good, lines: String = ""
    ) throws -> (bench: Workbench, library: String) {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("acme", "driver \(bench.unique)\nmatch name *\n\(lines)")
        let settings = settings.merging(["name": bench.unique]) { given, _ in given }
        return (bench, try bench.library("\(bench.unique).so", settings, variant: variant))
    }

    /// The verdict on `acme` when it fails; checks that libibverbs serves instead.
    private func failure(_ bench: Workbench) throws -> Verdict {
        let opened = try bench.loader.open("mlx5_0")
        #expect(opened.provider.name == "libibverbs")
        #expect(opened.warnings.count == 1)
        #expect(opened.close() == 0)
        let verdict = try #require(opened.candidates.first { $0.driverFile != nil }).verdict
        #expect(opened.warnings.first?.contains(verdict.message) == true)
        return verdict
    }

    @Test("A provider of a library opens the device, with its name, version and vendor")
    func good() throws {
        let (bench, library) = try prepared(
            ["version": "1.5", "vendor": "ACME"],
            lines: "version 1.5\nvendor ACME\nproved silicon\n")
        let opened = try bench.loader.open("mlx5_0")
        #expect(
            opened.provider
                == ProviderDescription(
                    name: bench.unique, version: "1.5", vendor: "ACME", abi: .core,
                    driverFile: bench.main + "/acme.driver",
                    library: library, proof: .silicon))
        #expect(opened.warnings == [] && !opened.isForeign)
        #expect(bench.trace(library) == "mepo")
        #expect(opened.context.pointee.device == opened.device.pointee.device)
        // The core has filled the empty slots of the data path, which return EOPNOTSUPP.
        var completion = ibv_wc()
        #expect(opened.context.pointee.ops.poll_cq(nil, 1, &completion) == -EOPNOTSUPP)
        #expect(opened.close() == 0)
        #expect(bench.trace(library) == "mepoc")
    }

    @Test("Several loaders open a library once and call its entry point once")
    func once() throws {
        let (bench, library) = try prepared()
        try bench.sysfs.addDevice("mlx5_1", index: 1)
        let another = bench.loader
        for _ in 1...3 {
            _ = bench.loader.survey()
            _ = try another.open("mlx5_1").close()
        }
        let trace = bench.trace(library)
        #expect(trace.filter { $0 == "m" }.count == 1)
        #expect(trace.filter { $0 == "e" }.count == 1)
        #expect(trace.filter { $0 == "o" }.count == 3 && trace.filter { $0 == "c" }.count == 3)
    }

    @Test("A library that two driver files name is opened once")
    func sharedByDevices() throws {
        let bench = try Workbench()
        let library = try bench.library("\(bench.unique).so", ["name": bench.unique])
        try bench.directory.link("lib/link.so", to: library)
        for index in 0...1 {
            try bench.sysfs.addDevice("a\(index)", index: index)
            try bench.driver(
                "a\(index)",
                "driver \(bench.unique)\nmatch name a\(index)\nlibrary \(index == 0 ? bench.unique : "link").so\n")
        }
        for name in ["a0", "a1"] {
            let opened = try bench.loader.open(name)
            #expect(opened.provider.library == library)
            #expect(opened.warnings == [])
            #expect(opened.close() == 0)
        }
        #expect(bench.trace(library) == "mepocpoc")
    }

    @Test("After the entry point refused the core, it is not called again")
    func refusalOnce() throws {
        let (bench, library) = try prepared(["refuses": "needs provider ABI 7.0, this core has 0.9"])
        for _ in 1...2 {
            let verdict = try failure(bench)
            #expect(
                verdict
                    == Verdict(.failed, .negotiation, "it refuses this core: needs provider ABI 7.0, this core has 0.9")
            )
        }
        #expect(bench.trace(library) == "me")
    }

    static let faults: [(settings: [String: String], rule: Verdict.Rule, mention: String)] = [
        (["refuses": ""], .negotiation, "it gave no reason"),
        (["major": "1"], .negotiation, "built for provider ABI 1.9, and this core, of 0.9, serves 0.9 and later"),
        (["minor": "0"], .negotiation, "built for provider ABI 0.0"),
        (["size": "4"], .negotiation, "its description is only 4 bytes long"),
        (["size": "56"], .negotiation, "its description is 56 bytes long; ABI 0.9 has at least 64"),
        (["nameless": "1"], .negotiation, "lacks the name"),
        (["kernel-min": "9", "kernel-max": "3"], .negotiation, "kernel ABIs is empty (9 to 3)"),
        (["name": "other"], .name, "has the name other, its driver file the name t"),
        (
            ["kernel-min": "2", "kernel-max": "3"], .kernelABI,
            "does not support kernel ABI 1 of mlx5_0 (supports 2 to 3)"
        ),
        (["probe-fails": "firmware 1.0 is too old"], .probe, "cannot serve mlx5_0: firmware 1.0 is too old"),
        (["open-fails": "no room"], .open, "does not open the device: no room"),
        (["open-fails": "x", "open-errno": "-13"], .open, "does not open the device: x"),
        (["no-context": "1"], .open, "success without a context"),
        (["no-close": "1"], .open, "no close_context"),
        (["strange-device": "1"], .open, "its context is of another device"),
        (["short-context": "1"], .open, "not a struct verbs_context of rdma-core 44 or later"),
        (["table-size": "1000004"], .open, "the size of its control table cannot be 1000004"),
        (["table-size": "4294967288"], .open, "the size of its control table cannot be 4294967288"),
        (
            ["device-state": "1", "init-fails": "no table"], .open,
            "it does not prepare the device (init_device): no table"
        ),
    ]

    @Test("A faulty library is reported with the reason, and the next in rank serves", arguments: faults.indices)
    func fault(_ index: Int) throws {
        let (settings, rule, mention) = LoadingTests.faults[index]
        let (bench, library) = try prepared(settings)
        let verdict = try failure(bench)
        #expect(verdict.outcome == .failed && verdict.rule == rule)
        #expect(verdict.message.contains(mention), "\(verdict.message)")
        // A context that is refused is closed.
        let trace = bench.trace(library)
        #expect(trace.contains("c") == (settings["strange-device"] != nil || settings["short-context"] != nil))
    }

    @Test(
        "A context of a later verbs.h, which has more slots, is served, and the slots that this verbs.h has are filled")
    func laterContext() throws {
        let (bench, _) = try prepared(["later-slots": "6"])
        let opened = try bench.loader.open("mlx5_0")
        #expect(verbs_get_ctx(opened.context)?.pointee.sz == MemoryLayout<verbs_context>.size + 6 * 8)
        var attributes = ibv_port_attr()
        #expect(___ibv_query_port(opened.context, 1, &attributes) == 0)
        #expect(opened.close() == 0)
    }

    @Test("An entry beyond the size of the control table is not called, even if it is there")
    func shortTable() throws {
        let (bench, _) = try prepared(["table-size": "24"])
        let opened = try bench.loader.open("mlx5_0")
        var attributes = ibv_port_attr()
        #expect(___ibv_query_port(opened.context, 1, &attributes) == EOPNOTSUPP)
        #expect(opened.close() == 0)
    }

    @Test(
        "The state of a device is made before its first context, passed to open_device, and freed after the last context"
    )
    func deviceState() throws {
        let (bench, library) = try prepared(["device-state": "1"])
        let first = try bench.loader.open("mlx5_0")
        let second = try bench.loader.open("mlx5_0")
        #expect(bench.trace(library) == "mepiopo")
        #expect(first.close() == 0)
        #expect(bench.trace(library) == "mepiopoc")
        #expect(second.close() == 0)
        let third = try bench.loader.open("mlx5_0")
        #expect(third.close() == 0)
        #expect(bench.trace(library) == "mepiopoccfpiocf")
    }

    @Test(
        "Extensions of a device and of a context are found by name and version; the context's was wanted at its opening"
    )
    func extensions() throws {
        let (bench, _) = try prepared()
        let snapshot = bench.loader.snapshot()
        let device = try #require(snapshot.devices.first { $0.name == "mlx5_0" })
        #expect(snapshot.queryExtension("acme-numbers", version: 2, of: device)?.load(as: Int32.self) == 2)
        #expect(snapshot.queryExtension("acme-numbers", version: 1, of: device) == nil)
        #expect(snapshot.queryExtension("acme-letters", version: 2, of: device) == nil)
        for (wanted, number) in [([], nil), (["other", "acme-numbers"], 3)] as [([String], Int32?)] {
            let opened = try snapshot.open("mlx5_0", extensions: wanted)
            let found = opened.ops.pointee.query_extension(opened.context, "acme-numbers", 2)
            #expect(found?.load(as: Int32.self) == number)
            #expect(opened.close() == 0)
        }
    }

    @Test("When no context opens, the state of the device is freed")
    func deviceStateAfterFailure() throws {
        let (bench, library) = try prepared(["device-state": "1", "open-fails": "no room"])
        _ = try failure(bench)
        #expect(bench.trace(library) == "mepiof")
    }

    @Test("A provider of a newer minor version, with a longer struct rdma_provider, is used")
    func newer() throws {
        let (bench, _) = try prepared(["minor": "12", "size": "96"])
        let opened = try bench.loader.open("mlx5_0")
        #expect(opened.provider.name == bench.unique)
        #expect(opened.provider.abi == ABIVersion(major: 0, minor: 12))
        #expect(opened.close() == 0)
    }

    @Test(
        "A library without the entry point is refused, even if a library that it depends on has one",
        arguments: [ProviderVariant.noEntry, .borrowedEntry])
    func noEntry(_ variant: ProviderVariant) throws {
        let (bench, library) = try prepared(variant: variant)
        let verdict = try failure(bench)
        #expect(verdict.rule == .load)
        #expect(verdict.message.contains("does not export rdma_provider_entry"))
        #expect(bench.trace(library) == "m")
    }

    @Test("The verdict on a library with an undefined symbol has the message of the dynamic linker")
    func undefined() throws {
        let (bench, library) = try prepared(variant: .undefined)
        let verdict = try failure(bench)
        #expect(verdict.rule == .load)
        #expect(verdict.message.contains("undefined symbol: undefined_symbol"))
        #expect(bench.trace(library) == "")
    }

    @Test(
        "A file that is not a shared library for this machine is refused before dlopen",
        arguments: [
            (0..<4, 0, "no ELF header"), (18..<19, 183, "it is for AArch64 (64 bit)"), (4..<5, 1, "(32 bit)"),
            (16..<17, 2, "not a shared library"),
        ] as [(Range<Int>, UInt8, String)])
    func wrongMachine(_ bytes: Range<Int>, _ value: UInt8, _ mention: String) throws {
        let (bench, library) = try prepared()
        var contents = try Data(contentsOf: URL(fileURLWithPath: library))
        for index in bytes { contents[index] = value }
        try contents.write(to: URL(fileURLWithPath: library))
        let verdict = try failure(bench)
        #expect(verdict.rule == .load)
        #expect(verdict.message.contains(mention), "\(verdict.message)")
    }

    @Test("A truncated library is refused", arguments: [0, 10, 64, 4096])
    func truncated(_ length: Int) throws {
        let (bench, library) = try prepared()
        let contents = try Data(contentsOf: URL(fileURLWithPath: library)).prefix(length)
        try contents.write(to: URL(fileURLWithPath: library))
        #expect(try failure(bench).rule == .load)
    }

    @Test("A library that is a directory is refused")
    func directory() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("acme", "driver acme\nmatch name *\n")
        try bench.makeDirectory(bench.providers + "/acme.so")
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("acme")?.outcome == .rejected)
        #expect(entry.verdict("acme")?.message.contains("is not a regular file") == true)
    }

    @Test("A built-in provider must have the name that the program gives")
    func builtInName() throws {
        let builtIn = BuiltInProvider(name: "acme", entry: BuiltInProvider.softTest.entry)
        let bench = try Workbench(builtIn: [builtIn])
        try bench.mlx5()
        let entry = try #require(bench.loader.survey()["mlx5_0"])
        #expect(entry.verdict("acme") == Verdict(.failed, .name, "its name is `soft`"))
        #expect(entry.error?.message.contains("its name is `soft`") == true)
    }

    @Test("A library that the program had opened before is used, with a warning")
    func alreadyMapped() throws {
        let (bench, library) = try prepared()
        #expect(dlopen(library, RTLD_NOW | RTLD_LOCAL) != nil)
        let opened = try bench.loader.open("mlx5_0")
        #expect(opened.provider.name == bench.unique)
        #expect(opened.warnings.count == 1)
        #expect(opened.warnings.first?.hasPrefix("\(library) had been opened in this process before") == true)
        #expect(opened.close() == 0)
    }

    @Test("A library of the same hardware that the program is linked with gives a warning")
    func linkedCopy() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("linked", "driver linked\nmatch name *\n")
        try bench.library("linked.so", ["name": "linked"])
        let other = try bench.library("liblinked.so.1", in: bench.directory.path("system"))
        #expect(dlopen(other, RTLD_NOW | RTLD_LOCAL) != nil)
        let opened = try bench.loader.open("mlx5_0")
        #expect(opened.provider.name == "linked")
        #expect(opened.warnings.count == 1)
        #expect(opened.warnings.first?.hasPrefix("\(other) is in this process beside") == true)
        #expect(opened.close() == 0)
    }

    @Test("Two provider libraries with the same provider name in a process give a warning")
    func twoOfOneName() throws {
        let bench = try Workbench()
        for index in 0...1 {
            try bench.sysfs.addDevice("t\(index)", index: index)
            try bench.driver("t\(index)", "driver twin\nmatch name t\(index)\nlibrary twin\(index).so\n")
            try bench.library("twin\(index).so", ["name": "twin"])
        }
        let first = try bench.loader.open("t0")
        #expect(first.warnings == [])
        let second = try bench.loader.open("t1")
        #expect(second.provider.name == "twin")
        #expect(second.warnings.count == 1)
        #expect(
            second.warnings.first?.contains(
                "\(bench.providers)/twin0.so is in this process beside \(bench.providers)/twin1.so") == true)
        #expect(first.close() == 0 && second.close() == 0)
    }

    @Test("Many threads that survey and open at once open each library once")
    func threads() async throws {
        let (bench, library) = try prepared()
        let loader = bench.loader
        let unique = bench.unique
        let served = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<16 {
                group.addTask {
                    _ = loader.survey()
                    guard let opened = try? loader.open("mlx5_0") else { return false }
                    return opened.close() == 0 && opened.provider.name == unique
                }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(served == 16)
        let trace = bench.trace(library)
        #expect(trace.filter { $0 == "m" }.count == 1 && trace.filter { $0 == "e" }.count == 1)
    }
}
