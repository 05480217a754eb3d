/// The selection of the provider of one device.
public struct ProviderSelection: Sendable, Hashable, Codable {
    /// The device.
    public var device: DeviceDescription
    /// All candidates: first those that may serve the device, in the order of their ranks, then the others.
    public var candidates: [Candidate]
    /// Fall-backs that a user should know of although the device is served: the provider of a higher rank, the reason
    /// why it does not serve, and the provider that does.
    public var warnings: [String]
    /// The error that opening the device throws because no provider may serve it; nil where one is chosen.
    public var error: LoaderError?

    /// The candidate that serves the device; nil when none does.
    public var chosen: Candidate? {
        candidates.first { $0.verdict.outcome == .chosen }
    }
}
