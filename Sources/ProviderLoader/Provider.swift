import CIBVerbs
import CProviderABI
import CProviderCore
import Glibc

/// A provider (`struct rdma_provider`) whose entry point has returned a description that this core can use.
struct Provider: @unchecked Sendable {
    // Unchecked: the pointer is to static data of the provider.
    private let provider: UnsafePointer<rdma_provider>
    /// The shared library of the provider; nil for a built-in provider.
    var library: Library?
    let name: String
    let version: String
    let vendor: String
    let abi: ABIVersion
    /// The ABI versions of the kernel driver that the provider serves.
    let kernelABI: ClosedRange<UInt32>

    /// A shared library that dlopen(3) has opened.
    struct Library: Sendable {
        /// Path without links.
        let path: String
        /// Whether the library was already in this process when the loader opened it.
        let wasMapped: Bool
    }

    /// Calls an entry point, and checks the description that it returns, field by field from the first.
    init(entry: BuiltInProvider.EntryPoint) throws(LoadFailure) {
        var why = rdma_reason.empty
        guard let provider = entry(Core.pointer, &why) else {
            throw LoadFailure(.negotiation, EPROTONOSUPPORT, "it refuses this core: \(text(why))")
        }
        // The version stands at its place in every version of the struct.
        let size = Int(provider.pointee.size)
        guard size >= MemoryLayout<rdma_provider>.offset(of: \.name)! else {
            throw LoadFailure(.negotiation, EPROTO, "its description is only \(size) bytes long")
        }
        abi = ABIVersion(major: provider.pointee.abi_major, minor: provider.pointee.abi_minor)
        guard abi.major == ABIVersion.core.major, abi >= ABIVersion.oldest else {
            throw LoadFailure(
                .negotiation, EPROTONOSUPPORT,
                "it was built for provider ABI \(abi), and this core, of \(ABIVersion.core), serves "
                    + "\(ABIVersion.oldest) and later ones of major version \(ABIVersion.core.major)")
        }
        let needed = MemoryLayout<rdma_provider>.offset(of: \.open_device)! + MemoryLayout<UnsafeRawPointer>.size
        guard size >= needed else {
            throw LoadFailure(
                .negotiation, EPROTO, "its description is \(size) bytes long; ABI \(abi) has at least \(needed)")
        }
        guard let name = provider.pointee.name, provider.pointee.open_device != nil else {
            throw LoadFailure(.negotiation, EPROTO, "its description lacks the name or open_device")
        }
        let low = provider.pointee.kernel_abi_min
        let high = provider.pointee.kernel_abi_max
        guard low <= high else {
            throw LoadFailure(.negotiation, EPROTO, "its window of kernel ABIs is empty (\(low) to \(high))")
        }
        self.provider = provider
        self.name = text(name)
        version = text(provider.pointee.version)
        vendor = text(provider.pointee.vendor)
        kernelABI = low...high
    }

    /// Whether it is for the software devices that it lists (`list_devices`). A provider that lists none is for kernel
    /// devices.
    var listsDevices: Bool { provider.pointee.list_devices != nil }

    /// The software devices that it lists (`rdma_provider.list_devices`).
    func softwareDevices() throws(LoadFailure) -> [rdma_software_device] {
        guard let list = provider.pointee.list_devices else {
            throw LoadFailure(.list, EPROTO, "its driver file says `list-devices yes`, but it has no list_devices")
        }
        var counts: [UInt32] = []
        while counts.count < Provider.listingAttempts {
            // A list that has grown since the last call is read again.
            let capacity = counts.last.map { Int($0) + 16 } ?? 16
            let (devices, count) = try ask(list, capacity)
            guard count > capacity else { return Array(devices.prefix(Int(count))) }
            guard count <= Provider.maximumDevices else {
                throw LoadFailure(
                    .list, EPROTO, "it lists \(count) devices; at most \(Provider.maximumDevices) are accepted")
            }
            counts.append(count)
        }
        let growth = counts.map(String.init).joined(separator: ", ")
        throw LoadFailure(.list, EPROTO, "its list of devices grows whenever it is read (\(growth)): it has no end")
    }

    /// The calls of `list_devices` before a list that grows is refused, and the greatest number of its devices
    /// (rdma_provider.h).
    private static let listingAttempts = 4
    private static let maximumDevices: UInt32 = 4096

    /// One call of `list_devices`: room for `capacity` devices, and the number that the provider counts.
    private func ask(
        _ list: (UnsafeMutablePointer<rdma_software_device>?, Int, UInt32, UnsafeMutablePointer<UInt32>?) -> Int32,
        _ capacity: Int
    ) throws(LoadFailure) -> (devices: [rdma_software_device], count: UInt32) {
        let stride = MemoryLayout<rdma_software_device>.stride
        // The last one is beyond the capacity and must stay zero.
        var devices = [rdma_software_device](repeating: rdma_software_device(), count: capacity + 1)
        var count: UInt32 = 0
        rdma_drop_explanation()
        let error = positive(list(&devices, stride, UInt32(capacity), &count))
        guard error == 0 else {
            let why = rdma_explanation(error).map { text($0) } ?? Errno(code: error).text
            throw LoadFailure(.list, error, "it cannot list its devices: \(why)")
        }
        let isIntact = devices.withUnsafeBytes { $0[(capacity * stride)...].allSatisfy { $0 == 0 } }
        guard isIntact else {
            throw LoadFailure(
                .list, EPROTO, "it writes more than the \(capacity) devices that there is room for, or larger ones")
        }
        return (devices, count)
    }

