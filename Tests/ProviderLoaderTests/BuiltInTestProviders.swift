import CIBVerbs
import CProviderABI
import ProviderLoader
import Synchronization

// Two providers that are linked into the test: one for kernel devices, one that lists a software device.

extension BuiltInProvider {
    /// Replaces the built-in libibverbs: serves every kernel device.
    static let kernelTest = BuiltInProvider(name: "libibverbs") { _, _ in
        BuiltInCalls.kernelEntry.add(1, ordering: .relaxed)
        return kernelProvider
    }

    /// Replaces the built-in soft: lists soft0.
    static let softTest = BuiltInProvider(name: "soft") { _, _ in softProvider }

    /// Refuses every kernel device.
    static let refusingTest = BuiltInProvider(name: "libibverbs") { _, _ in refusingProvider }

    /// Fails to list its devices.
    static let listFailsTest = BuiltInProvider(name: "blind") { core, _ in
        listCore = core
        return listFailsProvider
    }

    /// Lists devices with invalid and with duplicate names.
    static let invalidNamesTest = BuiltInProvider(name: "confused") { _, _ in invalidNamesProvider }
}

enum BuiltInCalls {
    static let kernelEntry = Atomic(0)
}

private func provider(
    _ name: StaticString, _ change: (inout rdma_provider) -> Void = { _ in }
) -> UnsafePointer<rdma_provider> {
    let pointer = UnsafeMutablePointer<rdma_provider>.allocate(capacity: 1)
    var provider = rdma_provider()
    provider.size = UInt32(MemoryLayout<rdma_provider>.size)
    provider.abi_major = UInt16(RDMA_PROVIDER_ABI_MAJOR)
    provider.abi_minor = UInt16(RDMA_PROVIDER_ABI_MINOR)
    provider.name = UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    provider.kernel_abi_max = .max
    provider.open_device = openTestContext
    change(&provider)
    pointer.initialize(to: provider)
    return UnsafePointer(pointer)
}

nonisolated(unsafe) private let kernelProvider = provider("libibverbs")

nonisolated(unsafe) private let softProvider = provider("soft") { provider in
    provider.list_devices = { devices, _, capacity, count in
        var device = rdma_software_device()
        write("soft0", to: &device.name)
        write("lo", to: &device.interface)
        device.ifindex = 1
        device.node_type = 1
        device.transport_type = 0
        device.node_guid = UInt64(0x0200_00ff_fe00_0001).bigEndian
        if capacity > 0 { devices?.pointee = device }
        count?.pointee = 1
        return 0
    }
}

nonisolated(unsafe) private let refusingProvider = provider("libibverbs") { provider in
    provider.probe_device = { _, why in
        rdma_set_reason(why, "there is no C provider for it")
        return 19
    }
}

nonisolated(unsafe) private var listCore: UnsafePointer<rdma_core>?

nonisolated(unsafe) private let listFailsProvider = provider("blind") { provider in
    provider.list_devices = { _, _, _, _ in rdma_explain(listCore, 24, "the kernel does not tell of interfaces") }
}

nonisolated(unsafe) private let invalidNamesProvider = provider("confused") { provider in
    provider.list_devices = { devices, _, capacity, count in
        // More than the loader's first buffer holds, so that it must call list_devices again.
        let total = 40
        for index in 0..<min(Int(capacity), total) {
            var device = rdma_software_device()
            write(index == 0 ? "../etc" : index == 1 ? "soft0" : "confused\(index)", to: &device.name)
            devices?[index] = device
        }
        count?.pointee = UInt32(total)
        return 0
    }
}

private func write<T>(_ text: String, to field: inout T) {
    withUnsafeMutableBytes(of: &field) { $0.copyBytes(from: text.utf8) }
}

nonisolated(unsafe) private let testOps: UnsafePointer<rdma_context_ops> = {
    let pointer = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
    pointer.initialize(to: rdma_context_ops())
    pointer.pointee.size = UInt32(MemoryLayout<rdma_context_ops>.size)
    pointer.pointee.close_context = { context in
        rdma_fini_context(context)
        verbs_get_ctx(context)?.deallocate()
        return 0
    }
    return UnsafePointer(pointer)
}()

private func openTestContext(
    _ device: UnsafePointer<rdma_device>?, _: UnsafePointer<rdma_open_attr>?,
    _ opened: UnsafeMutablePointer<rdma_context>?,
    _: UnsafeMutablePointer<rdma_reason>?
) -> Int32 {
    let verbs = UnsafeMutablePointer<verbs_context>.allocate(capacity: 1)
    verbs.initialize(to: verbs_context())
    opened?.pointee.context = rdma_init_context(verbs, device?.pointee.device, -1, -1, 1)
    opened?.pointee.ops = testOps
    return 0
}
