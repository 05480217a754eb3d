import CLinux
import CProviderABI
import ProviderKit
import Synchronization

/// The memory through which others reach an open device: a file that its owner maps whole, and a sender in part. It is
/// sparse: a ring takes memory once a sender uses it.
///
/// | offset | what |
/// |--------|------|
/// | 0      | layout number |
/// | 4      | 1: the owner is gone, or has another mailbox |
/// | 64     | 1: the owner sleeps; whoever has put something in and changes it to 0 rings the bell |
/// | 128    | 256 bits: the slots whose rings are in use |
/// | 4096   | ring of slot 0, then that of slot 1, ... (see `PacketRing`) |
enum MailboxLayout {
    /// Changes with everything that two processes must agree in.
    static let number: UInt32 = 0x5D3A_0001
    static let headerByteCount = 4096
    static let closedOffset = 4
    static let sleepingOffset = 64
    static let activeOffset = 128
    static let byteCount = headerByteCount + Registry.slotCount * PacketRing.strideByteCount

    static func ringOffset(_ slot: Int) -> Int { headerByteCount + slot * PacketRing.strideByteCount }
}

/// The first page of a mailbox, mapped.
struct MailboxHeader {
    private let base: UnsafeMutableRawPointer

    init(_ base: UnsafeMutableRawPointer) { self.base = base }

    /// Maps the first page of the file. Nil when that fails.
    init?(mapping descriptor: Int32) {
        guard let base = linux_map_file(descriptor, 0, MailboxLayout.headerByteCount) else { return nil }
        self.base = base
    }

    func unmap() { linux_unmap(base, MailboxLayout.headerByteCount) }

    func initialize() { base.storeBytes(of: MailboxLayout.number, as: UInt32.self) }

    var isKnown: Bool { base.load(as: UInt32.self) == MailboxLayout.number }

    @inline(__always)
    var closed: UnsafeMutablePointer<Atomic<UInt32>> { PacketRing.word(base + MailboxLayout.closedOffset) }

    @inline(__always)
    var sleeping: UnsafeMutablePointer<Atomic<UInt32>> { PacketRing.word(base + MailboxLayout.sleepingOffset) }

    /// The bits of slots `64 * word` to `64 * word + 63`.
    @inline(__always)
    func active(_ word: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (base + MailboxLayout.activeOffset + word * 8).assumingMemoryBound(to: Atomic<UInt64>.self)
    }

    func setActive(_ slot: Int) { active(slot / 64).pointee.bitwiseOr(1 << UInt64(slot % 64), ordering: .releasing) }

    func clearActive(_ slot: Int) {
        active(slot / 64).pointee.bitwiseAnd(~(1 << UInt64(slot % 64)), ordering: .releasing)
    }
}

/// Our own mailbox: the rings that others have begun to use are mapped one by one.
struct Mailbox: ~Copyable {
    let descriptor: Int32
    let header: MailboxHeader
    /// The bell that wakes us; -1 where nobody could ring it.
    let bell: Int32
    /// Readers of the rings in use: `slots[n]` is whose ring `readers[n]` reads.
    private let readers: UnsafeMutablePointer<PacketRingReader>
    private let rings: UnsafeMutablePointer<UnsafeMutableRawPointer>
    private let slots: UnsafeMutablePointer<Int>
    private(set) var count = 0
    /// The bits of the rings that we read.
    private var known = InlineArray<4, UInt64>(repeating: 0)

    /// A mailbox in the registry, or, without one, in nameless memory: for packets to ourselves. Nil when there is no
    /// memory, or no descriptor left.
    init?(_ registry: borrowing Registry) {
        let descriptor =
            registry.isShared
            ? registry.createMailbox() : linux_memory_file(("swift-rdma soft" as StaticString).cString)
        guard let header = Self.initialize(descriptor) else { return nil }
        if !registry.isShared {
            self.init(descriptor, header, bell: -1)
            return
        }
        let path = registry.bellPath(registry.slot)
        let bell = linux_bell(path)
        path.deallocate()
        guard bell >= 0, registry.publishMailbox() else {
            if bell >= 0 { linux_close(bell) }
            header.unmap()
            linux_close(descriptor)
            return nil
        }
        self.init(descriptor, header, bell: bell)
    }

