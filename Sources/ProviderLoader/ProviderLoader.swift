/// Finds the devices, elects a provider for each, loads the elected one and opens devices with it.
///
/// It keeps no state of its own: every call looks afresh at the devices and the driver files. What is loaded is
/// loaded once in the process, and stays. All calls may come from any thread.
public final class ProviderLoader: Sendable {
    /// Where it looks.
    public let configuration: LoaderConfiguration

    /// A loader that looks where `configuration` says.
    public init(configuration: LoaderConfiguration) {
        self.configuration = configuration
    }

    /// Every device with every candidate. Elected libraries are loaded and asked whether they can serve the
    /// device; losing ones are not touched, and no device is opened.
    public func survey() -> Survey {
        Survey(entries: [], problems: [], messages: [])
    }

    /// Opens the device of that name with the provider that is elected for it.
    ///
    /// - Throws: `LoaderError` when there is no such device, when no provider can serve it, or when a critical or
    ///   asked-for one does not.
    public func open(_ deviceName: String) throws(LoaderError) -> OpenedDevice {
        throw LoaderError(
            device: deviceName, code: 19, sentence: "there is no such device", hint: "`verbs devices` lists them")
    }
}
