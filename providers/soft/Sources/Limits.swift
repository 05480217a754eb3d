import CIBVerbs
import RoCETransport

/// The limits of the device, which `ibv_query_device_ex` reports and the creating verbs enforce. The limits of the
/// engine are in `RoCETransport.Limits`.
enum DeviceLimits {
    /// The numbers of queue pairs that the engine has.
    static let queuePairNumbers = 8192
    /// `max_qp`. Three QPNs are reserved: 0 and 1 (management) and the highest (multicast).
    static let queuePairs = queuePairNumbers - 3
    static let completionQueues = 1 << 16
    static let memoryRegionBytes = UInt64(1) << 47
    /// `max_dm_size`: of all device memory of one open device together, in bytes.
    static let deviceMemoryBytes = 1 << 26
    /// The largest `log_align_req` of device memory.
    static let deviceMemoryLogAlignment: UInt32 = 21
    static let protectionDomains = 1 << 16
    static let sharedReceiveQueues = 1 << 16
    /// Those of type IBV_SRQT_XRC, which have a number.
    static let extendedReceiveQueues = 1 << 16 - 1
    static let addressHandles = 1 << 20
    static let gids = 32
    static let completionVectors = 1
    static let multicastGroups = 256
    /// The frequency of the clock of completion timestamps in kHz (`hca_core_clock`): its unit is the nanosecond.
    static let coreClock = UInt64(1_000_000)
    /// The default partition, full member: the only P_Key.
    static let pkey = UInt16(0xFFFF)
}

/// The path MTU of a network interface: its MTU less 80 bytes for IP, UDP and the longest RoCE headers, rounded down to
/// a power of two from 256 to 4096, as in the Linux kernel's rxe.
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

extension ibv_mtu {
    /// The bytes of the five defined values; nil for another.
    var byteCount: UInt32? {
        rawValue >= IBV_MTU_256.rawValue && rawValue <= IBV_MTU_4096.rawValue ? 128 << rawValue : nil
    }

    /// The value for 256, 512, 1024, 2048 or 4096 bytes.
    init(byteCount: UInt32) {
        self = byteCount < 256 ? ibv_mtu(0) : ibv_mtu(UInt32(byteCount.trailingZeroBitCount) - 7)
    }
}
