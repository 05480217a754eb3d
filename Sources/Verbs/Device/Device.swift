import CIBVerbs
import CProviderABI
import LibibverbsProvider
import ProviderLoader
import SoftProvider
import SystemPackage

/// An RDMA device of this host that is not open (`struct ibv_device`).
///
/// ``list(from:)`` lists the devices, ``open(extensions:)`` opens one. A device stands for the state of the system at the time of
/// its listing: list again after a device or a driver file was added or removed.
public struct Device: Sendable {
    /// The description of the device, from sysfs or from the provider of a software device.
    public let details: DeviceDescription

    private let snapshot: SystemSnapshot

    init(_ details: DeviceDescription, in snapshot: SystemSnapshot) {
        self.details = details
        self.snapshot = snapshot
    }

    /// Lists the devices of this host (`ibv_get_device_list`): those of the kernel, then those in software. Opens no
    /// device, and no library except those whose driver files say that they list software devices (`list-devices yes` of
    /// rdma-driver(5)). The list needs no `ibv_free_device_list`.
    ///
    /// - Throws: The errno value that kept the devices from being listed, such as `EMFILE`. If some could be listed,
    ///   the others are in ``DeviceList/problems``.
    public static func list(from loader: ProviderLoader = .standard) throws(VerbsError) -> DeviceList {
        let list = DeviceList(loader.snapshot())
        if list.isEmpty, let error = list.error { throw error }
        return list
    }

    /// The device of that name, one of ``list(from:)`` or of ``DeviceList/onRequest``. Opens the same libraries
    /// as ``list(from:)``.
    ///
    /// - Throws: `ENODEV` when there is no such device; the errno value that kept the devices from being listed, such
    ///   as `EMFILE`.
    public static func named(_ name: String, from loader: ProviderLoader = .standard) throws(VerbsError) -> Device {
        let list = DeviceList(loader.snapshot())
        if let device = list[name] { return device }
        if let error = list.error { throw error }
        let names = (list + list.onRequest).map(\.name).joined(separator: ", ")
        throw VerbsError(
            .openDevice, errno: .operationNotSupportedByDevice, object: VerbsObject("device", device: name),
            hint: names.isEmpty ? "this host has no RDMA device" : "there is no such device; there are: \(names)")
    }

    /// Opens the first device that has an active port. Kernel devices go before software devices.
    ///
    /// Without a kernel device that is `soft0` on the loopback interface, which reaches this host only. Use
    /// ``openFirst(reaching:from:)`` for a peer that may be on another host. Only libraries of devices that are tried
    /// are opened.
    ///
    /// - Throws: `ENODEV` when there is none; the error of the first device that could not be opened, when none could;
    ///   the errno value that kept the devices from being listed, such as `EMFILE`.
    public static func openFirst(from loader: ProviderLoader = .standard) throws(VerbsError) -> Context {
        try openFirst(of: DeviceList(loader.snapshot()))
    }

    static func openFirst(of list: DeviceList) throws(VerbsError) -> Context {
        var failure: VerbsError?
        for device in list {
            do throws(VerbsError) {
                let context = try device.open()
                if try context.firstActivePort() != nil { return context }
            } catch {
                failure = failure ?? error
            }
        }
        throw failure ?? list.error
            ?? VerbsError(
                .openDevice, errno: .operationNotSupportedByDevice, object: VerbsObject("device", device: ""),
                hint: "no device has an active port: `verbs devices` lists the devices, `verbs doctor` names the cause")
    }

    /// Selects the provider of the device, as ``open(extensions:)`` does, and returns every candidate with its verdict. Opens the
    /// library of the provider, but not the device.
    public func selectProvider() -> ProviderSelection { snapshot.select(for: details) }

    /// Opens the device with its selected provider (`ibv_open_device`).
    ///
    /// - Throws: The errno value of the provider or of the loader: `EPERM`, `EACCES` (permissions of /dev/infiniband),
    ///   `ENODEV` (the device is gone), `ENOENT` (no provider serves it); `EPERM` also in a child of fork(2) whose parent
    ///   had opened a device.
    /// - Parameter extensions: Names of extensions of the provider that it is to prepare when it opens the device
    ///   (`rdma_open_attr.extensions`); it ignores those it does not know. ``Context/providerExtension(_:version:)``
    ///   returns them.
    public func open(extensions: [String] = []) throws(VerbsError) -> Context {
        try open(preferring: nil, extensions: extensions)
    }

    /// An interface of the provider beyond verbs.h that belongs to the device, by its name and version
    /// (`rdma_provider.query_extension` of rdma_provider.h). Opens the library of the selected provider, but not the
    /// device.
    ///
    /// - Returns: Static data, whose layout the provider's header declares; nil where the provider does not have it.
    public func providerExtension(_ name: String, version: UInt32) -> UnsafeRawPointer? {
        snapshot.queryExtension(name, version: version, of: details)
    }

    /// Opens the device. `Context.addresses()` begins with the GID `preferred`.
    func open(preferring preferred: GID?, extensions: [String] = []) throws(VerbsError) -> Context {
        try Context.refuseInChild(.openDevice, VerbsObject("device", device: name))
        do throws(LoaderError) {
            return Context(
                try snapshot.open(name, extensions: extensions), loader: snapshot.loader, preferred: preferred)
        } catch {
            throw VerbsError(
                .openDevice, errno: Errno(rawValue: error.code), object: VerbsObject("device", device: name),
                hint: error.hint.isEmpty ? error.message : "\(error.message); \(error.hint)")
        }
    }

    /// Name, such as `mlx5_0` or `soft0`: unique on the host (`ibv_get_device_name`).
    public var name: String { details.name }
    /// Node GUID in host byte order; 0 where it is not known (`ibv_get_device_guid`).
    public var guid: UInt64 { details.nodeGUID }
    /// Node type (`ibv_device.node_type`).
    public var nodeType: NodeType { NodeType(rawValue: details.nodeType) }
    /// Transport (`ibv_device.transport_type`).
    public var transportType: TransportType { TransportType(rawValue: details.transportType) }
    /// Whether it is a software device, which exists in userspace only.
    public var isSoftware: Bool { details.kind == .software }
}

extension Device: CustomStringConvertible {
    /// Its name.
    public var description: String { name }
}

extension ProviderLoader {
    /// The loader of this process: `LoaderConfiguration.standard` with the providers that are linked into every program
    /// of this package, `libibverbs` and `soft`.
    public static let standard = ProviderLoader(
        configuration: .standard(builtIn: [
            BuiltInProvider(name: "libibverbs", entry: { LibibverbsProvider.providerEntry(core: $0, why: $1) }),
            BuiltInProvider(name: "soft", entry: { SoftProvider.providerEntry(core: $0, why: $1) }),
        ]))
}
