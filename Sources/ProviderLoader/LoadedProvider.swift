import CIBVerbs
import CProviderABI
import Glibc

/// A provider whose entry point has answered, and whose answer this core can use.
struct LoadedProvider: @unchecked Sendable {
    // Unchecked: the pointer is to static data of the provider.
    private let provider: UnsafePointer<rdma_provider>
    let name: String
    let version: String
    let vendor: String
    let abi: ABIVersion
    let kernelABI: ClosedRange<UInt32>

    /// Asks an entry point, and checks the answer from its first field on.
    init(entry: BuiltInProvider.EntryPoint) throws(LoadFailure) {
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
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

    /// A provider without `list_devices` is for kernel devices; one with it, for those that it lists.
    var listsDevices: Bool { provider.pointee.list_devices != nil }

    /// The software devices that it lists; throws the errno value.
    func softwareDevices() throws(Errno) -> [rdma_software_device] {
        guard let list = provider.pointee.list_devices else { return [] }
        let stride = MemoryLayout<rdma_software_device>.stride
        var capacity = 16
        // A list that grows while it is read is read again; in the end, what there was room for counts.
        for attempt in 1...4 {
            var devices = [rdma_software_device](repeating: rdma_software_device(), count: capacity)
            var count: UInt32 = 0
            let error = list(&devices, stride, UInt32(capacity), &count)
            guard error == 0 else { throw Errno(code: error) }
            if count <= capacity || attempt == 4 || count > 65536 {
                return Array(devices.prefix(Int(count)))
            }
            capacity = Int(count) + 16
        }
        return []
    }

    /// Asks whether it can serve the device: by its window of kernel ABIs, then by `probe_device`.
    func probe(_ description: DeviceDescription, _ record: DeviceRecord) throws(LoadFailure) {
        if description.kind == .kernel, !kernelABI.contains(description.kernelABI) {
            throw LoadFailure(.kernelABI, EPROTONOSUPPORT, unsupported(description, by: kernelABI))
        }
        guard let probe = provider.pointee.probe_device else { return }
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
        let error = probe(record.pointer, &why)
        guard error == 0 else {
            throw LoadFailure(.probe, positive(error), "it cannot serve \(description.name): \(text(why))")
        }
    }

    /// Opens the device and makes the context safe to use.
    func open(_ record: DeviceRecord) throws(LoadFailure) -> rdma_context {
        var opened = rdma_context()
        opened.size = UInt32(MemoryLayout<rdma_context>.size)
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
        let error = provider.pointee.open_device(record.pointer, &opened, &why)
        guard error == 0 else {
            throw LoadFailure(.open, positive(error), "it does not open the device: \(text(why))")
        }
        guard let context = opened.context, let ops = opened.ops else {
            throw LoadFailure(.open, EPROTO, "it answered success without a context and a control table")
        }
        let closeEnd = MemoryLayout<rdma_context_ops>.offset(of: \.close_context)! + MemoryLayout<Int>.size
        guard ops.pointee.size >= closeEnd, let close = ops.pointee.close_context else {
            throw LoadFailure(.open, EPROTO, "its control table has no close_context")
        }
        if let fault = fault(of: context, flags: opened.flags, record) {
            _ = close(context)
            throw LoadFailure(.open, EPROTO, fault)
        }
        rdma_adopt_context(&opened)
        return opened
    }

    /// Why a context is not what chapter 2 of rdma_provider.h asks for; nil where it is.
    private func fault(of context: UnsafeMutablePointer<ibv_context>, flags: UInt32, _ record: DeviceRecord) -> String?
    {
        guard flags & RDMA_CONTEXT_FOREIGN.rawValue == 0 else { return nil }
        guard context.pointee.device == record.pointer.pointee.device else {
            return "its context is of another device"
        }
        guard let verbs = verbs_get_ctx(context), verbs.pointee.sz >= MemoryLayout<verbs_context>.size else {
            return "its context is not a struct verbs_context of this version of verbs.h"
        }
        return nil
    }

    /// A provider that answers a negative errno value means the positive one.
    private func positive(_ error: Int32) -> Int32 {
        error == .min ? EIO : abs(error)
    }
}

/// The sentence for a kernel driver whose ABI lies outside a window.
func unsupported(_ device: DeviceDescription, by window: ClosedRange<UInt32>) -> String {
    "does not support kernel ABI \(device.kernelABI) of \(device.name) "
        + "(supports \(window.lowerBound) to \(window.upperBound))"
}

/// Why a provider could not be loaded, or could not serve a device.
struct LoadFailure: Error {
    let rule: Verdict.Rule
    /// An errno value.
    let code: Int32
    /// What is wrong; the provider is the subject ("it refuses …").
    let sentence: String

    init(_ rule: Verdict.Rule, _ code: Int32, _ sentence: String) {
        self.rule = rule
        self.code = code
        self.sentence = sentence
    }
}
