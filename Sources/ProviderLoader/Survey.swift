/// Devices with the selections of their providers: the report of `verbs providers`.
public struct Survey: Sendable, Hashable, Codable {
    /// One selection for each device, in the order of `SystemSnapshot.devices`.
    public var entries: [ProviderSelection]
    /// The providers that list software devices, or could.
    public var listings: [Listing]
    /// Problems that are not of a single device: driver files with errors, ignored settings.
    public var problems: [Problem]
    /// The value of `ProviderLoader.messages` at the end of the survey.
    public var messages: [LogMessage]

    /// The selection for the device of that name; nil where the survey has no such device.
    public subscript(deviceName: String) -> ProviderSelection? {
        entries.first { $0.device.name == deviceName }
    }
}
