import CSimulator

/// The sender of a message, and the PSN and path MTU of its packets.
struct Origin {
    var queuePair: UInt32
    var lid: UInt16
    /// Source GID, in the order of its bytes.
    var gid: (UInt64, UInt64)
    var serviceLevel: UInt8
    /// PSN of the first packet.
    var psn: UInt32
    /// In bytes.
    var pathMTU: Int

    /// A queue pair of this device.
    init(_ sender: QueuePair, _ device: Device) {
        queuePair = sender.number
        lid = device.lid
        gid = device.gid(0)
        serviceLevel = sender.attributes.address.sl
        psn = sender.sendPSN
        pathMTU = sender.pathMTU
    }

    init(_ message: sim_wire_message) {
        queuePair = message.source_queue_pair
        lid = message.source
        gid = message.source_gid
        serviceLevel = message.service_level
        psn = message.psn
        pathMTU = Int(message.path_mtu)
    }

    /// PSN of the request after a message of `byteCount` bytes.
    func nextPSN(after byteCount: Int) -> UInt32 {
        let packets = max(1, (byteCount + pathMTU - 1) / pathMTU)
        return (psn + UInt32(truncatingIfNeeded: packets)) & 0xFF_FFFF
    }
}

extension QueuePair {
    /// In bytes; of a datagram's queue pair that of the port.
    var pathMTU: Int { attributes.pathMTU == 0 ? 4096 : 128 << Int(attributes.pathMTU) }
}
