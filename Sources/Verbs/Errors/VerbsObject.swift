/// The object of an error: its kind, its number if it has one, and its device.
public struct VerbsObject: Hashable, Sendable, CustomStringConvertible {
    /// The kind of object, such as `queue pair`.
    public let kind: String
    /// The number that identifies it: a QPN, a port, a table index, an lkey.
    public let number: UInt64?
    /// Name of the device that it belongs to; empty where there is none.
    public let device: String

    /// An object of that kind. `kind` is a constant, so that making an error costs no text.
    public init(_ kind: StaticString, number: UInt64? = nil, device: String) {
        self.kind = kind.description
        self.number = number
        self.device = device
    }

    /// Text such as `queue pair 0x11 of soft0`.
    public var description: String {
        let numbered = number.map { "\(kind) 0x" + String($0, radix: 16) } ?? kind
        return device.isEmpty ? numbered : "\(numbered) of \(device)"
    }
}
