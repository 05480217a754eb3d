import ProviderLoader
import SystemPackage

/// The devices of this host at one moment: those of the kernel by name (`mlx5_2` before `mlx5_10`), then those in
/// software.
public struct DeviceList: RandomAccessCollection, Sendable {
    /// The software devices that are opened on request only, by ``Device/named(_:from:)`` or
    /// ``Device/openFirst(reaching:from:)``: `soft_<interface>` for each network interface that is up and has an
    /// address.
    ///
    /// An open device receives packets from its network, so ``Device/openFirst(from:)`` opens none of these. Devices on
    /// the interfaces that `RDMA_SOFT_INTERFACES` names are in the list itself.
    public let onRequest: [Device]
    /// Driver files, devices and settings that could not be used, each with the reason and what to try.
    public let problems: [Problem]

    private let devices: [Device]
    private let snapshot: SystemSnapshot

    package init(_ snapshot: SystemSnapshot) {
        self.snapshot = snapshot
        devices = snapshot.devices.map { Device($0, in: snapshot) }
        onRequest = snapshot.onRequest.map { Device($0, in: snapshot) }
        problems = snapshot.problems
    }

    /// 0.
    public var startIndex: Int { 0 }
    /// The number of devices.
    public var endIndex: Int { devices.count }
    /// The device at that position.
    public subscript(position: Int) -> Device { devices[position] }

    /// The device of that name, which may be one that is opened on request only; nil where there is none.
    public subscript(name: String) -> Device? { (devices + onRequest).first { $0.name == name } }

    /// Selects the provider of each of the devices. Opens the libraries that this needs, and no device.
    package func survey(of devices: some Collection<Device>) -> Survey { snapshot.survey(of: devices.map(\.details)) }

    /// The error that prevented the listing of devices; nil when all are known.
    var error: VerbsError? {
        problems.lazy.compactMap { problem in
            problem.code.map {
                VerbsError(
                    .getDeviceList, errno: Errno(rawValue: $0),
                    object: VerbsObject("the devices of this host", device: ""), hint: problem.description)
            }
        }.first
    }
}
