import Foundation
import TestSupport
import Testing
import ToolSupport

@testable import VerbsCommand

@Suite("verbs providers shows which provider serves a device, and why the others do not")
struct ProvidersTests {
    /// Driver files, selected by RDMA_DRIVER_PATH.
    private let directory: TemporaryDirectory
    private let sysfs: FakeSysfs

    init() throws {
        directory = try TemporaryDirectory()
        sysfs = try FakeSysfs()
    }

    private func providers(_ device: String) async throws -> (text: String, entry: [String: Any]) {
        let environment = ["RDMA_DRIVER_PATH": directory.path, "SYSFS_PATH": sysfs.path]
        let text = try await Tool.run("providers", environment: environment)
        #expect(text.status == 0 && text.errors.isEmpty, "\(text.errors)")
        let outcome = try await Tool.run("providers", device, "--json", environment: environment)
        let document = try outcome.document()
        #expect(try SchemaValidator(named: "providers").faults(document) == [])
        let entries = try #require(document["devices"] as? [[String: Any]])
        #expect(entries.count == 1)
        return (text.output, entries[0])
    }

    private func candidate(_ entry: [String: Any], _ provider: String) throws -> [String: Any] {
        let all = try #require(entry["candidates"] as? [[String: Any]])
        return try #require(all.first { $0["provider"] as? String == provider }, "\(all)")
    }

    @Test("a matching provider serves the device")
    func chosen() async throws {
        try CTestProvider.writeDriverFile(in: directory)
        let (text, entry) = try await providers("ctest0")
        #expect(entry["chosen"] as? String == "ctest")
        let ctest = try candidate(entry, "ctest")
        #expect(ctest["outcome"] as? String == "chosen" && ctest["origin"] as? String == "environment")
        #expect(text.contains(/(?m)^chosen +ctest +1\.0 +\S+\/ctest\.driver +\S/))
    }

    @Test("a replacement for the software device is skipped if its probe fails or its library is missing")
    func replacement() async throws {
        try CTestProvider.writeDriverFile(in: directory, lines: ["match name soft*"])
        var entry = try await providers("soft0").entry
        // Its driver file matches; the probe of its library then rejects all but ctest devices.
        #expect(entry["chosen"] as? String == "soft")
        #expect(try candidate(entry, "ctest")["rule"] as? String == "probe")
        try directory.write("driver soft\nlibrary /nonexistent/soft.so\nmatch name soft*\n", to: "soft.driver")
        entry = try await providers("soft0").entry
        #expect(entry["chosen"] as? String == "soft")
        let all = try #require(entry["candidates"] as? [[String: Any]])
        #expect(all.contains { $0["outcome"] as? String == "absent" && $0["rule"] as? String == "missing" }, "\(all)")
    }

    @Test("an empty driver file masks the built-in provider")
    func mask() async throws {
        try directory.write("", to: "soft.driver")
        let (text, entry) = try await providers("soft0")
        #expect(try candidate(entry, "soft")["outcome"] as? String == "masked")
        #expect(entry["chosen"] == nil && entry["error"] != nil)
        #expect(text.contains("masked") && text.contains("  try: "))
    }

    @Test("a driver file that is writable by others is rejected, and doctor reports it")
    func worldWritable() async throws {
        let file = try CTestProvider.writeDriverFile(in: directory, lines: ["match name soft*"])
        #expect(chmod(file, 0o666) == 0)
        let entry = try await providers("soft0").entry
        #expect(entry["chosen"] as? String == "soft")
        #expect(try candidate(entry, "ctest")["rule"] as? String == "ownership")
        let doctor = try await Tool.run(
            "doctor", environment: ["RDMA_DRIVER_PATH": directory.path, "SYSFS_PATH": sysfs.path])
        #expect(doctor.output.contains("ctest.driver"), "\(doctor.output)")
    }

    @Test("a provider that lists software devices is shown with its devices, or with the reason why it lists none")
    func listings() async throws {
        try CTestProvider.writeDriverFile(in: directory)
        for (number, isListed) in [("2", true), ("65", false)] {
            let environment = [
                "RDMA_DRIVER_PATH": directory.path, "SYSFS_PATH": sysfs.path, "CTEST_DEVICES": number,
            ]
            let document = try await Tool.run("providers", "--json", environment: environment).document()
            #expect(try SchemaValidator(named: "providers").faults(document) == [])
            let listings = try #require(document["listings"] as? [[String: Any]])
            let ctest = try #require(listings.first { $0["provider"] as? String == "ctest" })
            #expect(ctest["devices"] as? [String] == (isListed ? ["ctest0", "ctest1"] : []))
            #expect(ctest["outcome"] as? String == (isListed ? "chosen" : "failed"))
            let text = try await Tool.run("providers", environment: environment).output
            let devices = try await Tool.run("devices", environment: environment).output
            let doctor = try await Tool.run("doctor", environment: environment)
            guard isListed else {
                let reason = "it cannot list its devices: CTEST_DEVICES must be a number from 0 to 64"
                #expect(ctest["reason"] as? String == reason && ctest["rule"] as? String == "list")
                for output in [text, devices, doctor.output] { #expect(output.contains(reason), "\(output)") }
                #expect(doctor.status == ToolExit.problemFound.rawValue)
                continue
            }
            #expect(text.contains(/(?m)^chosen +ctest +\S+\/ctest\.driver +ctest0,ctest1\s/), "\(text)")
            #expect(devices.contains(/(?m)^ctest1 +ctest +software .*memory of this process$/), "\(devices)")
            #expect(!doctor.output.contains("ctest.driver"), "\(doctor.output)")
        }
    }

    @Test("an incompatible provider ABI and an unknown keyword are rejected with the reason")
    func broken() async throws {
        try directory.write(
            "driver ctest\nlibrary \(CTestProvider.library())\nlist-devices yes\nmatch name soft*\nprovider-abi 9.0\n",
            to: "ctest.driver")
        try directory.write("driver x\nfoo bar\n", to: "x.driver")
        let (text, entry) = try await providers("soft0")
        #expect(entry["chosen"] as? String == "soft")
        #expect(try candidate(entry, "ctest")["rule"] as? String == "providerABI")
        #expect(text.contains("skipped:") && text.contains("x.driver:2: "), "\(text)")
        #expect(text.contains("the devices of ctest are not listed"), "\(text)")
    }
}
