import CProviderABI
import Foundation
import TestSupport
import Testing

@testable import LibibverbsProvider

/// Whether libibverbs takes its devices from sysfs: it does where the kernel has no RDMA netlink.
private let readsSysfs: Bool = {
    let rdmaProtocol: Int32 = 20  // NETLINK_RDMA
    let descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue), rdmaProtocol)
    if descriptor >= 0 { close(descriptor) }
    return descriptor < 0
}()

/// What a provider says to a device.
private struct Answer {
    let code: Int32
    let sentence: String

    init(to device: TestDevice, _ call: (UnsafePointer<rdma_device>, UnsafeMutablePointer<rdma_reason>) -> Int32) {
        var why = OpenedContext.emptyReason
        code = withExtendedLifetime(device) { call(device.pointer, &why) }
        sentence = OpenedContext.text(of: why)
    }
}

private func provider() throws -> rdma_provider {
    var why = OpenedContext.emptyReason
    return try #require(rdma_provider_entry_libibverbs(OpenedContext.core, &why)).pointee
}

@Suite("libibverbs: devices")
struct DeviceTests {
    @Test("It negotiates, and refuses a core of another major version with a sentence")
    func negotiation() throws {
        let made = try provider()
        #expect(String(cString: made.name) == "libibverbs")
        #expect(made.abi_major == UInt16(RDMA_PROVIDER_ABI_MAJOR))
        var other = OpenedContext.core.pointee
        other.abi_major += 1
        var why = OpenedContext.emptyReason
        #expect(rdma_provider_entry_libibverbs(&other, &why) == nil)
        #expect(OpenedContext.text(of: why).contains("provider ABI"))
    }

    @Test("A software device is refused")
    func software() throws {
        let provider = try provider()
        let answer = Answer(to: TestDevice("soft0")) { device, why in
            var software = device.pointee
            software.kind = RDMA_DEVICE_SOFTWARE.rawValue
            return provider.probe_device(&software, why)
        }
        #expect(answer.code == ENODEV)
        #expect(answer.sentence.contains("userspace"))
    }

    @Test(
        "Each reason says what to try",
        arguments: [
            (list: 0, node: 0, expected: "no C provider for mlx5_0: install"),
            (list: 0, node: EACCES, expected: "no C provider for mlx5_0: install"),
            (list: 0, node: ENOENT, expected: "there is no /dev/infiniband/uverbs0: load the kernel module ib_uverbs"),
            (list: ENOSYS, node: ENOENT, expected: "is the kernel module ib_uverbs loaded?"),
        ] as [(list: Int32, node: Int32, expected: String)])
    func absence(list: Int32, node: Int32, expected: String) {
        let answer = Answer(to: TestDevice("mlx5_0")) { device, why in
            explainAbsence(of: device, listError: list, nodeError: node).store(in: why)
            return 0
        }
        #expect(answer.sentence.contains(expected), "\(answer.sentence)")
    }

    @Test(
        "A failed open says why",
        arguments: [
            (EACCES, "no permission for /dev/infiniband/uverbs0"), (ENOENT, "pass /dev/infiniband in"),
            (ENOMEM, "could not open mlx5_0 (errno 12)"),
        ] as [(Int32, String)])
    func failure(error: Int32, expected: String) {
        let answer = Answer(to: TestDevice("mlx5_0")) { device, why in
            explainFailure(error, of: device).store(in: why)
            return error
        }
        #expect(answer.sentence.contains(expected), "\(answer.sentence)")
    }

    // libibverbs reads SYSFS_PATH once in a process, so each of these has a process of its own.

    @Test("A device that libibverbs passes over is refused with what is missing", .enabled(if: readsSysfs))
    func passedOver() async throws {
        let sysfs = try FakeSysfs()
        try sysfs.addDevice("mlx5_0", index: 77, pci: .init(0x15b3, 0x1017), kernelDriver: "mlx5_core")
        await #expect(processExitsWith: .success) { [path = sysfs.path as String] in
            setenv("SYSFS_PATH", path, 1)
            let provider = try provider()
            let answer = Answer(to: TestDevice("mlx5_0", node: "uverbs77")) { provider.probe_device($0, $1) }
            #expect(answer.code == ENODEV)
            #expect(answer.sentence.contains("there is no /dev/infiniband/uverbs77"))
        }
        withExtendedLifetime(sysfs) {}
    }

    @Test("Without a uverbs subsystem the reason names the kernel module", .enabled(if: readsSysfs))
    func noSubsystem() async throws {
        let empty = try TemporaryDirectory()
        await #expect(processExitsWith: .success) { [path = empty.path as String] in
            setenv("SYSFS_PATH", path, 1)
            let provider = try provider()
            let answer = Answer(to: TestDevice("mlx5_0")) { provider.probe_device($0, $1) }
            #expect(answer.code == ENODEV)
            #expect(answer.sentence.contains("ib_uverbs"))
        }
        withExtendedLifetime(empty) {}
    }

    @Test("A device without its node is not opened, at once and with the node's path", .enabled(if: readsSysfs))
    func noNode() async throws {
        let sysfs = try FakeSysfs()
        try sysfs.addDevice("mlx5_0", index: 77, pci: .init(0x15b3, 0x1017))
        await #expect(processExitsWith: .success) { [path = sysfs.path as String] in
            setenv("SYSFS_PATH", path, 1)
            let provider = try provider()
            var opened = rdma_context()
            opened.size = UInt32(MemoryLayout<rdma_context>.size)
            let answer = Answer(to: TestDevice("mlx5_0", node: "uverbs77")) {
                provider.open_device($0, &opened, $1)
            }
            #expect(answer.code == ENOENT)
            #expect(answer.sentence.contains("there is no /dev/infiniband/uverbs77"))
            #expect(opened.context == nil)
        }
        withExtendedLifetime(sysfs) {}
    }
}
