import CIBVerbs
import CLinux
import CProviderABI
import CProviderCore
import Locking
import ProviderLoader
import SystemPackage

/// An open device (`struct ibv_context`, ibv_open_device(3)). All other objects are made from it and keep it open. It
/// is closed with its last reference (ibv_close_device(3)).
public final class Context: @unchecked Sendable {
    // Unchecked: the pointers never change, and the provider ABI allows calls from any thread.

    /// The public struct of verbs.h, for calls into C.
    public let unsafeRaw: UnsafeMutablePointer<ibv_context>
    /// Name of the device.
    public let deviceName: String
    /// The device's description from before it was opened.
    public let device: DeviceDescription
    /// The provider that serves the device.
    public let provider: ProviderDescription
    /// Warnings of the loader and the provider about the open device.
    public let warnings: [String]

    /// A copy of the provider's control table, with null in every entry that the provider does not have.
    let table: rdma_context_ops
    /// The provider's own control table.
    let providerTable: UnsafePointer<rdma_context_ops>
    /// The GID that `addresses()` lists first: the source GID of the route to the peer that the device was opened for.
    let preferredGID: GID?
    private let loader: ProviderLoader
    private let opened: OpenedDevice

    init(_ opened: OpenedDevice, loader: ProviderLoader, preferred: GID? = nil) {
        self.opened = opened
        preferredGID = preferred
        unsafeRaw = opened.context
        deviceName = opened.description.name
        device = opened.description
        provider = opened.provider
        warnings = opened.warnings
        providerTable = opened.ops
        var table = rdma_context_ops()
        withUnsafeMutableBytes(of: &table) { bytes in
            let known = min(Int(opened.ops.pointee.size), bytes.count)
            bytes.copyMemory(from: UnsafeRawBufferPointer(start: opened.ops, count: known))
        }
        self.table = table
        self.loader = loader
        linux_mark_process()
    }

    deinit {
        if linux_is_forked_child() { return }
        let code = opened.close()
        if code != 0 { report("ibv_close_device", object("context"), code) }
    }

    /// Number of completion vectors: interrupts that completion queues can be spread over
    /// (`ibv_context.num_comp_vectors`).
    public var completionVectorCount: Int { Int(unsafeRaw.pointee.num_comp_vectors) }
    /// Whether the device exists in userspace only.
    public var isSoftware: Bool { device.kind == .software }
    /// The transport type of the device (`ibv_device.transport_type`).
    public var transportType: TransportType { TransportType(rawValue: device.transportType) }
    /// The type of the device (`ibv_device.node_type`).
    public var nodeType: NodeType { NodeType(rawValue: device.nodeType) }
}

// MARK: - Calls of the control table

extension Context {
    /// Names an object of this device in errors.
    func object(_ kind: StaticString, _ number: (some BinaryInteger)? = UInt64?.none) -> VerbsObject {
        VerbsObject(kind, number: number.map { UInt64(truncatingIfNeeded: $0) }, device: deviceName)
    }

    /// The hint of an iWARP device for what needs datagrams; nil for other devices.
    var connectionsOnly: Advice? {
        guard transportType == .iWARP else { return nil }
        return .text(
            "this is an iWARP device, which has reliable connections (RC) only: no other queue pairs, no address handles,"
                + " no multicast")
    }

    /// The entry of the control table.
    ///
    /// - Throws: `EOPNOTSUPP` where it is null.
    func entry<Function>(
        _ function: Function?, _ verb: Verb, _ object: @autoclosure () -> VerbsObject
    ) throws(VerbsError) -> Function {
        try Context.refuseInChild(verb, object())
        guard let function else { throw unsupported(verb, object()) }
        return function
    }

    /// The entry that creates an object. The entry that destroys it must not be null either.
    func entry<Function, Destroy>(
        _ function: Function?, destroyedBy destroy: Destroy?, _ verb: Verb, _ object: @autoclosure () -> VerbsObject
    ) throws(VerbsError) -> Function {
        try Context.refuseInChild(verb, object())
        guard let function, destroy != nil else { throw unsupported(verb, object()) }
        return function
    }

    /// Throws `EPERM` in a child of fork(2): its kernel objects, descriptors and shared memory are the parent's.
    static func refuseInChild(_ verb: Verb, _ object: @autoclosure () -> VerbsObject) throws(VerbsError) {
        guard linux_is_forked_child() else { return }
        throw VerbsError(verb, errno: .notPermitted, object: object(), hint: childAdvice)
    }

