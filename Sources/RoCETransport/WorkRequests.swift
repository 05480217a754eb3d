/// A RoCEv2 GID: an IPv6 address, or an IPv4 address as ::ffff:a.b.c.d (RoCEv2 annex A17.4).
@frozen
public struct GID: Hashable, Sendable, BitwiseCopyable {
    /// Bytes 0 to 7 read as one big-endian number.
    public var high: UInt64
    /// Bytes 8 to 15 read as one big-endian number.
    public var low: UInt64

    /// A GID of its two halves.
    @inlinable
    public init(high: UInt64 = 0, low: UInt64 = 0) {
        self.high = high
        self.low = low
    }

    /// The GID of an IPv4 address, the first octet in the top bits of `ipv4`.
    @inlinable
    public init(ipv4: UInt32) { self.init(high: 0, low: 0xFFFF_0000_0000 | UInt64(ipv4)) }

    /// Reads 16 bytes in network order, unchecked and unaligned.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        self.init(
            high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
}

/// Where packets of a connection or of a datagram go: what an `ibv_ah_attr` says, resolved. The engine compares the
/// two addresses with those of packets that arrive; everything else it only hands back with each packet to send.
@frozen
public struct Path: Hashable, Sendable, BitwiseCopyable {
    /// Our address: the GID of the address handle's index.
    public var source: GID
    /// The peer's address.
    public var destination: GID
    /// For the caller: which link, socket or cached route serves this path. Never looked at.
    public var tag: UInt64
    /// IPv6 flow label, 20 bits; the source port is derived from it.
    public var flowLabel: UInt32
    /// IP type of service or traffic class.
    public var trafficClass: UInt8
    /// IP time to live or hop limit.
    public var hopLimit: UInt8
    /// Service level, 0 to 7.
    public var serviceLevel: UInt8
    /// Index of `source` in the port's GID table.
    public var sourceIndex: UInt8

    /// A path between two addresses, everything else as given.
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

/// A piece of local memory: the layout of `struct ibv_sge` of verbs.h, so that a list of those can be handed over.
@frozen
public struct ScatterGatherElement: Hashable, Sendable, BitwiseCopyable {
    /// Address in the region that `key` names (an address of this process for inline data).
    public var address: UInt64
    /// Bytes; 0 is an empty piece whose key is not looked at.
    public var length: UInt32
    /// L_Key of the region.
    public var key: UInt32

    /// A piece of its three fields.
    @inlinable
    public init(address: UInt64, length: UInt32, key: UInt32) {
        self.address = address
        self.length = length
        self.key = key
    }
}

/// A work request for a send queue: what `struct ibv_send_wr` of verbs.h says, flattened. Its pieces of memory are
/// handed over beside it. Fields that the opcode has no use for are not looked at.
@frozen
public struct SendWorkRequest: BitwiseCopyable {
    /// `wr_id`: comes back in the completion.
    public var id: UInt64
    /// The operation.
    public var opcode: WorkRequestOpcode
    /// How to carry it out.
    public var flags: SendFlags
    /// `imm_data` as it lies in memory, that is, in network order.
    public var immediate: UInt32
    /// WRITE, READ and atomics: R_Key of the peer's region.
    public var remoteKey: UInt32
    /// WRITE, READ and atomics: address in that region.
    public var remoteAddress: UInt64
    /// Atomics: what is compared, or what is added.
    public var compareAdd: UInt64
    /// Compare and swap: what is stored.
    public var swap: UInt64
    /// UD: the peer's queue pair number.
    public var remoteQueuePair: UInt32
    /// UD: the peer's Q_Key; with the top bit set the queue pair's own Q_Key is sent (IBTA volume 1, 10.2.5).
    public var remoteQueueKey: UInt32
    /// UD: where the peer is; copied when posted. Null is refused with EINVAL.
    public var path: UnsafePointer<Path>?

    /// A work request whose other fields are zero.
    @inlinable
    public init(id: UInt64, opcode: WorkRequestOpcode, flags: SendFlags = []) {
        self.id = id
        self.opcode = opcode
        self.flags = flags
        immediate = 0
        remoteKey = 0
        remoteAddress = 0
        compareAdd = 0
        swap = 0
        remoteQueuePair = 0
        remoteQueueKey = 0
        path = nil
    }
}

/// A completion: the layout of `struct ibv_wc` of verbs.h, field by field, 48 bytes.
@frozen
public struct WorkCompletion: Hashable, Sendable, BitwiseCopyable {
    /// `wr_id` of the work request.
    public var id: UInt64 = 0
    /// How it ended. Of the other fields only `id`, `vendorError` and `queuePair` count when it failed.
    public var status: CompletionStatus = .success
    /// What it was.
    public var opcode: CompletionOpcode = .send
    /// For an error that the peer named: the syndrome of its AETH; else 0.
    public var vendorError: UInt32 = 0
    /// Bytes received (UD: with the 40 bytes of the GRH area), or read by a READ or an atomic.
    public var byteCount: UInt32 = 0
    /// `imm_data` as it lies in memory, that is, in network order; counts with `.withImmediate`.
    public var immediate: UInt32 = 0
    /// Number of the local queue pair.
    public var queuePair: UInt32 = 0
    /// UD receives: number of the queue pair that sent it.
    public var sourceQueuePair: UInt32 = 0
    /// What else counts.
    public var flags: CompletionFlags = []
    /// Index of the packet's P_Key.
    public var partitionKeyIndex: UInt16 = 0
    /// Always 0 on RoCE.
    public var sourceLID: UInt16 = 0
    /// Service level of the path.
    public var serviceLevel: UInt8 = 0
    /// Always 0 on RoCE.
    public var destinationPathBits: UInt8 = 0

    /// A completion of zeros: a successful SEND with `id` 0.
    @inlinable
    public init() {}
}
