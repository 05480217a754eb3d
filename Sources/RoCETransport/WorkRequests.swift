/// A RoCEv2 GID (`union ibv_gid`): an IPv6 address, or an IPv4 address as ::ffff:a.b.c.d (RoCEv2 annex A17.4.1.1).
@frozen
public struct GID: Hashable, Sendable, BitwiseCopyable {
    /// Bytes 0 to 7 as one big-endian number (`ibv_gid.global.subnet_prefix`).
    public var high: UInt64
    /// Bytes 8 to 15 as one big-endian number (`ibv_gid.global.interface_id`).
    public var low: UInt64

    /// Creates a GID (`union ibv_gid`) from its two halves.
    @inlinable
    public init(high: UInt64 = 0, low: UInt64 = 0) {
        self.high = high
        self.low = low
    }

    /// Creates the GID of an IPv4 address (RoCEv2 annex A17.4.1.1), the first octet in the top bits of `ipv4`.
    @inlinable
    public init(ipv4: UInt32) { self.init(high: 0, low: 0xFFFF_0000_0000 | UInt64(ipv4)) }

    /// Reads the 16 bytes of an `ibv_gid`, which need no alignment; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(
            high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
}

/// The path of the packets of a connection or of a datagram: a resolved `struct ibv_ah_attr`. The engine compares the
/// two addresses with those of packets that arrive, and returns the other fields with each packet to send.
@frozen
public struct Path: Hashable, Sendable, BitwiseCopyable {
    /// The local GID: the one at `ibv_ah_attr.grh.sgid_index`.
    public var source: GID
    /// The GID of the peer (`ibv_ah_attr.grh.dgid`).
    public var destination: GID
    /// A value for the caller, such as the link, socket or route of this path, without a counterpart in
    /// `struct ibv_ah_attr`. With 0, RC queue pairs with the same destination share a window
    /// (`Configuration.maximumPathWindow`); another value is for a link that loses no packets, such as `sameHost`.
    public var tag: UInt64
    /// The flow label, 20 bits (`ibv_ah_attr.grh.flow_label`); the caller derives the UDP source port from it.
    public var flowLabel: UInt32
    /// The traffic class of IPv6 or type of service of IPv4 (`ibv_ah_attr.grh.traffic_class`).
    public var trafficClass: UInt8
    /// The hop limit of IPv6 or time to live of IPv4 (`ibv_ah_attr.grh.hop_limit`).
    public var hopLimit: UInt8
    /// The service level, 0 to 15 (`ibv_ah_attr.sl`).
    public var serviceLevel: UInt8
    /// The index of `source` in the port's GID table (`ibv_ah_attr.grh.sgid_index`).
    public var sourceIndex: UInt8

    /// The tag of a path to an engine of the same host: one-sided requests are executed directly where it is in
    /// `Engine.neighbors`.
    @inlinable public static var sameHost: UInt64 { 1 }

    /// Creates a path (`struct ibv_ah_attr`) between two GIDs.
    @inlinable
    public init(
        source: GID, destination: GID, tag: UInt64 = 0, flowLabel: UInt32 = 0, trafficClass: UInt8 = 0,
        hopLimit: UInt8 = 64, serviceLevel: UInt8 = 0, sourceIndex: UInt8 = 0
    ) {
        self.source = source
        self.destination = destination
        self.tag = tag
        self.flowLabel = flowLabel
        self.trafficClass = trafficClass
        self.hopLimit = hopLimit
        self.serviceLevel = serviceLevel
        self.sourceIndex = sourceIndex
    }
}

/// A scatter/gather element (SGE). It has the layout of `struct ibv_sge` of verbs.h, so that a provider passes
/// an `sg_list` unchanged.
@frozen
public struct SGE: Hashable, Sendable, BitwiseCopyable {
    /// The address in the memory region (`ibv_sge.addr`); for inline data, an address of this process.
    public var address: UInt64
    /// The length in bytes (`ibv_sge.length`). The L_Key of an SGE of length 0 is ignored.
    public var length: UInt32
    /// The L_Key of the memory region (`ibv_sge.lkey`).
    public var lkey: UInt32

    /// Creates an SGE (`struct ibv_sge`).
    @inlinable
    public init(address: UInt64, length: UInt32, lkey: UInt32) {
        self.address = address
        self.length = length
        self.lkey = lkey
    }
}

/// A completion queue entry (CQE). It has the layout of `struct ibv_wc` of verbs.h, field by field, 48 bytes.
@frozen
public struct WorkCompletion: Hashable, Sendable, BitwiseCopyable {
    /// The `wr_id` of the work request (`ibv_wc.wr_id`).
    public var id: UInt64 = 0
    /// The status (`ibv_wc.status`). For an error only `id`, `vendorError` and `queuePairNumber` of the other fields
    /// are valid.
    public var status: CompletionStatus = .success
    /// The operation (`ibv_wc.opcode`).
    public var opcode: CompletionOpcode = .send
    /// The syndrome of the AETH of the NAK for an error that the peer reported; otherwise 0 (`vendor_err`).
    public var vendorError: UInt32 = 0
    /// The bytes received, for UD with the 40 bytes of the GRH area, or returned by a READ or an atomic (`byte_len`).
    public var byteCount: UInt32 = 0
    /// The immediate data in network order (`imm_data`), valid with the flag `.withImmediate`; or the R_Key that was
    /// invalidated (`invalidated_rkey`), valid with `.withInvalidate`.
    public var immediate: UInt32 = 0
    /// The QPN of the local queue pair (`qp_num`).
    public var queuePairNumber: UInt32 = 0
    /// UD receives: the QPN of the sender (`src_qp`).
    public var sourceQueuePairNumber: UInt32 = 0
    /// Flags (`wc_flags`).
    public var flags: CompletionFlags = []
    /// The index of the packet's P_Key (`pkey_index`).
    public var pkeyIndex: UInt16 = 0
    /// The source LID (`ibv_wc.slid`): 0 on RoCE.
    public var sourceLID: UInt16 = 0
    /// The service level of the path; of a datagram, the network header: `Engine.networkType` (`ibv_wc.sl`).
    public var serviceLevel: UInt8 = 0
    /// The destination LID path bits (`dlid_path_bits`): 0 on RoCE.
    public var destinationPathBits: UInt8 = 0

    /// Creates a completion (`struct ibv_wc`) of zeros: a successful SEND with `id` 0.
    @inlinable
    public init() {}
}
