/// Why a device could not be opened.
public struct LoaderError: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    /// Name of the device that was asked for.
    public var device: String
    /// An errno value: ENODEV no such device, ENOENT no provider for it, EPERM files of the wrong owner, ELIBBAD or
    /// ENOEXEC a library that does not load, EPROTONOSUPPORT an ABI that does not fit, EPROTO a provider that breaks
    /// the contract; else what the provider's `probe_device` or `open_device` answered.
    public var code: Int32
    /// What is wrong, in one sentence.
    public var sentence: String
    /// What to try.
    public var hint: String
    /// Every candidate, with what became of it.
    public var candidates: [Candidate]

    /// An error about `device`.
    public init(device: String, code: Int32, sentence: String, hint: String, candidates: [Candidate] = []) {
        self.device = device
        self.code = code
        self.sentence = sentence
        self.hint = hint
        self.candidates = candidates
    }

    /// `DEVICE: what is wrong; what to try`.
    public var description: String {
        "\(device): \(sentence)" + (hint.isEmpty ? "" : "; \(hint)")
    }
}
