import RoCEWire

extension Core {
    mutating func receive(_ packet: UnsafeRawBufferPointer, from source: PacketSource, now: UInt64) {
        counters.receivedPackets &+= 1
    }
}
