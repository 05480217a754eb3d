import CIBVerbs
import CLinux
import CProviderABI
import ProviderLoader
import SystemPackage

/// An open device. Everything else is made from it, and keeps it open.
public final class Context: @unchecked Sendable {
    // Unchecked: the pointers never change, and the waist allows calls from any thread.

    /// The public struct of verbs.h, for calls into C.
    public let unsafeRaw: UnsafeMutablePointer<ibv_context>
    /// Name of the device.
    public let deviceName: String
    /// What was known about the device before it was opened.
    public let device: DeviceDescription
    /// Who serves it.
    public let provider: ProviderDescription
    /// What a user should know although the device is open.
    public let warnings: [String]

    /// The provider's control table, with null in every entry that it does not know.
    let table: rdma_context_ops
    /// The same table where the provider keeps it.
    let providerTable: UnsafePointer<rdma_context_ops>
    private let loader: ProviderLoader

    init(_ opened: OpenedDevice, loader: ProviderLoader) {
        unsafeRaw = opened.context
        deviceName = opened.description.name
        device = opened.description
        provider = opened.provider
        warnings = opened.warnings
        providerTable = opened.ops
        var table = rdma_context_ops()
        withUnsafeMutableBytes(of: &table) { bytes in
            let known = min(opened.ops.pointee.size, bytes.count)
            bytes.copyMemory(from: UnsafeRawBufferPointer(start: opened.ops, count: known))
        }
        self.table = table
        self.loader = loader
    }

    deinit {
        guard let close = table.close_context else { return }
        let code = close(unsafeRaw)
        if code != 0 { report("ibv_close_device", object("context"), code) }
    }

    /// Number of completion vectors: interrupts that completion queues can be spread over.
    public var completionVectorCount: Int { Int(unsafeRaw.pointee.num_comp_vectors) }
    /// Whether the device exists in userspace only.
    public var isSoftware: Bool { device.kind == .software }
    /// The transport that the device speaks.
    public var transportType: TransportType { TransportType(rawValue: device.transportType) }
    /// What the device is.
    public var nodeType: NodeType { NodeType(rawValue: device.nodeType) }
}

// MARK: - What every object needs for a call of the control table

extension Context {
    /// Names an object of this device in errors.
    func object(_ kind: StaticString, _ number: (some BinaryInteger)? = UInt64?.none) -> VerbsObject {
        VerbsObject(kind, number: number.map { UInt64(truncatingIfNeeded: $0) }, device: deviceName)
    }

    /// The entry of the control table.
    ///
    /// - Throws: `EOPNOTSUPP` where it is null.
    func entry<Function>(
        _ function: Function?, _ verb: Verb, _ object: @autoclosure () -> VerbsObject
    ) throws(VerbsError) -> Function {
        guard let function else { throw unsupported(verb, object()) }
        return function
    }

    /// The entry that makes an object, provided that the one that destroys it is there as well.
    func entry<Function, Destroy>(
        _ function: Function?, destroyedBy destroy: Destroy?, _ verb: Verb, _ object: @autoclosure () -> VerbsObject
    ) throws(VerbsError) -> Function {
        guard let function, destroy != nil else { throw unsupported(verb, object()) }
        return function
    }

    private func unsupported(_ verb: Verb, _ object: VerbsObject) -> VerbsError {
        VerbsError(
            verb, errno: .notSupported, object: object,
            hint: "the provider \(provider.name) does not implement it; `verbs info` lists what it can")
    }

    /// Throws unless `code`, an errno value, is 0.
    func check(
        _ verb: Verb, _ object: @autoclosure () -> VerbsObject, _ code: Int32,
        advice: (Errno) -> Advice = Advice.general
    ) throws(VerbsError) {
        guard code != 0 else { return }
        // The size of a GID table comes with a negative errno value; all others are positive.
        let errno = Errno(rawValue: abs(code))
        throw VerbsError(verb, errno, object(), advice(errno))
    }

    /// The pointer that `call` answers; its errno when that is null.
    func made<Object>(
        _ verb: Verb, _ object: @autoclosure () -> VerbsObject, advice: (Errno) -> Advice = Advice.general,
        _ call: () -> UnsafeMutablePointer<Object>?
    ) throws(VerbsError) -> UnsafeMutablePointer<Object> {
        linux_set_errno(0)
        if let pointer = call() { return pointer }
        let code = linux_errno()
        let errno = code == 0 ? Errno.ioError : Errno(rawValue: code)
        throw VerbsError(verb, errno, object(), advice(errno))
    }

    /// Destroys an object at the end of its life. A provider that refuses keeps it, and with it everything in
    /// `needs`: memory that the device may still write to must not be freed.
    func destroy(_ verb: Verb, _ object: @autoclosure () -> VerbsObject, keeping needs: [AnyObject?], _ code: Int32) {
        guard code != 0 else { return }
        Context.kept.withLock { $0.append(Kept(objects: needs + [self])) }
        report(verb, object(), code)
    }

    /// What objects need that providers refused to destroy, until the process ends.
    private static let kept = Locked<[Kept]>([])

    private struct Kept: @unchecked Sendable {
        // Unchecked: nobody uses them any more.
        let objects: [AnyObject?]
    }

    /// Tells the log what nobody can catch.
    private func report(_ verb: Verb, _ object: VerbsObject, _ code: Int32) {
        let error = VerbsError(verb, Errno(rawValue: abs(code)), object, .none)
        loader.configuration.logHandler?(
            LogMessage(level: .error, provider: provider.name, text: "\(error); it stays until the process ends"))
    }
}
