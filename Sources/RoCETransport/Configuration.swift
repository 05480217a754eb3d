/// What an engine is made with. Everything has a default but the seed.
@frozen
public struct Configuration: Sendable {
    /// Seed of queue pair numbers and memory keys: 128 bits, from the system's random source where peers are not
    /// trusted; a fixed one makes every run the same.
    public var seed: (UInt64, UInt64)
    /// How many queue pairs can exist at once: rounded up to a power of two, 64 to 65,536.
    public var maximumQueuePairs: UInt32 = 4096
    /// The top bits of every queue pair number, for hosts where several engines share an address.
    public var queuePairPrefix: UInt32 = 0
    /// How many bits `queuePairPrefix` takes: 0 to 8. The bits between prefix and index are random and change when a
    /// place is used again.
    public var queuePairPrefixBits: UInt32 = 0
    /// The port's active MTU in bytes: 256, 512, 1024, 2048 or 4096. Path MTUs above it are refused, and no datagram
    /// carries more.
    public var activeMTU: UInt32 = 4096
    /// The port's only P_Key.
    public var partitionKey: UInt16 = 0xFFFF
    /// How many packets an RC queue pair may have unacknowledged: 1 to 1 << 20. After loss it uses less for a while.
    public var maximumWindow: UInt32 = 256
    /// With how many packets in flight a connection begins, and how few loss can bring it down to (at least 2): 1 to
    /// `maximumWindow`.
    public var initialWindow: UInt32 = 32
    /// After how many packets of a long message an acknowledgement is asked for: 1 to `maximumWindow`.
    public var acknowledgeInterval: UInt32 = 32
    /// A READ is asked for in pieces of at most so many packets, so that the answers cannot flood us: at least 1.
    public var readPiece: UInt32 = 64
    /// How many packets in a row one queue pair may send while others wait: at least 1.
    public var burst: UInt32 = 8

    /// The defaults with this seed.
    @inlinable
    public init(seed: (UInt64, UInt64)) { self.seed = seed }
}

/// Limits of the engine that do not depend on its configuration, for `ibv_query_device`.
@frozen
public enum Limits {
    /// Work requests per queue.
    @inlinable public static var workRequests: UInt32 { 1 << 15 }
    /// Pieces of memory per work request.
    @inlinable public static var scatterGatherElements: UInt32 { 32 }
    /// Bytes of inline data.
    @inlinable public static var inlineData: UInt32 { 1024 }
    /// Entries of a completion queue.
    @inlinable public static var completions: UInt32 { 1 << 22 }
    /// READs and atomics outstanding per queue pair, either way.
    @inlinable public static var readAtomics: UInt32 { 16 }
    /// Bytes of a message: 2^31 (IBTA volume 1, 9.7.7).
    @inlinable public static var messageBytes: UInt64 { 1 << 31 }
    /// Memory regions.
    @inlinable public static var memoryRegions: UInt32 { 65_535 }
}
