/// A memory region (`struct ibv_mr`).
struct MemoryRegion {
    /// The key, which is both L_Key and R_Key (`ibv_mr.lkey`, `rkey`); 0 in a free entry.
    var key: UInt32 = 0
    var protectionDomain: UInt32 = 0
    var access: AccessFlags = []
    /// The address of the first byte in work requests and packets (`iova`).
    var virtualAddress: UInt64 = 0
    var length: UInt64 = 0
    /// The address of the first byte in this process.
    var base: UInt = 0
    /// Free entries form a queue, so that an entry stays free as long as possible before it is used again.
    var nextFree: UInt32 = 0
    /// The random part of the key that was valid before.
    var previousSalt: UInt32 = 0
}

/// The memory regions by their keys (L_Key and R_Key; IBTA volume 1, 10.6.3). A key has the index of the entry in the
/// top 16 bits and a random number in the others, so that it does not reveal other keys, and is not valid after its
/// region is deregistered.
struct MemoryKeyTable {
    static let maximumCount: UInt32 = 1 << 16
    private static let none = UInt32.max

    private var regions: UnsafeMutablePointer<MemoryRegion>
    private var capacity: UInt32
    private var firstFree = none
    private var lastFree = none
    private(set) var count: UInt32 = 0

    init() {
        capacity = 64
        regions = .allocate(capacity: 64)
        regions.initialize(repeating: MemoryRegion(), count: 64)
        // Entry 0 is never used: no key is below 0x10000, and key 0 is never valid.
        for index in 1..<capacity { free(index) }
    }

    func deallocate() { regions.deallocate() }

    /// Adds a region.
    /// - Throws: ENOMEM when all 65,535 entries are in use.
    mutating func insert(_ region: MemoryRegion, random: inout KeyedRandom) throws(Errno) -> UInt32 {
        if firstFree == Self.none { try grow() }
        let index = firstFree
        firstFree = regions[Int(index)].nextFree
        if firstFree == Self.none { lastFree = Self.none }
        // The random part is never the one of the entry's previous key.
        let salt = UInt32(truncatingIfNeeded: random.next() >> 24) & 0xFFFF
        var entry = region
        entry.key = index << 16 | (salt == regions[Int(index)].previousSalt ? salt ^ 1 : salt)
        regions[Int(index)] = entry
        count += 1
        return entry.key
    }

    /// Removes a region. Returns false when no region has this key.
    mutating func remove(_ key: UInt32) -> Bool {
        let index = key >> 16
        guard index < capacity, key != 0, regions[Int(index)].key == key else { return false }
        regions[Int(index)] = MemoryRegion()
        regions[Int(index)].previousSalt = key & 0xFFFF
        free(index)
        count -= 1
        return true
    }

    /// The protection domain of the region with this key.
    func domain(of key: UInt32) -> UInt32? {
        let index = key >> 16
        guard index < capacity, key != 0, regions[Int(index)].key == key else { return nil }
        return regions[Int(index)].protectionDomain
    }

    private mutating func grow() throws(Errno) {
        guard capacity < Self.maximumCount else { throw .noMemory }
        let larger = UnsafeMutablePointer<MemoryRegion>.allocate(capacity: Int(capacity * 2))
        larger.moveInitialize(from: regions, count: Int(capacity))
        (larger + Int(capacity)).initialize(repeating: MemoryRegion(), count: Int(capacity))
        regions.deallocate()
        regions = larger
        let old = capacity
        capacity *= 2
        for index in old..<capacity { free(index) }
    }

    private mutating func free(_ index: UInt32) {
        assert(index > 0 && index < capacity && regions[Int(index)].key == 0, "the entry is in use")
        regions[Int(index)].nextFree = Self.none
        if lastFree == Self.none { firstFree = index } else { regions[Int(lastFree)].nextFree = index }
        lastFree = index
    }

    /// The memory of `length` bytes at `address` of the region with `key`; nil when there is no such region, when it
    /// belongs to another protection domain or does not allow `access`, and when the range is not inside it.
    @inline(__always)
    func translate(
        key: UInt32, protectionDomain: UInt32, address: UInt64, length: UInt64, access: AccessFlags
    ) -> UnsafeMutableRawPointer? {
        let index = key >> 16
        guard index < capacity else { return nil }
        let region = regions + Int(index)
        guard region.pointee.key == key, key != 0, region.pointee.protectionDomain == protectionDomain,
            region.pointee.access.rawValue & access.rawValue == access.rawValue
        else { return nil }
        // Subtractions that may wrap, compared so that a wrapped one never passes: no addition can overflow.
        let offset = address &- region.pointee.virtualAddress
        guard offset <= region.pointee.length, length <= region.pointee.length &- offset else { return nil }
        return UnsafeMutableRawPointer(bitPattern: region.pointee.base &+ UInt(offset))
    }
}

extension Core {
    /// Adds a region under a random key.
    mutating func insertKey(_ region: MemoryRegion) throws(Errno) -> UInt32 {
        try keys.insert(region, random: &random)
    }
}
