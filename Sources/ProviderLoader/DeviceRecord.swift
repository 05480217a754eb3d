import CIBVerbs
import CProviderABI
import Locking

/// The `struct rdma_device` of a device, as one provider receives it. There is one for each description and provider,
/// because it holds the provider's own state of the device. All have the same `struct ibv_device`. It is never freed,
/// because contexts point to it (`ibv_context.device`). A device that comes back differs from the old one in its
/// description, by `registration` or `cookie`, and has a record of its own (rdma_provider.h, chapter 6).
final class DeviceRecord: @unchecked Sendable {
    // Unchecked: after the initializer only `provider_state` changes, under the lock, and only while no context of the
    // device is open.
    private let record: UnsafeMutablePointer<rdma_device>
    /// The number of open contexts, counted only for a provider that has `init_device`.
    private let openContexts = Locked(0)

    /// Zeroed bytes behind `struct ibv_device`, which other libraries read (rdma_provider.h, `rdma_device.device`).
    private static let room = 1024

    private struct Known: @unchecked Sendable {
        // Unchecked: what the pointers lead to changes only as in `DeviceRecord`.
        var devices: [DeviceDescription: UnsafeMutablePointer<ibv_device>] = [:]
        var records: [Key: DeviceRecord] = [:]

        mutating func publicDevice(of description: DeviceDescription) -> UnsafeMutablePointer<ibv_device> {
            let device = devices[description] ?? DeviceRecord.publicDevice(description)
            devices[description] = device
            return device
        }
    }

    private struct Key: Hashable {
        let description: DeviceDescription
        let provider: UnsafePointer<rdma_provider>
    }

    private static let known = Locked(Known())

    var pointer: UnsafePointer<rdma_device> { UnsafePointer(record) }

    /// The record of the device for that provider; the first call makes it.
    static func of(_ description: DeviceDescription, for provider: UnsafePointer<rdma_provider>) -> DeviceRecord {
        known.withLock { known in
            let key = Key(description: description, provider: provider)
            if let record = known.records[key] { return record }
            let record = DeviceRecord(making: description, known.publicDevice(of: description))
            known.records[key] = record
            return record
        }
    }

    /// The `struct ibv_device` of the device; the first call makes it.
    static func publicDevice(of description: DeviceDescription) -> UnsafeMutablePointer<ibv_device> {
        known.withLock { known in known.publicDevice(of: description) }
    }

    /// Opens a context with `open`. The first one is preceded by the provider's `init_device`.
    func opening(
        with provider: UnsafePointer<rdma_provider>, _ open: () throws(LoadFailure) -> rdma_context
    ) throws(LoadFailure) -> rdma_context {
        guard let functions = DeviceFunctions(of: provider) else { return try open() }
        // Under the lock: rdma_provider.h promises that init_device, open_device and fini_device of one device are not
        // concurrent.
        let result = openContexts.withLock { count -> Result<rdma_context, LoadFailure> in
            do throws(LoadFailure) {
                if count == 0 { record.pointee.provider_state = try functions.initialize(pointer) }
                do throws(LoadFailure) {
                    let context = try open()
                    count += 1
                    return .success(context)
                } catch {
                    if count == 0 { finish(functions) }
                    throw error
                }
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// Called after a context was closed. The last one is followed by the provider's `fini_device`.
    func closed(by provider: UnsafePointer<rdma_provider>) {
        guard let functions = DeviceFunctions(of: provider) else { return }
        openContexts.withLock { count in
            count -= 1
            if count == 0 { finish(functions) }
        }
    }

    private func finish(_ functions: DeviceFunctions) {
        let state = record.pointee.provider_state
        record.pointee.provider_state = nil
        functions.fini(pointer, state)
    }

    private init(making description: DeviceDescription, _ device: UnsafeMutablePointer<ibv_device>) {
        record = UnsafeMutablePointer<rdma_device>.allocate(capacity: 1)
        record.initialize(to: rdma_device())
        record.pointee.size = UInt32(MemoryLayout<rdma_device>.size)
        record.pointee.kind = (description.kind == .kernel ? RDMA_DEVICE_KERNEL : RDMA_DEVICE_SOFTWARE).rawValue
        record.pointee.device = device
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
        record.pointee.location = permanentCopy(description.location ?? "")
        record.pointee.cookie = description.cookie
    }

    fileprivate static func publicDevice(_ description: DeviceDescription) -> UnsafeMutablePointer<ibv_device> {
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

/// `init_device` and `fini_device` of a provider (rdma_provider.h).
private struct DeviceFunctions {
    private let start:
        @convention(c) (
            UnsafePointer<rdma_device>?, UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
            UnsafeMutablePointer<rdma_reason>?
        ) -> Int32
    let fini: @convention(c) (UnsafePointer<rdma_device>?, UnsafeMutableRawPointer?) -> Void

    /// Nil where the provider has no state of its devices.
    init?(of provider: UnsafePointer<rdma_provider>) {
        guard provider.provides(\.fini_device), let start = provider.pointee.init_device,
            let fini = provider.pointee.fini_device
        else { return nil }
        self.start = start
        self.fini = fini
    }

    func initialize(_ device: UnsafePointer<rdma_device>) throws(LoadFailure) -> UnsafeMutableRawPointer? {
        var state: UnsafeMutableRawPointer?
        var why = rdma_reason.empty
        let error = start(device, &state, &why)
        guard error == 0 else {
            throw LoadFailure(.open, positive(error), "it does not prepare the device (init_device): \(text(why))")
        }
        return state
    }
}

extension ProviderLoader {
    /// The `struct ibv_device` of a device: `ibv_context.device` of the contexts that are opened later. It is never freed.
    package static func publicDevice(of description: DeviceDescription) -> UnsafeMutablePointer<ibv_device> {
        DeviceRecord.publicDevice(of: description)
    }
}
