import RoCEWire
import Synchronization

/// A part of a local buffer: `struct iovec` of <sys/uio.h>.
@frozen
public struct MemoryPart: BitwiseCopyable {
    /// The address of the first byte (`iov_base`).
    public var address: UnsafeMutableRawPointer?
    /// The length in bytes (`iov_len`).
    public var byteCount: Int
}

/// Copies between parts of local memory and one range of memory of another process: its process ID, the `MemoryPart`s
/// and their number, the address in that process, and whether to write to it; then the last bytes arrive last. Returns
/// false when not all bytes were copied.
public typealias ForeignCopy = @convention(c) @Sendable (Int32, UnsafeRawPointer, Int32, UInt64, Bool) -> Bool

/// The word with which a requester tells the owner of memory that it is inside an access: the key in the low half, the
/// QPN of the owner's queue pair in the high half; 0 outside. The requester stores it before it reads the owner's table;
/// the owner changes its table before it reads the word. So either the requester finds the access ended, or the owner
/// finds the word, and waits until it changes.
public enum Hazard {
    @inline(__always)
    static func word(queuePair: UInt32, key: UInt32) -> UInt64 { UInt64(queuePair) << 32 | UInt64(key) }

    /// Whether a requester whose word has this value is inside an access to the memory region with this key.
    public static func concerns(_ word: UInt64, key: UInt32) -> Bool {
        UInt32(truncatingIfNeeded: word) == key && key != 0
    }

    /// Whether a requester whose word has this value is inside an access through the queue pair with this QPN.
    public static func concerns(_ word: UInt64, queuePair: UInt32) -> Bool {
        UInt32(truncatingIfNeeded: word >> 32) == queuePair && word != 0
    }
}

/// Memory of a neighbor that is mapped here.
@frozen
public struct SharedMapping {
    /// The number that the neighbor's table names it by; 0: none.
    public var number: UInt32
    /// The address of its first byte here; nil for none.
    public var address: UnsafeMutableRawPointer?
    /// Its length in bytes.
    public var byteCount: UInt64

    /// Creates a `SharedMapping` of no memory.
    public init() {
        number = 0
        address = nil
        byteCount = 0
    }
}

/// Another engine of this host, or this one itself, whose memory the requester accesses directly.
public struct Neighbor {
    /// How the memory of the neighbor is reached that is not mapped here.
    public enum Reach {
        /// It is in this process: addresses of its table are valid here.
        case here
        /// It is in the process with this ID, and `ForeignCopy` may access it.
        case process(Int32, ForeignCopy)
        /// Not at all.
        case none
    }

    /// The places for mappings: a power of two.
    public static var mappingCount: Int { 64 }

    fileprivate let table: UnsafeMutableRawPointer
    fileprivate let indexBits: UInt32
    fileprivate let hazard: UnsafeMutablePointer<Atomic<UInt64>>?
    fileprivate let reach: Reach
    fileprivate let mappings: UnsafeMutablePointer<SharedMapping>?
    /// The two values that the owner of the table gave (`AccessTable.init`).
    public var note: (UInt64, UInt64) {
        (
            table.load(fromByteOffset: AccessTable.noteOffset, as: UInt64.self),
            table.load(fromByteOffset: AccessTable.noteOffset + 8, as: UInt64.self)
        )
    }

    /// Creates a neighbor; nil when the memory has no table of this layout.
    /// - Parameters:
    ///   - table: Its table, mapped for reading.
    ///   - byteCount: The bytes that are mapped.
    ///   - hazard: The word that this engine stores while it accesses the memory (`Hazard`); nil when it is this engine
    ///     itself.
    ///   - reach: How memory is reached that is not mapped.
    ///   - mappings: `mappingCount` places, in which the caller puts mappings by the low bits of their numbers.
    public init?(
        table: UnsafeMutableRawPointer, byteCount: Int, hazard: UnsafeMutablePointer<Atomic<UInt64>>?, reach: Reach,
        mappings: UnsafeMutablePointer<SharedMapping>?
    ) {
        guard byteCount >= AccessTable.pageByteCount,
            AccessTable.word64(table).pointee.load(ordering: .acquiring) == AccessTable.layout
        else { return nil }
        let bits = table.load(fromByteOffset: AccessTable.bitsOffset, as: UInt64.self)
        guard (7...16).contains(bits), AccessTable.byteCount(maximumQueuePairs: 1 << UInt32(bits)) <= byteCount else {
            return nil
        }
        self.table = table
        indexBits = UInt32(bits)
        self.hazard = hazard
        self.reach = reach
        self.mappings = mappings
    }
}

/// The neighbors of an engine by the top bits of their QPNs (`Configuration.qpnPrefix`). Only under the engine's lock.
public struct NeighborTable: @unchecked Sendable {
    // Unchecked: the engine's lock guards the memory behind the pointer.
    let entries: UnsafeMutablePointer<Neighbor?>
    let count: Int

    init(prefixBits: UInt32) {
        count = 1 << Int(prefixBits)
        entries = .allocate(capacity: count)
        entries.initialize(repeating: nil, count: count)
    }

    func deallocate() { entries.deallocate() }

    /// The engine whose QPNs have this prefix; nil where requests are sent as packets.
    public subscript(prefix: Int) -> Neighbor? {
        get { entries[prefix] }
        nonmutating set { entries[prefix] = newValue }
    }
}

extension Engine {
    /// The neighbors, which the caller fills. A neighbor must be removed before its memory is unmapped.
    public var neighbors: NeighborTable { core.pointee.neighbors }
}

// MARK: - Access

/// Memory of a neighbor that a request may access.
enum RemoteMemory {
    case mapped(UnsafeMutableRawPointer)
    case foreign(Int32, ForeignCopy, UInt64)
}