    /// The hint of errors in a child of fork(2).
    static let childAdvice =
        "this process is a child of fork(2), and the device belongs to its parent: call exec, and open the device there"

    private func unsupported(_ verb: Verb, _ object: VerbsObject) -> VerbsError {
        VerbsError(
            verb, errno: .notSupported, object: object,
            hint: "the provider \(provider.name) does not implement it; `verbs info` lists what it can")
    }

    /// Throws unless the call of the control table returns 0; any other value is an errno value.
    ///
    /// The provider's message takes precedence over `advice`, which depends on the errno value only.
    func check(
        _ verb: Verb, _ object: @autoclosure () -> VerbsObject, _ call: @autoclosure () -> Int32,
        advice: (Errno) -> Advice = Advice.general
    ) throws(VerbsError) {
        try Context.refuseInChild(verb, object())
        rdma_drop_explanation()
        let code = call()
        if code != 0 { throw failure(verb, object(), code, advice: advice) }
    }

    /// The error of a call that has just returned `code` on this thread.
    func failure(
        _ verb: Verb, _ object: VerbsObject, _ code: Int32, advice: (Errno) -> Advice = Advice.general
    ) -> VerbsError {
        // The size of a GID table comes with a negative errno value; all others are positive.
        let errno = Errno(rawValue: code == .min ? EIO : abs(code))
        return VerbsError(verb, errno, object, Advice.explained(errno) ?? advice(errno))
    }

    /// Returns the pointer that `call` returned, or throws errno when it is null. The provider's message takes
    /// precedence over `advice`.
    func made<Object>(
        _ verb: Verb, _ object: @autoclosure () -> VerbsObject, advice: (Errno) -> Advice = Advice.general,
        _ call: () -> UnsafeMutablePointer<Object>?
    ) throws(VerbsError) -> UnsafeMutablePointer<Object> {
        try Context.refuseInChild(verb, object())
        rdma_drop_explanation()
        linux_set_errno(0)
        if let pointer = call() { return pointer }
        let code = linux_errno()
        guard code != 0 else {
            throw VerbsError(
                verb, errno: .ioError, object: object(),
                hint: "the provider \(provider.name) returned neither an object nor an errno value: report this to"
                    + " its vendor")
        }
        let errno = Errno(rawValue: code)
        throw VerbsError(verb, errno, object(), Advice.explained(errno) ?? advice(errno))
    }

    /// Destroys an object at the end of its life. When the provider refuses, the object and everything in `needs` stay
    /// alive: memory that the device may still write to must not be freed. In a child of fork(2) nothing is destroyed, because
    /// the object is the parent's.
    ///
    /// - Returns: Whether the object is destroyed.
    @discardableResult
    func destroy(
        _ verb: Verb, _ object: @autoclosure () -> VerbsObject, keeping needs: [AnyObject?],
        _ call: @autoclosure () -> Int32
    ) -> Bool {
        if linux_is_forked_child() { return false }
        rdma_drop_explanation()
        let code = call()
        guard code != 0 else { return true }
        Context.kept.withLock { $0.append(Kept(objects: needs + [self])) }
        report(verb, object(), code)
        return false
    }

    /// Destroys an object before the end of its life, and throws when the provider refuses.
    func close(
        _ verb: Verb, _ object: @autoclosure () -> VerbsObject, _ call: @autoclosure () -> Int32
    ) throws(VerbsError) {
        try check(verb, object(), call()) { errno in
            errno == .resourceBusy
                ? .text("other objects still use it: release them first; it is destroyed after the last of them")
                : .general(errno)
        }
    }

    /// The dependencies of objects that providers refused to destroy. They stay until the process ends.
    private static let kept = Locked<[Kept]>([])

    private struct Kept: @unchecked Sendable {
        // Unchecked: the objects are not used any more.
        let objects: [AnyObject?]
    }

    /// Logs an error that no caller can catch.
    private func report(_ verb: Verb, _ object: VerbsObject, _ code: Int32) {
        let error = failure(verb, object, code) { _ in .none }
        ProviderLoader.record(
            LogMessage(level: .error, provider: provider.name, text: "\(error); it stays until the process ends"))
    }
}

extension Advice {
    /// The provider's message about the error that it has just returned on this thread (`rdma_core.explain`).
    static func explained(_ errno: Errno) -> Advice? {
        rdma_explanation(errno.rawValue).map { .text(String(cString: $0)) }
    }
}