    /// Throws unless it can serve the device: by its range of kernel ABIs, then by `rdma_provider.probe_device`.
    func probe(_ description: DeviceDescription) throws(LoadFailure) {
        if description.kind == .kernel, !kernelABI.contains(description.kernelABI) {
            throw LoadFailure(.kernelABI, EPROTONOSUPPORT, unsupported(description, by: kernelABI))
        }
        guard let probe = provider.pointee.probe_device else { return }
        var why = rdma_reason.empty
        let error = probe(record(of: description).pointer, &why)
        guard error == 0 else {
            throw LoadFailure(.probe, positive(error), "it cannot serve \(description.name): \(text(why))")
        }
    }

    /// The `struct rdma_device` that this provider receives for a device.
    func record(of description: DeviceDescription) -> DeviceRecord { DeviceRecord.of(description, for: provider) }

    /// Opens the device (`rdma_provider.init_device` before the first context, then `open_device`) and fills the empty
    /// slots of its context (`rdma_adopt_context`).
    /// - Parameter extensions: Names of extensions to prepare (`rdma_open_attr.extensions`).
    func open(_ description: DeviceDescription, extensions: [String] = []) throws(LoadFailure) -> rdma_context {
        let record = record(of: description)
        return try record.opening(with: provider) { () throws(LoadFailure) in try open(record, extensions) }
    }

    /// An extension of the provider (`rdma_provider.query_extension`), for a device or for the provider as a whole.
    func queryExtension(_ name: String, version: UInt32, of description: DeviceDescription?) -> UnsafeRawPointer? {
        guard provider.provides(\.query_extension), let query = provider.pointee.query_extension else { return nil }
        return query(description.map { record(of: $0).pointer }, name, version)
    }

    /// Called after a context that `open` returned was closed (`rdma_provider.fini_device` after the last one).
    func closed(_ description: DeviceDescription) { record(of: description).closed(by: provider) }

    private func open(_ record: DeviceRecord, _ extensions: [String]) throws(LoadFailure) -> rdma_context {
        var attributes = rdma_open_attr()
        attributes.size = UInt32(MemoryLayout<rdma_open_attr>.size)
        attributes.cmd_fd = -1
        let names = extensions.map { strdup($0) }
        defer { names.forEach { free($0) } }
        attributes.extension_count = UInt32(names.count)
        var opened = rdma_context()
        opened.size = UInt32(MemoryLayout<rdma_context>.size)
        var why = rdma_reason.empty
        let error = names.map { UnsafePointer<CChar>($0) }.withUnsafeBufferPointer { names in
            attributes.extensions = names.isEmpty ? nil : names.baseAddress
            return provider.pointee.open_device(record.pointer, &attributes, &opened, &why)
        }
        guard error == 0 else {
            throw LoadFailure(.open, positive(error), "it does not open the device: \(text(why))")
        }
        guard let context = opened.context, let ops = opened.ops else {
            throw LoadFailure(.open, EPROTO, "it returned success without a context and a control table")
        }
        let closeEnd = MemoryLayout<rdma_context_ops>.offset(of: \.close_context)! + MemoryLayout<Int>.size
        // Entries are pointers behind two numbers; a table of that many does not exist.
        guard ops.pointee.size % 8 == 0, ops.pointee.size <= 65536 else {
            throw LoadFailure(
                .open, EPROTO, "the size of its control table cannot be \(ops.pointee.size): that is beyond the table")
        }
        guard Int(ops.pointee.size) >= closeEnd, let close = ops.pointee.close_context else {
            throw LoadFailure(.open, EPROTO, "its control table has no close_context")
        }
        if let fault = fault(of: context, flags: opened.flags, record) {
            _ = close(context)
            throw LoadFailure(.open, EPROTO, fault)
        }
        rdma_adopt_context(&opened)
        return opened
    }

    /// The reason why a context breaks chapter 2 of rdma_provider.h; nil where it does not.
    private func fault(of context: UnsafeMutablePointer<ibv_context>, flags: UInt32, _ record: DeviceRecord) -> String?
    {
        guard flags & RDMA_CONTEXT_FOREIGN.rawValue == 0 else { return nil }
        guard context.pointee.device == record.pointer.pointee.device else {
            return "its context is of another device"
        }
        guard let verbs = verbs_get_ctx(context), verbs.pointee.sz >= rdma_oldest_verbs_context() else {
            return "its context is not a struct verbs_context of rdma-core 44 or later (rdma_init_context makes one)"
        }
        return nil
    }
}

/// The positive errno value: some providers return negative ones.
func positive(_ error: Int32) -> Int32 {
    error == .min ? EIO : abs(error)
}

extension rdma_reason {
    /// Room for a reason.
    static var empty: rdma_reason {
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
        return why
    }
}

extension UnsafePointer<rdma_provider> {
    /// Whether the provider was built with a header that has this field (`RDMA_PROVIDES`).
    func provides<Field>(_ field: KeyPath<rdma_provider, Field>) -> Bool {
        Int(pointee.size) >= MemoryLayout<rdma_provider>.offset(of: field)! + MemoryLayout<Field>.size
    }
}

/// The message for a kernel driver whose ABI version lies outside a range.
func unsupported(_ device: DeviceDescription, by window: ClosedRange<UInt32>) -> String {
    "does not support kernel ABI \(device.kernelABI) of \(device.name) "
        + "(supports \(window.lowerBound) to \(window.upperBound))"
}

/// A failure to load a provider, or to serve a device with it.
struct LoadFailure: Error {
    let rule: Verdict.Rule
    /// An errno value.
    let code: Int32
    /// The reason, as a sentence whose subject is the provider ("it refuses this core").
    let message: String

    init(_ rule: Verdict.Rule, _ code: Int32, _ message: String) {
        self.rule = rule
        self.code = code
        self.message = message
    }
}
