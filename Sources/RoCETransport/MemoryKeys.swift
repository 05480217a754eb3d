/// A memory region (`struct ibv_mr`), or a memory window (`struct ibv_mw`), whose binding it holds.
struct MemoryRegion {
    /// The key, which is both L_Key and R_Key of a region (`ibv_mr.lkey`, `rkey`) and the R_Key of a window
    /// (`ibv_mw.rkey`); 0 in a free entry.
    var key: UInt32 = 0
    var protectionDomain: UInt32 = 0
    /// The accesses that it allows. A region allows `AccessFlags.local`; a window does not, and one that is not bound
    /// allows nothing.
    var access: AccessFlags = []
    /// Of a region of the kind `.null` or `.onDemand`, whose `access` is empty: the accesses that
    /// `MemoryKeyTable.translateChecked` allows.
    var checkedAccess: AccessFlags = []
    /// The kind of entry.
    var kind = Kind.region
    /// The QPN of the queue pair that a window of type 2 is bound to; 0 for an entry that every queue pair of the
    /// protection domain may use.
    var queuePair: UInt32 = 0
    /// Of a region: the number of windows that are bound to it.
    var windows: UInt32 = 0
    /// Of a bound window: the key of its region, and 0 of one that is not bound.
    var region: UInt32 = 0
    /// The address of the first byte in work requests and packets (`iova`).
    var virtualAddress: UInt64 = 0
    var length: UInt64 = 0
    /// The address of the first byte in this process.
    var base: UInt = 0
    /// The number of the shared memory that the region is a part of, which other processes can map, and the offset of
    /// its first byte in it; 0 for memory of this process alone.
    var sharedMemory: UInt32 = 0
    var sharedOffset: UInt64 = 0
    /// Whether its entry in the access table is removed, before it is deregistered or replaced.
    var isWithdrawn = false
    /// Free entries form a queue, so that an entry stays free as long as possible before it is used again.
    var nextFree: UInt32 = 0
    /// The random part of the key that was valid before.
    var previousSalt: UInt32 = 0

    enum Kind: UInt8 {
        case region, windowOfType1, windowOfType2, null, onDemand
    }

    var isWindow: Bool { kind == .windowOfType1 || kind == .windowOfType2 }

    func with(key: UInt32) -> MemoryRegion {
        var region = self
        region.key = key
        return region
    }

    /// Where a range is in this process; nil when it is not inside the region.
    @inline(__always)
    func place(of address: UInt64, length: UInt64) -> UnsafeMutableRawPointer? {
        // Subtractions that may wrap, compared so that a wrapped one never passes: no addition can overflow.
        let offset = address &- virtualAddress
        guard offset <= self.length, length <= self.length &- offset else { return nil }
        return UnsafeMutableRawPointer(bitPattern: base &+ UInt(offset))
    }
}

/// The memory regions by their keys (L_Key and R_Key; IBTA volume 1, 10.6.3). A key has the index of the entry in the
/// top 16 bits and a random number in the others, so that it does not reveal other keys, and is not valid after its
/// region is deregistered. The application chooses the low 8 bits of a window's key when it binds it (`ibv_inc_rkey`), so that
/// only 8 bits of it are random.
struct MemoryKeyTable {
    static let maximumCount: UInt32 = 1 << 16
    private static let none = UInt32.max

    private var regions: UnsafeMutablePointer<MemoryRegion>
    private var capacity: UInt32
    private var firstFree = none
    private var lastFree = none
    private(set) var count: UInt32 = 0
    /// The check of accesses to regions with on-demand paging.
    let memoryCheck: MemoryCheck?
    /// The pages of the null region; nil before the first one is allocated.
    var nullPages: UnsafeMutableRawPointer?

    init(memoryCheck: MemoryCheck?) {
        self.memoryCheck = memoryCheck
        capacity = 64
        regions = .allocate(capacity: 64)
        regions.initialize(repeating: MemoryRegion(), count: 64)
        // Entry 0 is never used: no key is below 0x10000, and key 0 is never valid.
        for index in 1..<capacity { free(index) }
    }

