import CIBVerbs

/// What the device offers, in one place: `ibv_query_device_ex` reports these numbers and the creating verbs hold to
/// them.
enum Limits {
    static let queuePairs = 4096
    static let workRequests = 16384
    static let scatterGatherElements = 32
    static let inlineBytes = 1024
    static let completionQueues = 4096
    static let completions = 1 << 20
    static let memoryRegions = 1 << 16
    static let memoryRegionBytes = UInt64(1) << 47
    static let protectionDomains = 1 << 16
    static let sharedReceiveQueues = 4096
    static let addressHandles = 1 << 16
    /// READs and atomics that a queue pair may have under way, either side.
    static let readAtomics = 16
    /// IBTA volume 1, 9.7.7: at most 2^31 bytes.
    static let messageBytes = UInt32(1) << 31
    static let gids = 32
    static let completionVectors = 1
    static let timestampMask = UInt64.max
    /// The clock of timestamps is CLOCK_MONOTONIC in nanoseconds: kHz.
    static let clockKilohertz = UInt64(1_000_000)
    /// The default partition, full member: the only P_Key.
    static let partitionKey = UInt16(0xFFFF)
}

/// Path MTU of a network interface: what is left of its MTU after IP, UDP and the longest RoCE headers, rounded down
/// to a power of two from 256 to 4096 (as the Linux kernel's rxe does: 80 bytes).
func pathMTU(interfaceMTU: UInt32) -> ibv_mtu {
    let room = interfaceMTU > 80 ? interfaceMTU - 80 : 0
    switch room {
    case 4096...: return IBV_MTU_4096
    case 2048...: return IBV_MTU_2048
    case 1024...: return IBV_MTU_1024
    case 512...: return IBV_MTU_512
    default: return IBV_MTU_256
    }
}
