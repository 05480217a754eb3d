/// A transport header of fixed length, such as BTH or AETH, that is read from bytes and written to bytes.
///
/// Reserved bits are ignored when reading and written as zero (IBTA volume 1, 5.2).
public protocol WireFormat: Equatable, Sendable, BitwiseCopyable {
    /// The length of the header (BTH, AETH, RETH and so on) on the wire, in bytes.
    static var byteCount: Int { get }

    /// The name of the header, such as BTH, in errors.
    static var part: PacketPart { get }

    /// Reads the header (BTH, AETH, RETH and so on) in network order. `byteCount` bytes must be readable, which is not
    /// checked; they need no alignment.
    init(at bytes: UnsafeRawPointer)

    /// Writes the header (BTH, AETH, RETH and so on) in network order. `byteCount` bytes must be writable, which is not
    /// checked; they need no alignment.
    func emit(at bytes: UnsafeMutableRawPointer)
}

extension WireFormat {
    /// Reads the header (BTH, AETH, RETH and so on) from the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.truncated` when `bytes` is shorter than `byteCount`.
    @inlinable
    public init(parsing bytes: UnsafeRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .truncated(Self.part, needed: Self.byteCount, available: bytes.count)
        }
        self.init(at: start)
    }

    /// Writes the header (BTH, AETH, RETH and so on) to the start of `bytes`, which may be longer.
    /// - Throws: `PacketError.noRoom` when `bytes` is shorter than `byteCount`; nothing is written then.
    @inlinable
    public func emit(into bytes: UnsafeMutableRawBufferPointer) throws(PacketError) {
        guard bytes.count >= Self.byteCount, let start = bytes.baseAddress else {
            throw .noRoom(needed: Self.byteCount, available: bytes.count)
        }
        emit(at: start)
    }
}