    func deallocate() {
        regions.deallocate()
        nullPages?.deallocate()
    }

    /// Adds a region.
    /// - Throws: ENOMEM when all 65,535 entries are in use.
    mutating func insert(_ region: MemoryRegion, random: inout KeyedRandom) throws(Errno) -> UInt32 {
        if firstFree == Self.none { try grow() }
        let index = firstFree
        firstFree = regions[Int(index)].nextFree
        if firstFree == Self.none { lastFree = Self.none }
        regions[Int(index)] = region.with(
            key: Self.key(index, after: regions[Int(index)].previousSalt, random: &random))
        count += 1
        return regions[Int(index)].key
    }

    /// Puts a region in the place of the one with this key, whose key it keeps or not.
    /// - Throws: EINVAL when no region has this key; EBUSY while windows are bound to it.
    mutating func replace(
        _ key: UInt32, by region: MemoryRegion, keepsKey: Bool, random: inout KeyedRandom
    ) throws(Errno) -> UnsafeMutablePointer<MemoryRegion> {
        guard let entry = self.region(key) else { throw .invalid }
        guard entry.pointee.windows == 0 else { throw .busy }
        entry.pointee = region.with(
            key: keepsKey ? key : Self.key(key >> 16, after: key & 0xFFFF, random: &random))
        return entry
    }

    /// A key for an entry, whose random part is never the one of the entry's previous key.
    private static func key(_ index: UInt32, after previousSalt: UInt32, random: inout KeyedRandom) -> UInt32 {
        let salt = UInt32(truncatingIfNeeded: random.next() >> 24) & 0xFFFF
        return index << 16 | (salt == previousSalt ? salt ^ 1 : salt)
    }

    /// Removes a region or a window. Returns false when none has this key.
    mutating func remove(_ key: UInt32) -> Bool {
        let index = key >> 16
        guard index < capacity, key != 0, regions[Int(index)].key == key else { return false }
        assert(regions[Int(index)].windows == 0, "windows are bound to the region")
        regions[Int(index)] = MemoryRegion()
        regions[Int(index)].previousSalt = key & 0xFFFF
        free(index)
        count -= 1
        return true
    }

    /// The region with this key; nil when there is none, or when the key is that of a window.
    func region(_ key: UInt32) -> UnsafeMutablePointer<MemoryRegion>? {
        guard let entry = entry(key), !entry.pointee.isWindow else { return nil }
        return entry
    }

    /// The window with this key, whose low 8 bits are ignored: they change when it is bound. Nil when there is none.
    func window(_ key: UInt32) -> UnsafeMutablePointer<MemoryRegion>? {
        let index = key >> 16
        guard index < capacity else { return nil }
        let entry = regions + Int(index)
        return entry.pointee.isWindow && (entry.pointee.key ^ key) & ~windowKeyMask == 0 ? entry : nil
    }

    /// The region or window with this key; nil when there is none.
    func entry(_ key: UInt32) -> UnsafeMutablePointer<MemoryRegion>? {
        let index = key >> 16
        guard index < capacity, key != 0, regions[Int(index)].key == key else { return nil }
        return regions + Int(index)
    }

    /// The first window from entry `index` on, which becomes the entry after it; nil when there is none.
    func nextWindow(from index: inout UInt32) -> UnsafeMutablePointer<MemoryRegion>? {
        while index < capacity {
            let entry = regions + Int(index)
            index += 1
            if entry.pointee.isWindow { return entry }
        }
        return nil
    }

    /// The first region of the kind `.region` from entry `index` on, which becomes the entry after it; nil when there is
    /// none.
    func nextRegion(from index: inout UInt32) -> UnsafeMutablePointer<MemoryRegion>? {
        while index < capacity {
            let entry = regions + Int(index)
            index += 1
            if entry.pointee.key != 0 && entry.pointee.kind == .region { return entry }
        }
        return nil
    }

