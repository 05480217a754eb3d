import CIBVerbs
import CProviderABI

/// The `rdma_device` of a device: what a provider gets to see. There is one for each description, and it lives as
/// long as the process, since contexts point to it.
struct DeviceRecord: @unchecked Sendable {
    // Unchecked: what it points to never changes after its making.
    let pointer: UnsafePointer<rdma_device>

    /// Zeroed bytes behind the public struct, where other libraries look (rdma_provider.h, `rdma_device.device`).
    private static let room = 1024

    private static let known = Locked<[DeviceDescription: DeviceRecord]>([:])

    /// The record of the device, made at first sight.
    static func of(_ description: DeviceDescription) -> DeviceRecord {
        known.withLock { known in
            if let record = known[description] { return record }
            let record = DeviceRecord(making: description)
            known[description] = record
            return record
        }
    }

    private init(making description: DeviceDescription) {
        let record = UnsafeMutablePointer<rdma_device>.allocate(capacity: 1)
        record.initialize(to: rdma_device())
        record.pointee.size = UInt32(MemoryLayout<rdma_device>.size)
        record.pointee.kind = (description.kind == .kernel ? RDMA_DEVICE_KERNEL : RDMA_DEVICE_SOFTWARE).rawValue
        record.pointee.device = DeviceRecord.publicDevice(description)
        record.pointee.node_guid = description.nodeGUID.bigEndian
        record.pointee.driver_id = description.driverID ?? UInt32.max  // RDMA_DRIVER_ID_UNKNOWN
        record.pointee.kernel_abi = description.kernelABI
        record.pointee.uverbs_abi = description.uverbsABI
        if let pci = description.pci {
            record.pointee.pci_vendor = pci.vendor
            record.pointee.pci_device = pci.device
            record.pointee.pci_subsystem_vendor = pci.subsystemVendor
            record.pointee.pci_subsystem_device = pci.subsystemDevice
        }
        record.pointee.uverbs_dev = dev_t(description.uverbsDevice)
        record.pointee.interface = permanentCopy(description.networkInterface ?? "")
        record.pointee.ifindex = description.interfaceIndex
        pointer = UnsafePointer(record)
    }

    private static func publicDevice(_ description: DeviceDescription) -> UnsafeMutablePointer<ibv_device> {
        let size = MemoryLayout<ibv_device>.size + room
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        let device = memory.bindMemory(to: ibv_device.self, capacity: 1)
        device.pointee.node_type = ibv_node_type(rawValue: description.nodeType)
        device.pointee.transport_type = ibv_transport_type(rawValue: description.transportType)
        copy(description.name, to: &device.pointee.name)
        copy(description.uverbsName ?? "", to: &device.pointee.dev_name)
        copy(description.uverbsPath ?? "", to: &device.pointee.dev_path)
        copy(description.sysfsPath ?? "", to: &device.pointee.ibdev_path)
        return device
    }

    /// Copies into a zeroed array of characters, cut to leave a terminating zero.
    private static func copy<T>(_ string: String, to field: inout T) {
        withUnsafeMutableBytes(of: &field) { bytes in
            bytes.copyBytes(from: string.utf8.prefix(bytes.count - 1))
        }
    }
}
