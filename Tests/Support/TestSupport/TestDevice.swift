import CIBVerbs
import CProviderABI
import Foundation

/// A device as the core passes it to a provider: one that has only a name and a GUID.
public final class TestDevice: @unchecked Sendable {
    // Unchecked: it is not modified after its initialization.

    /// The device for the provider; valid as long as this object.
    public let pointer: UnsafePointer<rdma_device>
    /// The public struct, followed by the provider's memory.
    private let verbs: UnsafeMutablePointer<ibv_device>
    private let interface: UnsafeMutablePointer<CChar>

    /// A device with this name and this uverbs node, by default of the kernel; each has at most 63 bytes.
    public init(
        _ name: String, node: String = "uverbs0", nodeGUID: UInt64 = 0x0002_c903_0012_3456,
        kind: rdma_device_kind = RDMA_DEVICE_KERNEL
    ) {
        let size = MemoryLayout<ibv_device>.size + 1024
        let room = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
        memset(room, 0, size)
        verbs = room.assumingMemoryBound(to: ibv_device.self)
        withUnsafeMutableBytes(of: &verbs.pointee.name) { $0.copyBytes(from: name.utf8.prefix(63)) }
        withUnsafeMutableBytes(of: &verbs.pointee.dev_name) { $0.copyBytes(from: node.utf8.prefix(63)) }
        verbs.pointee.node_type = IBV_NODE_CA
        verbs.pointee.transport_type = IBV_TRANSPORT_IB
        interface = strdup("")
        var device = rdma_device()
        device.size = UInt32(MemoryLayout<rdma_device>.size)
        device.kind = kind.rawValue
        device.device = verbs
        device.node_guid = nodeGUID.bigEndian
        device.driver_id = UInt32.max
        device.kernel_abi = 1
        device.uverbs_abi = 6
        device.interface = UnsafePointer(interface)
        device.location = UnsafePointer(interface)
        let made = UnsafeMutablePointer<rdma_device>.allocate(capacity: 1)
        made.initialize(to: device)
        pointer = UnsafePointer(made)
    }

    deinit {
        UnsafeMutablePointer(mutating: pointer).deallocate()
        UnsafeMutableRawPointer(verbs).deallocate()
        free(interface)
    }
}
