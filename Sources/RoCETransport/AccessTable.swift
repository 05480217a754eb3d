import RoCEWire
import Synchronization

/// The memory in which an engine tells the other engines of its host who may access which of its memory: its RC queue
/// pairs and its memory regions. With it, a requester executes one-sided requests itself (`Neighbor`), without a packet
/// and without the help of the process that owns the memory, and a responder reads the data of a long SEND where it is
/// (`Reference`).
///
/// The owner writes; others map it and only read. They check every value that they use, since they do not trust it.
///
/// | page | contents |
/// |------|----------|
/// | 0    | `layout`, the log2 of the number of queue pairs (byte 8), two values for the caller (bytes 16 and 24), and at byte 64 a bit for each page that has memory |
/// | 1 …  | queue pairs, by the low bits of their QPN, 32 bytes each |
/// | …    | memory regions, by the top 16 bits of their key, 64 bytes each |
///
/// | queue pair | field | | memory region | field |
/// |------|-------|-|------|-------|
/// | 0-3   | the QPN; 0: no access  | | 0-3   | the key; 0: no access |
/// | 4-7   | the QPN of its peer    | | 4-7   | the protection domain |
/// | 8-9   | the protection domain  | | 8-11  | the accesses that it allows |
/// | 10-11 | the grant (`QueuePairStorage.grantNumber`) | |   |  |
/// | 12-15 | the accesses that it allows | | 12-15 | the number of its shared memory; 0: none |
/// | 16-31 | the GID of its peer    | | 16-23 | the address of the first byte in requests (`iova`) |
/// |       |                        | | 24-31 | the length in bytes |
/// |       |                        | | 32-39 | the address of the first byte in the owner's process |
/// |       |                        | | 40-47 | the offset of the first byte in the shared memory |
public struct AccessTable {
    let memory: UnsafeMutableRawPointer
    let indexBits: UInt32
    private let descriptor: Int32
    private let reserve: Reserve

    /// Reserves memory for bytes of the table, so that writing to it cannot fail later: the descriptor of the table,
    /// offset and length. Returns false when that fails.
    public typealias Reserve = @convention(c) @Sendable (Int32, UInt64, UInt64) -> Bool

    /// A number for this layout.
    static let layout: UInt64 = 0x7264_6D61_0000_0002
    static let pageByteCount = 4096
    static let queuePairByteCount = 32
    static let regionByteCount = 64
    static let bitsOffset = 8
    /// The offset of the first of the two values for the caller; the other one follows.
    public static let noteOffset = 16
    static let presentOffset = 64

    /// The bytes of the table of an engine with this many queue pairs. Most of it is never written, and takes no
    /// memory.
    public static func byteCount(maximumQueuePairs: UInt32) -> Int {
        pageByteCount + max(Int(maximumQueuePairs), 128) * queuePairByteCount
            + Int(MemoryKeyTable.maximumCount) * regionByteCount
    }

    /// Creates the table in zeroed memory of `byteCount(maximumQueuePairs:)` bytes, whose first page is reserved.
    /// - Parameters:
    ///   - maximumQueuePairs: As in the configuration of the engine.
    ///   - descriptor: Passed to `reserve`.
    ///   - note: Two values that readers get.
    ///   - reserve: Called before a page is written for the first time.
    public init(
        _ memory: UnsafeMutableRawPointer, maximumQueuePairs: UInt32, descriptor: Int32, note: (UInt64, UInt64),
        reserve: @escaping Reserve
    ) {
        self.memory = memory
        self.descriptor = descriptor
        self.reserve = reserve
        indexBits = UInt32(max(maximumQueuePairs, 128).trailingZeroBitCount)
        memory.storeBytes(of: note.0, toByteOffset: Self.noteOffset, as: UInt64.self)
        memory.storeBytes(of: note.1, toByteOffset: Self.noteOffset + 8, as: UInt64.self)
        memory.storeBytes(of: UInt64(indexBits), toByteOffset: Self.bitsOffset, as: UInt64.self)
        AccessTable.word64(memory).pointee.store(Self.layout, ordering: .releasing)
    }

