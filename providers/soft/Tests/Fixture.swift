import Glibc
import CIBVerbs
import CProviderABI
import Synchronization

@testable import SoftProvider

/// What a call of the waist answered that was not success.
struct Refusal: Error, Equatable {
    let errno: Int32
    init(_ errno: Int32) { self.errno = errno }
}

/// Throws what a call that answers an errno value answered, unless it was 0.
func check(_ answer: Int32) throws {
    if answer != 0 { throw Refusal(answer) }
}

/// The provider as the core gets it: entered once in this process.
enum Provider {
    nonisolated(unsafe) static let core: UnsafeMutablePointer<rdma_core> = {
        let core = UnsafeMutablePointer<rdma_core>.allocate(capacity: 1)
        core.initialize(to: rdma_core())
        core.pointee.size = UInt32(MemoryLayout<rdma_core>.size)
        core.pointee.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
        core.pointee.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
        core.pointee.log = { _, _, _ in }
        return core
    }()

    nonisolated(unsafe) static let entry: UnsafePointer<rdma_provider> = rdma_provider_entry_soft(core, nil)!

    /// What list_devices writes.
    static func devices() throws -> [rdma_software_device] {
        var count: UInt32 = 0
        let stride = MemoryLayout<rdma_software_device>.stride
        try check(entry.pointee.list_devices(nil, stride, 0, &count))
        var list = [rdma_software_device](repeating: rdma_software_device(), count: Int(count))
        try check(entry.pointee.list_devices(&list, stride, count, &count))
        return Array(list.prefix(Int(count)))
    }
}

/// A device on an interface, opened.
final class OpenDevice {
    let device: UnsafeMutablePointer<rdma_device>
    let context: UnsafeMutablePointer<ibv_context>
    let table: rdma_context_ops

    init(interface name: String = "lo") throws {
        device = .allocate(capacity: 1)
        device.initialize(to: rdma_device())
        device.pointee.size = UInt32(MemoryLayout<rdma_device>.size)
        device.pointee.kind = RDMA_DEVICE_SOFTWARE.rawValue
        device.pointee.driver_id = UInt32.max
        device.pointee.interface = UnsafePointer(strdup(name))
        device.pointee.device = .allocate(capacity: 1)
        device.pointee.device.initialize(to: ibv_device())
        var opened = rdma_context()
        opened.size = UInt32(MemoryLayout<rdma_context>.size)
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
        do {
            try check(Provider.entry.pointee.open_device(device, &opened, &why))
        } catch {
            Self.free(device)
            throw error
        }
        context = opened.context
        table = opened.ops.pointee
        rdma_adopt_context(&opened)
    }

    deinit {
        _ = table.close_context(context)
        Self.free(device)
    }

    private static func free(_ device: UnsafeMutablePointer<rdma_device>) {
        device.pointee.device.deallocate()
        Glibc.free(UnsafeMutablePointer(mutating: device.pointee.interface))
        device.deallocate()
    }
}

/// What a verb that answers a pointer made, or its errno.
func made<Object>(_ object: UnsafeMutablePointer<Object>?) throws -> UnsafeMutablePointer<Object> {
    guard let object else { throw Refusal(errno) }
    return object
}
