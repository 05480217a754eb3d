/// The error of opening a device.
public struct LoaderError: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    /// Name of the device that was asked for.
    public var device: String
    /// An errno value: ENODEV no such device, ENOENT no provider for it, EPERM files of the wrong owner, ELIBBAD or
    /// ENOEXEC a library that does not load, EPROTONOSUPPORT an ABI version that does not fit, EPROTO a provider that
    /// breaks the provider ABI; else the errno value of the provider's `probe_device` or `open_device`.
    public var code: Int32
    /// The reason, as one sentence.
    public var message: String
    /// What the user can try.
    public var hint: String
    /// Every candidate with its verdict.
    public var candidates: [Candidate]

    /// An error about `device`.
    public init(device: String, code: Int32, message: String, hint: String, candidates: [Candidate] = []) {
        self.device = device
        self.code = code
        self.message = message
        self.hint = hint
        self.candidates = candidates
    }

    /// `DEVICE: message; hint`.
    public var description: String {
        "\(device): \(message)" + (hint.isEmpty ? "" : "; \(hint)")
    }
}
