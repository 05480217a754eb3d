import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Which devices a driver file is for")
struct MatchTests {
    /// The verdict on a driver file for one device; its library does not matter, since it is not there.
    private func fits(_ file: String, _ change: (inout DeviceDescription) -> Void) throws -> Bool {
        let bench = try Workbench()
        try bench.driver("x", file)
        let rules = Eligibility(masks: [], asked: nil, kernelProviders: ["libibverbs"])
        let entry = try #require(DriverDirectories(bench.configuration).entries.first)
        var device = DeviceDescription(name: "mlx5_0", kind: .kernel)
        change(&device)
        let contender = Contender(entry, trust: FileTrust(bench.configuration))
        let verdict = try #require(rules.verdict(on: contender, for: device))
        #expect([.match, .missing].contains(verdict.rule))
        return verdict.rule == .missing
    }

    private let connectX5 = DeviceDescription.PCIIdentifiers(vendor: 0x15b3, device: 0x1017)

    @Test(
        "`match driver-id` goes by the kernel's number, and by what the kernel driver's name says where there is none")
    func driverID() throws {
        #expect(try fits("driver a\nmatch driver-id 1\n") { $0.driverID = 1 })
        #expect(try !fits("driver a\nmatch driver-id 1\n") { $0.driverID = 2 })
        #expect(try fits("driver a\nmatch driver-id 1\n") { $0.kernelDriver = "mlx5_core" })
        // The kernel's word counts more than the name of the hardware's driver.
        #expect(try !fits("driver a\nmatch driver-id 1\n") { ($0.driverID, $0.kernelDriver) = (4, "mlx5_core") })
        #expect(try !fits("driver a\nmatch driver-id 1\n") { _ in })
    }

    @Test("`match pci` goes by vendor and device, `*` stands for any device")
    func pci() throws {
        #expect(try fits("driver a\nmatch pci 15B3:1017\n") { $0.pci = connectX5 })
        #expect(try fits("driver a\nmatch pci 15b3:*\n") { $0.pci = connectX5 })
        #expect(try !fits("driver a\nmatch pci 15b3:1018\n") { $0.pci = connectX5 })
        #expect(try !fits("driver a\nmatch pci 1017:15b3\n") { $0.pci = connectX5 })
        #expect(try !fits("driver a\nmatch pci 0000:*\n") { _ in })
    }

    @Test("`match name` goes by the device's name")
    func name() throws {
        #expect(try fits("driver a\nmatch name mlx5_*\n") { _ in })
        #expect(try !fits("driver a\nmatch name mlx4_*\n") { _ in })
    }

    @Test("One of several match lines is enough")
    func several() throws {
        let file = "driver a\nmatch driver-id 99\nmatch name none\nmatch pci 15b3:1017\n"
        #expect(try fits(file) { $0.pci = connectX5 })
        #expect(try !fits(file) { _ in })
    }

    @Test("Without a match line, the kernel driver of the provider's name decides")
    func bare() throws {
        #expect(try fits("driver mlx5\n") { $0.driverID = 1 })
        #expect(try fits("driver mlx5\n") { $0.kernelDriver = "mlx5_core" })
        #expect(try !fits("driver mlx5\n") { _ in })  // The name alone could be anybody's.
        #expect(try !fits("driver mlx4\n") { $0.driverID = 1 })
        #expect(try fits("driver irdma\n") { $0.kernelDriver = "i40e" })
        #expect(try !fits("driver acme\n") { $0.driverID = 1 })
        #expect(try fits("driver libibverbs\n") { _ in })
    }

    @Test("rxe and siw have no hardware: the device's name decides, where the kernel states no number")
    func withoutHardware() throws {
        #expect(try fits("driver rxe\n") { $0.name = "rxe0" })
        #expect(try fits("driver siw\n") { $0.name = "siw_eth0" })
        #expect(try !fits("driver rxe\n") { ($0.name, $0.driverID) = ("rxe0", 18) })
        #expect(try !fits("driver rxe\n") { ($0.name, $0.pci) = ("rxe0", connectX5) })
        #expect(try !fits("driver rxe\n") { ($0.name, $0.kernelDriver) = ("rxe0", "mlx5_core") })
    }

    @Test("A software device goes by who lists it, or by its name")
    func software() throws {
        let soft0: (inout DeviceDescription) -> Void = { device in
            device = DeviceDescription(name: "soft0", kind: .software)
            device.listedBy = "soft"
        }
        #expect(try fits("driver soft\n", soft0))
        #expect(try fits("driver acme\nmatch name soft*\n", soft0))
        #expect(try !fits("driver acme\n", soft0))
        #expect(try !fits("driver rxe\n", soft0))
        #expect(try !fits("driver libibverbs\n", soft0))
        #expect(try !fits("driver soft\nmatch driver-id 14\n", soft0))
    }

    @Test("The sentence says what the file is for, and what the device is")
    func sentence() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.driver("x", "driver a\nmatch driver-id 4\nmatch pci 1425:*\n")
        let verdict = try #require(bench.loader.survey()["mlx5_0"]?.verdict("x"))
        #expect(verdict.outcome == .rejected)
        #expect(
            verdict.sentence
                == "it is for driver-id 4, pci 1425:*; the device is name mlx5_0, driver-id 1, pci 15b3:1017")
    }

    @Test("No two kernel drivers share a name, and only rxe and siw are without hardware")
    func table() {
        #expect(Set(KernelDriver.all.map(\.name)).count == KernelDriver.all.count)
        #expect(Set(KernelDriver.all.map(\.id)) == Set(1...20))
        #expect(KernelDriver.all.filter(\.hardware.isEmpty).map(\.name) == ["rxe", "siw"])
    }
}