    /// Whether the key is that of a region whose memory is mapped as a whole.
    @inline(__always)
    func isPlain(_ key: UInt32) -> Bool {
        let index = key >> 16
        return index < capacity && regions[Int(index)].kind == .region
    }

    /// Whether the key is that of a region in memory that other processes of this host can map.
    func isShared(_ key: UInt32) -> Bool {
        let index = key >> 16
        return index < capacity && regions[Int(index)].sharedMemory != 0
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

    /// The memory of `length` bytes at `address` of the region or window with `key`; nil when there is none, when it
    /// belongs to another protection domain or queue pair or does not allow `access`, and when the range is not inside
    /// it.
    /// - Parameters:
    ///   - queuePair: The QPN of the responder that accesses the memory; 0 for an access with an L_Key.
    ///   - access: At least one flag: `.local` or `.localWrite` for an access with an L_Key.
    @inline(__always)
    func translate(
        key: UInt32, protectionDomain: UInt32, queuePair: UInt32 = 0, address: UInt64, length: UInt64,
        access: AccessFlags
    ) -> UnsafeMutableRawPointer? {
        guard
            let region = allowing(access, key: key, protectionDomain: protectionDomain, queuePair: queuePair)
        else {
            return translateChecked(
                key: key, protectionDomain: protectionDomain, address: address, length: length, access: access)
        }
        return region.pointee.place(of: address, length: length)
    }

    /// The same for an access with an L_Key; nil for a key that is not one of plain memory (`isPlain`), too.
    @inline(__always)
    func translatePlain(
        key: UInt32, protectionDomain: UInt32, address: UInt64, length: UInt64, access: AccessFlags
    ) -> UnsafeMutableRawPointer? {
        // No window allows an access with an L_Key.
        allowing(access, key: key, protectionDomain: protectionDomain, queuePair: 0)?.pointee.place(
            of: address, length: length)
    }

    /// The region or window with this key that allows an access; nil when there is none, and for a region whose accesses
    /// `translateChecked` allows.
    @inline(__always)
    private func allowing(
        _ access: AccessFlags, key: UInt32, protectionDomain: UInt32, queuePair: UInt32
    ) -> UnsafeMutablePointer<MemoryRegion>? {
        assert(!access.isEmpty, "an unbound window allows an access that needs no flag")
        let index = key >> 16
        guard index < capacity else { return nil }
        let region = regions + Int(index)
        guard region.pointee.key == key, key != 0, region.pointee.protectionDomain == protectionDomain,
            region.pointee.access.rawValue & access.rawValue == access.rawValue,
            region.pointee.queuePair == 0 || region.pointee.queuePair == queuePair
        else { return nil }
        return region
    }
}

extension Core {
    /// Adds a region under a random key.
    mutating func insertKey(_ region: MemoryRegion) throws(Errno) -> UInt32 {
        let key = try keys.insert(region, random: &random)
        if let entry = keys.region(key) { publish(entry) }
        return key
    }

    /// Adds a region, or puts it in the place of another one. Returns its key.
    mutating func register(_ region: MemoryRegion, _ registration: Registration) throws(Errno) -> UInt32 {
        let (old, keepsKey): (UInt32, Bool)
        switch registration {
        case .new:
            let key = try insertKey(region)
            changeUsers(ofDomain: region.protectionDomain, by: 1)
            return key
        case .keeping(let key): (old, keepsKey) = (key, true)
        case .replacing(let key): (old, keepsKey) = (key, false)
        }
        let oldDomain = keys.region(old)?.pointee.protectionDomain
        let entry = try keys.replace(old, by: region, keepsKey: keepsKey, random: &random)
        if let oldDomain { changeUsers(ofDomain: oldDomain, by: -1) }
        changeUsers(ofDomain: region.protectionDomain, by: 1)
        accessTable?.withdraw(key: old)
        publish(entry)
        return entry.pointee.key
    }
}
