/// A driver file: the manifest of one provider library. `Documentation/providers.md` and rdma-driver(5) define
/// its syntax.
public struct DriverFile: Sendable, Hashable {
    /// On what a provider was proved.
    public enum Proof: String, Sendable, Hashable, Codable, CaseIterable {
        /// On the hardware.
        case silicon
        /// On a simulated device only.
        case simulator
    }
}