extension Neighbor {
    /// Tells the owner that an access begins. It must end with `leave`.
    @inline(__always)
    func enter(queuePair: UInt32, key: UInt32) {
        guard let hazard else { return }
        // Sequentially consistent: the table is read after the word is visible to the owner.
        _ = hazard.pointee.exchange(Hazard.word(queuePair: queuePair, key: key), ordering: .sequentiallyConsistent)
    }

    @inline(__always)
    func leave() { hazard?.pointee.store(0, ordering: .releasing) }

    /// The memory that a request names; nil when it may not be accessed, or not directly. Between `enter` and `leave`.
    /// - Parameters:
    ///   - pair: The requester, whose peer belongs to the neighbor.
    ///   - access: The one access that the request needs.
    @inline(__always)
    func memory(
        _ pair: Core.Pair, key: UInt32, address: UInt64, length: UInt64, access: AccessFlags
    ) -> RemoteMemory? {
        let number = pair.pointee.attributes.destinationQPN
        let pairOffset = AccessTable.offset(ofQueuePair: number & indexMask)
        let regionOffset = AccessTable.offset(ofRegion: key >> 16, indexBits: indexBits)
        guard AccessTable.isPresent(pairOffset, in: table), AccessTable.isPresent(regionOffset, in: table) else {
            return nil
        }
        let peer = table + pairOffset
        guard AccessTable.word(peer).pointee.load(ordering: .sequentiallyConsistent) == number,
            peer.load(fromByteOffset: 4, as: UInt32.self) == pair.pointee.number,
            peer.load(fromByteOffset: 12, as: UInt32.self) & access.rawValue != 0,
            peer.load(fromByteOffset: 16, as: GID.self) == pair.pointee.attributes.path.source
        else { return nil }
        let region = table + regionOffset
        guard key != 0, AccessTable.word(region).pointee.load(ordering: .sequentiallyConsistent) == key,
            region.load(fromByteOffset: 4, as: UInt32.self) == UInt32(peer.load(fromByteOffset: 8, as: UInt16.self)),
            region.load(fromByteOffset: 8, as: UInt32.self) & access.rawValue != 0
        else { return nil }
        return place(region, address: address, length: length)
    }

    /// The memory of a SEND of the peer; nil when it is not registered, or cannot be read directly. Between `enter` and
    /// `leave`.
    /// - Parameters:
    ///   - pair: The responder, whose peer belongs to the neighbor.
    ///   - grant: The grant number in the reference.
    func source(_ pair: Core.Pair, key: UInt32, address: UInt64, length: UInt64, grant: UInt16) -> RemoteMemory? {
        let regionOffset = AccessTable.offset(ofRegion: key >> 16, indexBits: indexBits)
        guard isGranted(pair, grant), AccessTable.isPresent(regionOffset, in: table) else { return nil }
        let peer = table + AccessTable.offset(ofQueuePair: pair.pointee.attributes.destinationQPN & indexMask)
        let region = table + regionOffset
        guard key != 0, AccessTable.word(region).pointee.load(ordering: .sequentiallyConsistent) == key,
            region.load(fromByteOffset: 4, as: UInt32.self) == UInt32(peer.load(fromByteOffset: 8, as: UInt16.self))
        else { return nil }
        return place(region, address: address, length: length)
    }

    @inline(__always)
    private var indexMask: UInt32 { 1 &<< indexBits &- 1 }

    /// Whether the peer of a queue pair is in the connection that this grant number stands for, and has been since: then none
    /// of its work requests has completed in error.
    func isGranted(_ pair: Core.Pair, _ grant: UInt16) -> Bool {
        let number = pair.pointee.attributes.destinationQPN
        let offset = AccessTable.offset(ofQueuePair: number & indexMask)
        guard AccessTable.isPresent(offset, in: table) else { return false }
        let peer = table + offset
        return AccessTable.word(peer).pointee.load(ordering: .sequentiallyConsistent) == number
            && peer.load(fromByteOffset: 4, as: UInt32.self) == pair.pointee.number
            && peer.load(fromByteOffset: 10, as: UInt16.self) == grant
            && peer.load(fromByteOffset: 16, as: GID.self) == pair.pointee.attributes.path.source
    }

    /// Where a range of a memory region is, if it is inside.
    @inline(__always)
    private func place(_ region: UnsafeMutableRawPointer, address: UInt64, length: UInt64) -> RemoteMemory? {
        // Subtractions that may wrap, compared so that a wrapped one never passes, as in `MemoryKeyTable.translate`.
        let offset = address &- region.load(fromByteOffset: 16, as: UInt64.self)
        let limit = region.load(fromByteOffset: 24, as: UInt64.self)
        guard offset <= limit, length <= limit &- offset else { return nil }
        if case .here = reach {
            let base = region.load(fromByteOffset: 32, as: UInt64.self)
            return UnsafeMutableRawPointer(bitPattern: UInt(base &+ offset)).map { .mapped($0) }
        }
        let shared = region.load(fromByteOffset: 12, as: UInt32.self)
        if shared != 0, let mappings {
            let place = mappings + (Int(shared) & (Neighbor.mappingCount - 1))
            if place.pointee.number == shared, let start = place.pointee.address {
                let first = region.load(fromByteOffset: 40, as: UInt64.self) &+ offset
                guard first <= place.pointee.byteCount, length <= place.pointee.byteCount &- first else { return nil }
                return .mapped(start + Int(bitPattern: UInt(first)))
            }
        }
        guard case .process(let process, let copy) = reach else { return nil }
        return .foreign(process, copy, region.load(fromByteOffset: 32, as: UInt64.self) &+ offset)
    }
}
