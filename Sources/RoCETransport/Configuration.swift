import CIBVerbs
import RoCEWire

/// The configuration of an engine: what `ibv_query_device` and `ibv_query_port` report, and the engine's own settings.
/// All fields but the seed have defaults.
@frozen
public struct Configuration: Sendable {
    /// The seed of the random numbers in QPNs, L_Keys and R_Keys: 128 bits, from the system's random source where peers
    /// are not trusted. With a fixed seed every run is the same.
    public var seed: (UInt64, UInt64)
    /// The largest number of queue pairs: 64 to 65,536, rounded up to a power of two (`ibv_device_attr.max_qp`).
    public var maximumQueuePairs: UInt32 = 4096
    /// The top bits of every QPN (`ibv_qp.qp_num`), for hosts where several engines share an IP address.
    public var qpnPrefix: UInt32 = 0
    /// The number of bits of `qpnPrefix`: 0 to 8 of the 24 of a QPN (BTH.DestQP). The bits between prefix and index are
    /// random, and change when an index is used again.
    public var qpnPrefixBits: UInt32 = 0
    /// The port's active MTU in bytes: 256, 512, 1024, 2048 or 4096 (`ibv_port_attr.active_mtu`). A larger path MTU is
    /// refused, and no datagram has a larger payload.
    public var activeMTU: UInt32 = Limits.maxPathMTU
    /// The only P_Key of the port (`ibv_query_pkey`, index 0).
    public var pkey: UInt16 = BTH.defaultPKey
    /// The largest number of unacknowledged packets of an RC queue pair: 1 to 1 << 20 (`RXE_MAX_UNACKED_PSNS` of the
    /// kernel's rxe). After a loss the window is smaller for a while.
    public var maximumWindow: UInt32 = 256
    /// The window of a new connection in packets: 1 to `maximumWindow`. The window is the engine's own congestion
    /// control; neither verbs.h nor IBTA volume 1 has one.
    public var initialWindow: UInt32 = 32
    /// The largest number of unacknowledged packets of all RC queue pairs with one destination GID and a tag of 0
    /// (`Path.tag`): 2 to 1 << 20. After a loss it is smaller for a while.
    public var maximumPathWindow: UInt32 = 1024
    /// That number for a new destination: 2 to `maximumPathWindow`. Packets of 4 KiB then fit in a receive buffer of
    /// Linux' default size (`net.core.rmem_default`, doubled by SO_RCVBUF).
    public var initialPathWindow: UInt32 = 64
    /// The number of packets of a long message after which BTH.A requests an acknowledgement: 1 to `maximumWindow`
    /// (`RXE_MAX_PKT_PER_ACK` of the kernel's rxe).
    public var acknowledgeInterval: UInt32 = 32
    /// The largest number of response packets of one RDMA READ request, a power of two; other values are rounded down. A
    /// longer `IBV_WR_RDMA_READ` is sent as several requests, so that the responses do not overrun the receiver. After
    /// losses the requests are shorter, as the windows are.
    public var readSegment: UInt32 = 64
    /// The number of packets that one queue pair may send in a row while others have packets to send: at least 1. A
    /// setting of the engine's own scheduler.
    public var burst: UInt32 = 8
    /// The number of requests that arrived before an earlier one and are kept until that arrives, of all queue pairs: 0 to
    /// 65,536. Each takes 4.3 KB once so many were kept. With 0 they are dropped, and sent again (IBTA volume 1, 9.7.5.2).
    public var heldRequests: UInt32 = 256
    /// Whether short SENDs take the short path, which has the same effects as the general one and costs less. A test of
    /// that compares both.
    public var usesShortPath = true
    /// The check of each access to memory with on-demand paging (`ibv_device_attr_ex.odp_caps`); nil where such memory
    /// cannot be registered. It is called under the engine's lock.
    public var memoryCheck: MemoryCheck?

    /// Creates the default configuration of an engine with this seed.
    @inlinable
    public init(seed: (UInt64, UInt64)) { self.seed = seed }
}

/// Limits of the engine that do not depend on its configuration, for `ibv_query_device`.
@frozen
public enum Limits {
    /// Work requests per queue (`ibv_device_attr.max_qp_wr`, `max_srq_wr`).
    @inlinable public static var maxWR: UInt32 { 1 << 15 }
    /// SGEs per work request (`ibv_device_attr.max_sge`, `max_srq_sge`).
    @inlinable public static var maxSGE: UInt32 { 32 }
    /// Bytes of inline data (`ibv_qp_cap.max_inline_data`).
    @inlinable public static var maxInlineData: UInt32 { 1024 }
    /// CQEs of a completion queue (`ibv_device_attr.max_cqe`).
    @inlinable public static var maxCQE: UInt32 { 1 << 22 }
    /// Outstanding READs and atomics per queue pair, as requester and as responder
    /// (`ibv_device_attr.max_qp_init_rd_atom`, `max_qp_rd_atom`).
    @inlinable public static var maxReadAtomic: UInt32 { 128 }
    /// Pairs of a queue pair and a multicast group that it is attached to
    /// (`ibv_device_attr.max_total_mcast_qp_attach`).
    @inlinable public static var maxMulticastAttachments: UInt32 { 1 << 16 }
    /// The highest rate limit of a queue pair in kbit/s: 1 Tbit/s (`ibv_packet_pacing_caps.qp_rate_limit_max`).
    @inlinable public static var maxRateLimit: UInt32 { 1_000_000_000 }
    /// Bytes of a message: 2^31 (`ibv_port_attr.max_msg_sz`).
    @inlinable public static var maxMessageSize: UInt64 { 1 << 31 }
    /// Memory regions (`ibv_device_attr.max_mr`).
    @inlinable public static var maxMR: UInt32 { 65_535 }
    /// The smallest path MTU in bytes: 256 (`IBV_MTU_256`).
    @inlinable public static var minPathMTU: UInt32 { 128 << IBV_MTU_256.rawValue }
    /// The largest path MTU in bytes, and so the longest payload of a packet: 4096 (`IBV_MTU_4096`).
    @inlinable public static var maxPathMTU: UInt32 { 128 << IBV_MTU_4096.rawValue }
}

// Ranges of `struct ibv_qp_attr`, for which verbs.h has no constants (ibv_modify_qp(3)).
extension Limits {
    /// The largest `ibv_qp_attr.timeout`: 5 bits (IBTA volume 1, 9.7.6.1.3).
    static var maxTimeout: UInt8 { 31 }
    /// The largest `ibv_qp_attr.retry_cnt`: 3 bits.
    static var maxRetryCount: UInt8 { 7 }
    /// The largest `ibv_qp_attr.rnr_retry`: 3 bits. It means any number of retries.
    static var infiniteRNRRetry: UInt8 { 7 }
    /// The largest `ibv_qp_attr.min_rnr_timer`: 5 bits (IBTA volume 1, 9.7.5.2.8).
    static var maxRNRTimer: UInt8 { 31 }
    /// The only port (`ibv_qp_attr.port_num`).
    static var portNumber: UInt8 { 1 }
    /// The index of the only P_Key of the port (`ibv_qp_attr.pkey_index`).
    static var pkeyIndex: UInt16 { 0 }
}
