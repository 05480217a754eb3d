/// Lists the devices, selects a provider for each and opens devices with it.
///
/// A loader keeps no state: every call takes a snapshot of the devices and the driver files. A library is opened once
/// in the process and is never closed. All calls may come from any thread.
public final class ProviderLoader: Sendable {
    /// The directories, environment and built-in providers of this loader.
    public let configuration: LoaderConfiguration

    /// A loader with that configuration. As long as it lives, the configuration's log handler receives every message of
    /// every provider in this process.
    public init(configuration: LoaderConfiguration) {
        self.configuration = configuration
        if let handler = configuration.logHandler {
            ProcessLog.shared.add(ObjectIdentifier(self), handler)
        }
    }

    deinit {
        ProcessLog.shared.remove(ObjectIdentifier(self))
    }

    /// Reads the devices and the driver files (compare `ibv_get_device_list`). Opens no device, and no library except
    /// those whose driver files say that they list software devices.
    public func snapshot() -> SystemSnapshot { SystemSnapshot(self) }

    /// Takes a snapshot and selects the provider of every device: opens the library that each selection needs, and no
    /// device. Devices that are opened on request only are left out.
    public func survey() -> Survey { snapshot().survey() }

    /// Takes a snapshot and opens the device of that name: `SystemSnapshot.open(_:)`.
    public func open(_ deviceName: String) throws(LoaderError) -> OpenedDevice { try snapshot().open(deviceName) }
}
