import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Devices that a driver file matches")
struct MatchTests {
    /// Whether a driver file matches a device. Its library is missing.
    private func matches(_ file: String, _ change: (inout DeviceDescription) -> Void) throws -> Bool {
        let bench = try Workbench()
        try bench.driver("x", file)
        let rules = Eligibility(masks: [], asked: nil, kernelProviders: ["libibverbs"])
        let entry = try #require(DriverDirectories(bench.configuration).entries.first)
        var device = DeviceDescription(name: "mlx5_0", kind: .kernel)
        change(&device)
        let source = ProviderSource(entry, trust: FileTrust(bench.configuration))
        let verdict = try #require(rules.verdict(on: source, for: device))
        #expect([.match, .missing].contains(verdict.rule))
        return verdict.rule == .missing
    }

    private let connectX5 = DeviceDescription.PCIIdentifiers(vendor: 0x15b3, device: 0x1017)

    @Test(
        "`match driver-id` compares the driver ID, or without one that of the kernel driver's name")
    func driverID() throws {
        #expect(try matches("driver a\nmatch driver-id 1\n") { $0.driverID = 1 })
        #expect(try !matches("driver a\nmatch driver-id 1\n") { $0.driverID = 2 })
        #expect(try matches("driver a\nmatch driver-id 1\n") { $0.kernelDriver = "mlx5_core" })
        // The driver ID takes precedence over the name of the hardware's driver.
        #expect(try !matches("driver a\nmatch driver-id 1\n") { ($0.driverID, $0.kernelDriver) = (4, "mlx5_core") })
        #expect(try !matches("driver a\nmatch driver-id 1\n") { _ in })
    }

    @Test("`match pci` compares vendor and device, `*` matches any device")
    func pci() throws {
        #expect(try matches("driver a\nmatch pci 15B3:1017\n") { $0.pci = connectX5 })
        #expect(try matches("driver a\nmatch pci 15b3:*\n") { $0.pci = connectX5 })
        #expect(try !matches("driver a\nmatch pci 15b3:1018\n") { $0.pci = connectX5 })
        #expect(try !matches("driver a\nmatch pci 1017:15b3\n") { $0.pci = connectX5 })
        #expect(try !matches("driver a\nmatch pci 0000:*\n") { _ in })
    }

    @Test("`match name` compares the device's name")
    func name() throws {
        #expect(try matches("driver a\nmatch name mlx5_*\n") { _ in })
        #expect(try !matches("driver a\nmatch name mlx4_*\n") { _ in })
    }

    @Test("One of several match lines is enough")
    func several() throws {
        let file = "driver a\nmatch driver-id 99\nmatch name none\nmatch pci 15b3:1017\n"
        #expect(try matches(file) { $0.pci = connectX5 })
        #expect(try !matches(file) { _ in })
    }

    @Test("Without a match line, the provider's name must be that of the kernel driver")
    func bare() throws {
        #expect(try matches("driver mlx5\n") { $0.driverID = 1 })
        #expect(try matches("driver mlx5\n") { $0.kernelDriver = "mlx5_core" })
        #expect(try !matches("driver mlx5\n") { _ in })  // The name alone does not identify the driver.
        #expect(try !matches("driver mlx4\n") { $0.driverID = 1 })
        #expect(try matches("driver irdma\n") { $0.kernelDriver = "i40e" })
        #expect(try !matches("driver acme\n") { $0.driverID = 1 })
        #expect(try matches("driver libibverbs\n") { _ in })
    }

    @Test("rxe and siw have no hardware: without a driver ID they are matched by device name")
    func withoutHardware() throws {
        #expect(try matches("driver rxe\n") { $0.name = "rxe0" })
        #expect(try matches("driver siw\n") { $0.name = "siw_eth0" })
        #expect(try !matches("driver rxe\n") { ($0.name, $0.driverID) = ("rxe0", 18) })
        #expect(try !matches("driver rxe\n") { ($0.name, $0.pci) = ("rxe0", connectX5) })
        #expect(try !matches("driver rxe\n") { ($0.name, $0.kernelDriver) = ("rxe0", "mlx5_core") })
    }

    @Test("A software device is matched by the provider that lists it, or by its name")
    func software() throws {
        let soft0: (inout DeviceDescription) -> Void = { device in
            device = DeviceDescription(name: "soft0", kind: .software)
            device.listedBy = "soft"
        }
        #expect(try matches("driver soft\n", soft0))
        #expect(try matches("driver acme\nmatch name soft*\n", soft0))
        #expect(try !matches("driver acme\n", soft0))
        #expect(try !matches("driver rxe\n", soft0))
        #expect(try !matches("driver libibverbs\n", soft0))
        #expect(try !matches("driver soft\nmatch driver-id 14\n", soft0))
    }

    @Test("The message has the match rules of the file and the properties of the device")
    func message() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("x", "driver a\nmatch driver-id 4\nmatch pci 1425:*\n")
        let verdict = try #require(bench.loader.survey()["mlx5_0"]?.verdict("x"))
        #expect(verdict.outcome == .rejected)
        #expect(
            verdict.message
                == "it is for driver-id 4, pci 1425:*; the device is name mlx5_0, driver-id 1, pci 15b3:1017")
    }

    @Test("No two kernel drivers share a name, and only rxe and siw are without hardware")
    func table() {
        #expect(Set(KernelDriver.all.map(\.name)).count == KernelDriver.all.count)
        #expect(Set(KernelDriver.all.map(\.id)) == Set(1...20))
        #expect(KernelDriver.all.filter(\.hardware.isEmpty).map(\.name) == ["rxe", "siw"])
    }
}
