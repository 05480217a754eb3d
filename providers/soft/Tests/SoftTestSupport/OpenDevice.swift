import CIBVerbs
import CProviderABI
import CProviderCore
import SoftProvider
import Glibc

/// The errno value that a function of the provider ABI returned.
public struct Refusal: Error, Equatable {
    public let errno: Int32
    public init(_ errno: Int32) { self.errno = errno }
}

/// Throws the errno value that a function returned, unless it is 0.
public func check(_ result: Int32) throws {
    if result != 0 { throw Refusal(result) }
}

/// The object that a verb returned. Throws errno when it is nil.
public func created<Object>(_ object: UnsafeMutablePointer<Object>?) throws -> UnsafeMutablePointer<Object> {
    guard let object else { throw Refusal(errno) }
    return object
}

/// The built-in provider. Its entry point is called once in this process, as by the core.
public enum Provider {
    public nonisolated(unsafe) static let core: UnsafeMutablePointer<rdma_core> = {
        let core = UnsafeMutablePointer<rdma_core>.allocate(capacity: 1)
        core.initialize(to: rdma_core())
        core.pointee.size = UInt32(MemoryLayout<rdma_core>.size)
        core.pointee.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
        core.pointee.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
        core.pointee.log = { _, _, _ in }
        core.pointee.explain = rdma_keep_explanation
        return core
    }()

    /// The built-in provider.
    public nonisolated(unsafe) static let builtIn: UnsafePointer<rdma_provider> = providerEntry(core: core, why: nil)!

    /// The devices that list_devices writes.
    public static func devices() throws -> [rdma_software_device] {
        var count: UInt32 = 0
        let stride = MemoryLayout<rdma_software_device>.stride
        try check(builtIn.pointee.list_devices(nil, stride, 0, &count))
        var list = [rdma_software_device](repeating: rdma_software_device(), count: Int(count))
        try check(builtIn.pointee.list_devices(&list, stride, count, &count))
        return Array(list.prefix(Int(count)))
    }
}

/// An open device on an interface.
public final class OpenDevice {
    public let context: UnsafeMutablePointer<ibv_context>
    public let table: rdma_context_ops
    private let release: () -> Void

    /// A device that was opened elsewhere; closed with this object.
    public init(context: UnsafeMutablePointer<ibv_context>, table: rdma_context_ops) {
        self.context = context
        self.table = table
        release = {}
    }

    public init(
        interface name: String = "lo", provider: UnsafePointer<rdma_provider> = Provider.builtIn
    ) throws {
        let interface = strdup(name)!
        let device = UnsafeMutablePointer<rdma_device>.allocate(capacity: 1)
        device.initialize(to: rdma_device())
        device.pointee.size = UInt32(MemoryLayout<rdma_device>.size)
        device.pointee.kind = RDMA_DEVICE_SOFTWARE.rawValue
        device.pointee.driver_id = UInt32.max
        device.pointee.interface = UnsafePointer(interface)
        device.pointee.device = .allocate(capacity: 1)
        device.pointee.device.initialize(to: ibv_device())
        var opened = rdma_context()
        opened.size = UInt32(MemoryLayout<rdma_context>.size)
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
        let release = {
            device.pointee.device.deallocate()
            device.deallocate()
            free(interface)
        }
        let error = provider.pointee.open_device(device, nil, &opened, &why)
        if error != 0 {
            release()
            throw Refusal(error)
        }
        self.release = release
        context = opened.context
        table = opened.ops.pointee
        rdma_adopt_context(&opened)
    }

    deinit {
        _ = table.close_context(context)
        release()
    }
}
