import CIBVerbs
import CProviderABI
import CProviderCore
import Foundation

/// A context that a provider opened without the loader, for tests of the provider itself.
public final class OpenedContext: @unchecked Sendable {
    // Unchecked: the pointers belong to the provider, and the provider ABI allows calls from any thread.

    /// `rdma_provider_entry_function` of rdma_provider.h.
    public typealias EntryPoint =
        @convention(c) (UnsafePointer<rdma_core>?, UnsafeMutablePointer<rdma_reason>?) -> UnsafePointer<rdma_provider>?

    /// The error of a provider.
    public struct Refusal: Error, CustomStringConvertible {
        /// An errno value.
        public let code: Int32
        /// `rdma_reason.text`.
        public let reason: String
        /// The reason with the errno value.
        public var description: String { "\(reason) (errno \(code))" }
    }

    /// A core of this header's version that discards log messages. It is never freed.
    public nonisolated(unsafe) static let core: UnsafePointer<rdma_core> = {
        let core = UnsafeMutablePointer<rdma_core>.allocate(capacity: 1)
        core.initialize(
            to: rdma_core(
                size: UInt32(MemoryLayout<rdma_core>.size), abi_major: UInt16(RDMA_PROVIDER_ABI_MAJOR),
                abi_minor: UInt16(RDMA_PROVIDER_ABI_MINOR), version: UnsafePointer(strdup("test")),
                log: { _, _, _ in }, explain: rdma_keep_explanation, flags: 0, log_level: RDMA_LOG_DEBUG.rawValue,
                kernel: nil))
        return UnsafePointer(core)
    }()

    /// The provider.
    public let provider: UnsafePointer<rdma_provider>
    /// The device that was opened.
    public let device: TestDevice
    /// The context, adopted as by the core.
    public let context: UnsafeMutablePointer<ibv_context>
    /// The control table.
    public let ops: UnsafePointer<rdma_context_ops>

    /// Loads a library, and opens a software device that has only a name.
    public convenience init(library: String, device name: String) throws {
        guard let handle = dlopen(library, RTLD_NOW | RTLD_LOCAL) else {
            throw Refusal(code: ENOENT, reason: String(cString: dlerror()))
        }
        guard let symbol = dlsym(handle, RDMA_PROVIDER_ENTRY_SYMBOL) else {
            throw Refusal(code: ENOENT, reason: "\(library) has no \(RDMA_PROVIDER_ENTRY_SYMBOL)")
        }
        try self.init(entry: unsafeBitCast(symbol, to: EntryPoint.self), device: name, kind: RDMA_DEVICE_SOFTWARE)
    }

    /// Opens a device that has only a name, with the provider of an entry point.
    public init(entry: EntryPoint, device name: String, kind: rdma_device_kind = RDMA_DEVICE_KERNEL) throws {
        var why = OpenedContext.emptyReason
        guard let provider = entry(OpenedContext.core, &why) else {
            throw Refusal(code: ENOSYS, reason: OpenedContext.text(of: why))
        }
        self.provider = provider
        device = TestDevice(name, kind: kind)
        if let probe = provider.pointee.probe_device {
            let error = probe(device.pointer, &why)
            guard error == 0 else { throw Refusal(code: error, reason: OpenedContext.text(of: why)) }
        }
        var opened = rdma_context()
        opened.size = UInt32(MemoryLayout<rdma_context>.size)
        var attributes = rdma_open_attr(
            size: UInt32(MemoryLayout<rdma_open_attr>.size), cmd_fd: -1, extensions: nil, extension_count: 0,
            reserved: 0)
        let error = provider.pointee.open_device(device.pointer, &attributes, &opened, &why)
        guard error == 0 else { throw Refusal(code: error, reason: OpenedContext.text(of: why)) }
        rdma_adopt_context(&opened)
        context = opened.context
        ops = opened.ops
    }

    deinit {
        _ = ops.pointee.close_context(context)
    }

    /// An empty reason, as a caller passes it.
    public static var emptyReason: rdma_reason {
        var why = rdma_reason()
        why.size = UInt32(MemoryLayout<rdma_reason>.size)
        return why
    }

    /// The text of a reason.
    public static func text(of why: rdma_reason) -> String {
        withUnsafeBytes(of: why.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
