import CIBVerbs
import CProviderABI
import Foundation
import Synchronization
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Listing devices")
struct DeviceTests {
    @Test("A kernel device is described from sysfs, and the provider receives that description")
    func describe() throws {
        let bench = try Workbench()
        try bench.sysfs.addDevice(
            "mlx5_0", index: 3, nodeGUID: 0x0002_c903_00ab_cdef, kernelABI: 7,
            pci: FakeSysfs.PCI(0x15b3, 0x1017, subsystemVendor: 0x1028, subsystemDevice: 0x20),
            kernelDriver: "mlx5_core")
        let device = try #require(bench.loader.survey().entries.first).device
        var expected = DeviceDescription(name: "mlx5_0", kind: .kernel)
        expected.nodeGUID = 0x0002_c903_00ab_cdef
        expected.nodeType = 1
        expected.transportType = 0
        expected.kernelDriver = "mlx5_core"
        expected.kernelABI = 7
        expected.uverbsABI = 6
        expected.pci = .init(vendor: 0x15b3, device: 0x1017, subsystemVendor: 0x1028, subsystemDevice: 0x20)
        expected.uverbsName = "uverbs3"
        expected.uverbsDevice = UInt64(makeDevice(231, 195))
        expected.uverbsPath = bench.sysfs.path + "/class/infiniband_verbs/uverbs3"
        expected.sysfsPath = bench.sysfs.path + "/class/infiniband/mlx5_0"
        #expect(device.registration != 0)
        expected.registration = device.registration
        #expect(device == expected)

        let record = DeviceRecord.of(device, for: someProvider).pointer.pointee
        #expect(record.size == MemoryLayout<rdma_device>.size)
        #expect(record.kind == RDMA_DEVICE_KERNEL.rawValue)
        #expect(record.node_guid == UInt64(0x0002_c903_00ab_cdef).bigEndian)
        #expect(record.driver_id == UInt32.max)
        #expect(record.kernel_abi == 7 && record.uverbs_abi == 6)
        #expect(record.pci_vendor == 0x15b3 && record.pci_device == 0x1017)
        #expect(record.pci_subsystem_vendor == 0x1028 && record.pci_subsystem_device == 0x20)
        #expect(record.uverbs_dev == dev_t(makeDevice(231, 195)))
        #expect(record.interface.pointee == 0 && record.ifindex == 0)
        let verbs = try #require(record.device)
        #expect(verbs.pointee.node_type == IBV_NODE_CA && verbs.pointee.transport_type == IBV_TRANSPORT_IB)
        #expect(String(cString: ibv_get_device_name(verbs)) == "mlx5_0")
        #expect(OpenedContext.characters(verbs.pointee.dev_name) == "uverbs3")
        #expect(OpenedContext.characters(verbs.pointee.dev_path) == expected.uverbsPath)
        #expect(OpenedContext.characters(verbs.pointee.ibdev_path) == expected.sysfsPath)
        let room = UnsafeRawBufferPointer(start: UnsafeRawPointer(verbs + 1), count: 1024)
        #expect(room.allSatisfy { $0 == 0 })
        #expect(
            DeviceRecord.of(device, for: someProvider).pointer == DeviceRecord.of(expected, for: someProvider).pointer)
    }

    private func makeDevice(_ major: UInt32, _ minor: UInt32) -> dev_t {
        dev_t(minor & 0xff | major << 8)
    }

    @Test("Large device numbers are combined as makedev(3) does")
    func largeNumbers() throws {
        let bench = try Workbench()
        try bench.mlx5()
        try bench.write(bench.sysfs.path + "/class/infiniband_verbs/uverbs0/dev", "74565:1048575\n")
        // makedev(0x12345, 0xfffff)
        #expect(bench.loader.survey()["mlx5_0"]?.device.uverbsDevice == 0x0001_2000_fff3_45ff)
    }

    @Test("A software device has the properties that its provider lists")
    func software() throws {
        let bench = try Workbench()
        let device = try #require(bench.loader.survey()["soft0"]).device
        var expected = DeviceDescription(name: "soft0", kind: .software)
        expected.nodeGUID = 0x0200_00ff_fe00_0001
        expected.nodeType = 1
        expected.transportType = 0
        expected.networkInterface = "lo"
        expected.interfaceIndex = 1
        expected.listedBy = "soft"
        #expect(device == expected)
        let record = DeviceRecord.of(device, for: someProvider).pointer.pointee
        #expect(record.kind == RDMA_DEVICE_SOFTWARE.rawValue)
        #expect(String(cString: record.interface) == "lo" && record.ifindex == 1)
    }

    @Test("Kernel devices are sorted by name and number, software devices follow")
    func order() throws {
        let bench = try Workbench()
        for (index, name) in ["mlx5_10", "mlx5_2", "hfi1_0"].enumerated() {
            try bench.sysfs.addDevice(name, index: index)
        }
        #expect(bench.loader.survey().entries.map(\.device.name) == ["hfi1_0", "mlx5_2", "mlx5_10", "soft0"])
    }

    @Test(
        "An RNIC has the transport iWARP; an unknown node type is kept",
        arguments: [("4: RNIC", 4, 1), ("7: unspecified", 7, 4), ("99: NEW", 99, -1), ("", -1, -1)]
            as [(String, Int32, Int32)])
    func transport(_ text: String, _ type: Int32, _ transport: Int32) throws {
        let bench = try Workbench()
        try bench.sysfs.addDevice("siw0", nodeType: text)
        let device = try #require(bench.loader.survey()["siw0"]).device
        #expect(device.nodeType == type && device.transportType == transport)
    }

    @Test(
        "A uverbs node with a missing or invalid attribute is a problem, and the other devices are listed",
        arguments: [
            ("ibdev", "../x\n"), ("ibdev", ""), ("dev", "231\n"), ("dev", "a:b\n"), ("abi_version", "new\n"),
            ("abi_version", nil),
        ] as [(String, String?)])
    func badNode(_ attribute: String, _ text: String?) throws {
        let bench = try Workbench()
        try bench.sysfs.addDevice("mlx5_0", index: 0)
        try bench.sysfs.addDevice("mlx5_1", index: 1)
        let path = bench.sysfs.path + "/class/infiniband_verbs/uverbs0/" + attribute
        if let text { try bench.write(path, text) } else { try FileManager.default.removeItem(atPath: path) }
        let survey = bench.loader.survey()
        #expect(survey.entries.map(\.device.name) == ["mlx5_1", "soft0"])
        #expect(survey.problems.map(\.path) == [path])
    }

    @Test(
        "A modalias of another bus, or one that is malformed, gives no PCI identifiers",
        arguments: ["auxiliary:mlx5_core.rdma", "pci:v000015B3", "pci:v100015B3d00001017sv0sd0", "", "pci:"])
    func modalias(_ text: String) throws {
        #expect(DeviceDescription.PCIIdentifiers(modalias: text) == nil)
    }

    @Test("SYSFS_PATH sets the path of sysfs, unless the process runs with raised privileges")
    func sysfsPath() throws {
        let bench = try Workbench()
        try bench.mlx5()
        bench.configuration.sysfsPath = "/nowhere"
        #expect(bench.loader.survey()["mlx5_0"] == nil)
        bench.configuration.environment["SYSFS_PATH"] = bench.sysfs.path
        #expect(bench.loader.survey()["mlx5_0"] != nil)
        bench.configuration.isPrivileged = true
        let survey = bench.loader.survey()
        #expect(survey["mlx5_0"] == nil)
        #expect(survey.problems.map(\.message) == ["SYSFS_PATH is ignored: this process runs with raised privileges"])
    }

    @Test("A failure of list_devices is a problem of the survey, with the errno value and the provider's message")
    func listFails() throws {
        let survey = try Workbench(builtIn: [.softTest, .listFailsTest]).loader.survey()
        #expect(survey.entries.map(\.device.name) == ["soft0"])
        let problem = try #require(survey.problems.first)
        #expect(problem.code == EMFILE)
        #expect(problem.message.hasSuffix("it cannot list its devices: the kernel does not tell of interfaces"))
    }

    @Test("Software devices with invalid or taken names are problems; a long list is read to its end")
    func invalidNames() throws {
        let bench = try Workbench(builtIn: [.softTest, .invalidNamesTest])
        let survey = bench.loader.survey()
        #expect(survey.entries.count == 1 + 38)
        #expect(survey["soft0"]?.device.listedBy == "soft")
        #expect(survey["confused39"]?.chosen?.provider == "confused")
        #expect(survey.problems.count == 2)
        #expect(survey.problems.first?.message.contains("`../etc`") == true)
        #expect(survey.problems.last?.message.contains("that name is taken") == true)
    }

    @Test("Rules and providers receive the driver IDs of the configuration")
    func driverIDs() throws {
        let bench = try Workbench()
        try bench.sysfs.addDevice("eth_rdma0")
        bench.configuration.driverIDs = { ["eth_rdma0": 1] }
        try bench.driver("mlx5", "driver mlx5\n")
        try bench.library("mlx5.so", ["name": "mlx5"])
        let entry = try #require(bench.loader.survey()["eth_rdma0"])
        #expect(entry.device.driverID == 1)
        #expect(entry.chosen?.provider == "mlx5")
        #expect(DeviceRecord.of(entry.device, for: someProvider).pointer.pointee.driver_id == 1)
    }

    @Test("Driver IDs are requested only if there is a kernel device: the request may make the kernel load a module")
    func noDriverIDs() throws {
        let bench = try Workbench()
        let requests = Atomic(0)
        bench.configuration.driverIDs = {
            requests.add(1, ordering: .relaxed)
            return [:]
        }
        _ = bench.loader.survey()
        let without = requests.load(ordering: .relaxed)
        #expect(without == 0)
        try bench.sysfs.addDevice("eth_rdma0")
        _ = bench.loader.survey()
        let with = requests.load(ordering: .relaxed)
        #expect(with > 0)
    }
}

extension OpenedContext {
    /// The text in an array of characters.
    static func characters<T>(_ field: T) -> String {
        withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

/// A provider whose records the tests read.
nonisolated(unsafe) private let someProvider: UnsafePointer<rdma_provider> = {
    let provider = UnsafeMutablePointer<rdma_provider>.allocate(capacity: 1)
    provider.initialize(to: rdma_provider())
    return UnsafePointer(provider)
}()
