extension Core {
    mutating func transmit(into buffer: UnsafeMutableRawBufferPointer, now: UInt64) -> OutgoingPacket? { nil }

    mutating func advance(to now: UInt64) {}
}