    private init(_ descriptor: Int32, _ header: MailboxHeader, bell: Int32) {
        self.descriptor = descriptor
        self.header = header
        self.bell = bell
        readers = .allocate(capacity: Registry.slotCount)
        rings = .allocate(capacity: Registry.slotCount)
        slots = .allocate(capacity: Registry.slotCount)
    }

    deinit {
        header.closed.pointee.store(1, ordering: .releasing)
        for index in 0..<count { linux_unmap(rings[index], PacketRing.strideByteCount) }
        header.unmap()
        linux_close(descriptor)
        if bell >= 0 { linux_close(bell) }
        readers.deallocate()
        rings.deallocate()
        slots.deallocate()
    }

    /// Sizes and maps a new file. Nil, with the file closed, when there is no memory for it.
    private static func initialize(_ descriptor: Int32) -> MailboxHeader? {
        guard descriptor >= 0 else { return nil }
        let size = UInt64(MailboxLayout.byteCount)
        guard linux_resize_file(descriptor, size) == 0,
            linux_reserve_file(descriptor, 0, UInt64(MailboxLayout.headerByteCount)) == 0,
            let header = MailboxHeader(mapping: descriptor)
        else {
            linux_close(descriptor)
            return nil
        }
        header.initialize()
        return header
    }

    /// Begins to read the rings that senders have taken into use since the last call.
    @inline(__always)
    mutating func findSenders() {
        for word in 0..<4 {
            let active = header.active(word).pointee.load(ordering: .acquiring)
            if active & ~known[word] != 0 { add(active & ~known[word], word) }
        }
    }

    private mutating func add(_ bits: UInt64, _ word: Int) {
        var rest = bits
        while rest != 0 {
            let slot = word * 64 + rest.trailingZeroBitCount
            rest &= rest &- 1
            let offset = UInt64(MailboxLayout.ringOffset(slot))
            guard let ring = linux_map_file(descriptor, offset, PacketRing.strideByteCount) else { continue }
            rings[count] = ring
            readers[count] = PacketRingReader(ring)
            slots[count] = slot
            count += 1
            known[word] |= 1 << UInt64(slot % 64)
        }
    }

    /// The reader of ring `index`, 0 to `count` - 1; in place.
    @inline(__always)
    func reader(_ index: Int) -> UnsafeMutablePointer<PacketRingReader> { readers + index }

    /// Whether a packet waits anywhere.
    var hasPacket: Bool {
        for index in 0..<count where readers[index].hasPacket { return true }
        for word in 0..<4 where header.active(word).pointee.load(ordering: .acquiring) & ~known[word] != 0 {
            return true
        }
        return false
    }

    /// Gives back the memory of rings whose writers are dead, once all is read.
    mutating func reclaim(_ registry: borrowing Registry) {
        var index = 0
        while index < count {
            let slot = slots[index]
            let ring = rings[index]
            if readers[index].hasPacket || registry.isAlive(slot) || slot == registry.slot {
                index += 1
                continue
            }
            let fd = descriptor
            let header = header
            let isGone = registry.whileVacant(slot) {
                linux_unmap(ring, PacketRing.strideByteCount)
                linux_punch_file(fd, UInt64(MailboxLayout.ringOffset(slot)), UInt64(PacketRing.strideByteCount))
                header.clearActive(slot)
            }
            if isGone { forget(index) } else { index += 1 }
        }
    }

    private mutating func forget(_ index: Int) {
        let slot = slots[index]
        known[slot / 64] &= ~(1 << UInt64(slot % 64))
        count -= 1
        readers[index] = readers[count]
        rings[index] = rings[count]
        slots[index] = slots[count]
    }
}
