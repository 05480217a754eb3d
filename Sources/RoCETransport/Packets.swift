/// What the network layers say about a packet that is handed to `Engine.receive`.
@frozen
public struct PacketSource {
    /// The sender's address.
    public var source: GID
    /// The address that it was sent to.
    public var destination: GID
    /// What a datagram's receiver finds in its GRH area: the 40-byte IPv6 header, or the 20-byte IPv4 header, which
    /// goes behind 20 zero bytes; with any other length the area is 40 zero bytes. Read during the call only.
    public var header: UnsafeRawBufferPointer

    /// A source of its three fields.
    @inlinable
    public init(source: GID, destination: GID, header: UnsafeRawBufferPointer) {
        self.source = source
        self.destination = destination
        self.header = header
    }
}

/// A packet that `Engine.transmit` wrote.
@frozen
public struct OutgoingPacket {
    /// Bytes from the BTH to the end of the ICRC, which is the caller's to fill in: the last four.
    public var byteCount: Int
    /// Where it goes.
    public var path: Path
    /// The sending queue pair's number.
    public var sourceQueuePair: UInt32
    /// The receiving queue pair's number.
    public var destinationQueuePair: UInt32
    /// Of a datagram: it has a path of its own, and any source port of its queue pair serves.
    public var isDatagram: Bool
    /// Its loss costs time and nothing else: a request or READ response on RC that is sent for the first time, of a
    /// queue pair that has timeout and retries. What is sent again is not expendable.
    public var isExpendable: Bool
}
