/// A header of fixed length as a plain value: read from bytes, written to bytes, and the same bytes come out.
///
/// Reserved bits are ignored when reading and written as zero, as IBTA volume 1, 5.2, asks for.
public protocol WireFormat: Equatable, Sendable, BitwiseCopyable {
    /// Length on the wire in bytes.
    static var byteCount: Int { get }

    /// Which header this is, for messages.
    static var part: PacketPart { get }

    /// Reads the value. Unchecked: `byteCount` bytes at `bytes` must be readable; no alignment is asked for.
    init(at bytes: UnsafeRawPointer)

    /// Writes the value. Unchecked: `byteCount` bytes at `bytes` must be writable; no alignment is asked for.
    func emit(at bytes: UnsafeMutableRawPointer)
}

extension WireFormat {
    /// Reads the value from the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.truncated` when `bytes` is shorter than `byteCount`.
    @inlinable
    public init(parsing bytes: UnsafeRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .truncated(Self.part, needed: Self.byteCount, available: bytes.count)
        }
        self.init(at: start)
    }

    /// Writes the value to the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.noRoom` when `bytes` is shorter than `byteCount`; nothing is written then.
    @inlinable
    public func emit(into bytes: UnsafeMutableRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .noRoom(needed: Self.byteCount, available: bytes.count)
        }
        emit(at: start)
    }
}
