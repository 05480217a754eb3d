import CProviderABI
import Foundation
import TestSupport
import Testing

@testable import LibibverbsProvider

/// Whether libibverbs lists its devices from sysfs, which it does on a kernel without RDMA netlink.
private let readsSysfs: Bool = {
    let rdmaProtocol: Int32 = 20  // NETLINK_RDMA
    let descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue), rdmaProtocol)
    if descriptor >= 0 { close(descriptor) }
    return descriptor < 0
}()

/// A provider's result and reason for a device.
private struct ProbeResult {
    let code: Int32
    let message: String

    init(to device: TestDevice, _ call: (UnsafePointer<rdma_device>, UnsafeMutablePointer<rdma_reason>) -> Int32) {
        var why = OpenedContext.emptyReason
        code = withExtendedLifetime(device) { call(device.pointer, &why) }
        message = OpenedContext.text(of: why)
    }
}

private func provider() throws -> rdma_provider {
    var why = OpenedContext.emptyReason
    return try #require(providerEntry(core: OpenedContext.core, why: &why)).pointee
}

@Suite("libibverbs: devices")
struct DeviceTests {
    @Test("The entry point refuses a core with another major version of the provider ABI, with a reason")
    func negotiation() throws {
        let provider = try provider()
        #expect(String(cString: provider.name) == "libibverbs")
        #expect(provider.abi_major == UInt16(RDMA_PROVIDER_ABI_MAJOR))
        var other = OpenedContext.core.pointee
        other.abi_major += 1
        var why = OpenedContext.emptyReason
        #expect(providerEntry(core: &other, why: &why) == nil)
        #expect(OpenedContext.text(of: why).contains("provider ABI"))
    }

    @Test("A software device is refused")
    func software() throws {
        let provider = try provider()
        let result = ProbeResult(to: TestDevice("soft0")) { device, why in
            var software = device.pointee
            software.kind = RDMA_DEVICE_SOFTWARE.rawValue
            return provider.probe_device(&software, why)
        }
        #expect(result.code == ENODEV)
        #expect(result.message.contains("userspace"))
    }

    @Test(
        "The reason for an unlisted device contains a remedy",
        arguments: [
            (list: 0, node: 0, expected: "no C provider for mlx5_0: install"),
            (list: 0, node: EACCES, expected: "no C provider for mlx5_0: install"),
            (list: 0, node: ENOENT, expected: "there is no /dev/infiniband/uverbs0: load the kernel module ib_uverbs"),
            (list: ENOSYS, node: ENOENT, expected: "is the kernel module ib_uverbs loaded?"),
        ] as [(list: Int32, node: Int32, expected: String)])
    func absence(list: Int32, node: Int32, expected: String) {
        let result = ProbeResult(to: TestDevice("mlx5_0")) { device, why in
            explainAbsence(of: device, listError: list, nodeError: node).store(in: why)
            return 0
        }
        #expect(result.message.contains(expected), "\(result.message)")
    }

    @Test(
        "The reason for a failed open names its cause",
        arguments: [
            (EACCES, "no permission for /dev/infiniband/uverbs0"), (ENOENT, "pass /dev/infiniband in"),
            (ENOMEM, "could not open mlx5_0: ENOMEM (Cannot allocate memory)"),
        ] as [(Int32, String)])
    func failure(error: Int32, expected: String) {
        let result = ProbeResult(to: TestDevice("mlx5_0")) { device, why in
            explainFailure(error, of: device).store(in: why)
            return error
        }
        #expect(result.message.contains(expected), "\(result.message)")
    }

    // libibverbs reads SYSFS_PATH once per process, so each of these tests runs in its own process.

    @Test("A device that libibverbs omits is ENODEV, and the reason names the missing node", .enabled(if: readsSysfs))
    func passedOver() async throws {
        let sysfs = try FakeSysfs()
        try sysfs.addDevice("mlx5_0", index: 77, pci: .init(0x15b3, 0x1017), kernelDriver: "mlx5_core")
        await #expect(processExitsWith: .success) { [path = sysfs.path as String] in
            setenv("SYSFS_PATH", path, 1)
            let provider = try provider()
            let result = ProbeResult(to: TestDevice("mlx5_0", node: "uverbs77")) { provider.probe_device($0, $1) }
            #expect(result.code == ENODEV)
            #expect(result.message.contains("there is no /dev/infiniband/uverbs77"))
        }
        withExtendedLifetime(sysfs) {}
    }

    @Test("Without a uverbs subsystem the reason names the kernel module", .enabled(if: readsSysfs))
    func noSubsystem() async throws {
        let empty = try TemporaryDirectory()
        await #expect(processExitsWith: .success) { [path = empty.path as String] in
            setenv("SYSFS_PATH", path, 1)
            let provider = try provider()
            let result = ProbeResult(to: TestDevice("mlx5_0")) { provider.probe_device($0, $1) }
            #expect(result.code == ENODEV)
            #expect(result.message.contains("ib_uverbs"))
        }
        withExtendedLifetime(empty) {}
    }

    @Test("Opening a device without a node is ENOENT, and the reason names the node", .enabled(if: readsSysfs))
    func noNode() async throws {
        let sysfs = try FakeSysfs()
        try sysfs.addDevice("mlx5_0", index: 77, pci: .init(0x15b3, 0x1017))
        await #expect(processExitsWith: .success) { [path = sysfs.path as String] in
            setenv("SYSFS_PATH", path, 1)
            let provider = try provider()
            var opened = rdma_context()
            opened.size = UInt32(MemoryLayout<rdma_context>.size)
            let result = ProbeResult(to: TestDevice("mlx5_0", node: "uverbs77")) {
                provider.open_device($0, nil, &opened, $1)
            }
            #expect(result.code == ENOENT)
            #expect(result.message.contains("there is no /dev/infiniband/uverbs77"))
            #expect(opened.context == nil)
        }
        withExtendedLifetime(sysfs) {}
    }
}