    @inline(__always)
    static func word(_ address: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt32>> {
        address.assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    @inline(__always)
    static func word64(_ address: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt64>> {
        address.assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    @inline(__always)
    static func offset(ofQueuePair index: UInt32) -> Int { pageByteCount &+ Int(index) &* queuePairByteCount }

    @inline(__always)
    static func offset(ofRegion index: UInt32, indexBits: UInt32) -> Int {
        pageByteCount &+ queuePairByteCount &<< Int(indexBits) &+ Int(index) &* regionByteCount
    }

    /// Whether the page with this offset has memory.
    @inline(__always)
    static func isPresent(_ offset: Int, in memory: UnsafeMutableRawPointer) -> Bool {
        let page = UInt(bitPattern: offset) / UInt(pageByteCount)
        let bits = word64(memory + presentOffset + Int(bitPattern: page / 64 * 8)).pointee.load(ordering: .acquiring)
        return bits & 1 &<< UInt64(page) != 0
    }

    /// The entry at this offset, after its page got memory; nil when it gets none.
    private func entry(_ offset: Int) -> UnsafeMutableRawPointer? {
        if !Self.isPresent(offset, in: memory) {
            let page = offset / Self.pageByteCount
            guard reserve(descriptor, UInt64(page * Self.pageByteCount), UInt64(Self.pageByteCount)) else {
                return nil
            }
            let bits = Self.word64(memory + Self.presentOffset + page / 64 * 8)
            bits.pointee.bitwiseOr(1 << UInt64(page % 64), ordering: .releasing)
        }
        return memory + offset
    }

    /// Writes the entry of a queue pair; without a peer, no access is allowed any more.
    func write(queuePair number: UInt32, _ grant: QueuePairGrant?) {
        let offset = Self.offset(ofQueuePair: number & (1 << indexBits &- 1))
        if grant == nil && !Self.isPresent(offset, in: memory) { return }
        guard let entry = entry(offset) else { return }
        Self.word(entry).pointee.store(0, ordering: .sequentiallyConsistent)
        guard let grant else { return }
        entry.storeBytes(of: grant.peer, toByteOffset: 4, as: UInt32.self)
        entry.storeBytes(of: UInt16(truncatingIfNeeded: grant.protectionDomain), toByteOffset: 8, as: UInt16.self)
        entry.storeBytes(of: grant.number, toByteOffset: 10, as: UInt16.self)
        entry.storeBytes(of: grant.access.rawValue, toByteOffset: 12, as: UInt32.self)
        entry.storeBytes(of: grant.peerGID, toByteOffset: 16, as: GID.self)
        Self.word(entry).pointee.store(number, ordering: .releasing)
    }

    /// Writes the entry of a memory region.
    func write(_ region: MemoryRegion) {
        guard let entry = entry(Self.offset(ofRegion: region.key >> 16, indexBits: indexBits)) else { return }
        Self.word(entry).pointee.store(0, ordering: .sequentiallyConsistent)
        entry.storeBytes(of: region.protectionDomain, toByteOffset: 4, as: UInt32.self)
        entry.storeBytes(of: region.access.rawValue, toByteOffset: 8, as: UInt32.self)
        entry.storeBytes(of: region.sharedMemory, toByteOffset: 12, as: UInt32.self)
        entry.storeBytes(of: region.virtualAddress, toByteOffset: 16, as: UInt64.self)
        entry.storeBytes(of: region.length, toByteOffset: 24, as: UInt64.self)
        entry.storeBytes(of: UInt64(region.base), toByteOffset: 32, as: UInt64.self)
        entry.storeBytes(of: region.sharedOffset, toByteOffset: 40, as: UInt64.self)
        Self.word(entry).pointee.store(region.key, ordering: .releasing)
    }

    /// Ends the access to a memory region. Requesters that are inside an access may not have noticed: see `Hazard`.
    func withdraw(key: UInt32) {
        let offset = Self.offset(ofRegion: key >> 16, indexBits: indexBits)
        guard Self.isPresent(offset, in: memory) else { return }
        Self.word(memory + offset).pointee.store(0, ordering: .sequentiallyConsistent)
    }
}

/// What the entry of a queue pair grants to its peer.
struct QueuePairGrant {
    var peer: UInt32
    var peerGID: GID
    var protectionDomain: UInt32
    var number: UInt16
    var access: AccessFlags
}

// MARK: - The engine that owns the memory

extension Engine {
    /// Begins to write the table of this engine, for requesters of this host. `isLocal` as in `republishQueuePairs`.
    public borrowing func publish(_ table: AccessTable, isLocal: (GID) -> Bool = { _ in true }) {
        core.pointee.accessTable = table
        var index: UInt32 = 0
        while let region = core.pointee.keys.nextRegion(from: &index) { core.pointee.publish(region) }
        republishQueuePairs(isLocal)
    }

    /// Writes the entries of all queue pairs again, and grants access only to the queue pairs whose local GID satisfies
    /// `isLocal`.
    public borrowing func republishQueuePairs(_ isLocal: (GID) -> Bool) {
        guard core.pointee.accessTable != nil else { return }
        for index in 0..<1 << Int(core.pointee.indexBits) {
            guard let pair = core.pointee.queuePairs[index] else { continue }
            pair.pointee.isSourceLost = !isLocal(pair.pointee.attributes.path.source)
            core.pointee.publish(pair)
        }
    }

    /// Ends the access of requesters of this host to a memory region, before it is deregistered or replaced. Packets with its
    /// key are served as before. A requester can be inside an access that it began before (`Hazard`).
    public borrowing func withdraw(key: UInt32) {
        // Also without a table, which may be made before the region is deregistered.
        core.pointee.keys.region(key)?.pointee.isWithdrawn = true
        core.pointee.accessTable?.withdraw(key: key)
    }

    /// Allows the access again that `withdraw(key:)` ended.
    public borrowing func restore(key: UInt32) {
        guard let region = core.pointee.keys.region(key) else { return }
        region.pointee.isWithdrawn = false
        core.pointee.publish(region)
    }

    /// Ends all access of requesters of this host, before the engine is destroyed.
    public borrowing func withdrawAll() {
        republishQueuePairs { _ in false }
        var index: UInt32 = 0
        while let region = core.pointee.keys.nextRegion(from: &index) {
            core.pointee.accessTable?.withdraw(key: region.pointee.key)
        }
    }
}

extension Core {
    /// Writes the entry of a queue pair to the table, if there is one: after every change of its state, path or access.
    mutating func publish(_ pair: Pair) {
        guard accessTable != nil, pair.pointee.type == .rc else { return }
        guard pair.pointee.grantsAccess else { return endGrant(pair) }
        if pair.pointee.grantNumber == 0 {
            grantCount &+= 1
            if grantCount == 0 { grantCount = 1 }
            pair.pointee.grantNumber = grantCount
        }
        accessTable?.write(queuePair: pair.pointee.number, pair.pointee.grant)
    }

    /// Ends what the entry of a queue pair grants: always before work requests complete in error, whose buffers the
    /// application then uses again.
    mutating func endGrant(_ pair: Pair) {
        pair.pointee.grantNumber = 0
        accessTable?.write(queuePair: pair.pointee.number, nil)
    }

    /// Writes the entry of a memory region to the table, if there is one and it can have one: windows, the null region
    /// and on-demand memory are accessed by packets only.
    func publish(_ region: UnsafeMutablePointer<MemoryRegion>) {
        guard let table = accessTable, region.pointee.kind == .region, !region.pointee.isWithdrawn else { return }
        table.write(region.pointee)
    }
}

extension QueuePairStorage {
    /// Whether the peer may access memory: not before its first packet in RTR, which establishes the communication.
    fileprivate var grantsAccess: Bool {
        guard attributes.path.tag == Path.sameHost, !isSourceLost else { return false }
        switch state {
        case .readyToReceive: return responder.sequence != .awaitingFirst
        case .readyToSend, .sendQueueDrained: return true
        default: return false
        }
    }

    fileprivate var grant: QueuePairGrant {
        // Without responder resources, READs, atomics and FLUSHes are errors, which the responder reports.
        let hasResources = attributes.maxDestinationReadAtomic != 0
        return QueuePairGrant(
            peer: attributes.destinationQPN, peerGID: attributes.path.destination,
            protectionDomain: protectionDomain, number: grantNumber,
            access: hasResources
                ? attributes.access
                : attributes.access.subtracting([.remoteRead, .remoteAtomic, .flushGlobal, .flushPersistent]))
    }
}
