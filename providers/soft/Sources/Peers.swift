import CLinux
import CProviderABI
import ProviderKit
import Synchronization

/// The way to another open device on this host: our ring in its mailbox.
struct Peer: ~Copyable {
    private let header: MailboxHeader
    private let ring: UnsafeMutableRawPointer
    private let bellPath: UnsafeMutablePointer<CChar>
    var writer: PacketRingWriter
    /// Written to since the bell was last looked at.
    var isTouched = false
    /// When its ring was found full; 0 while it is not.
    var fullSince: UInt64 = 0

    /// Takes our ring in the mailbox of a slot into use; `own` is the file of our own mailbox. Nil when nobody is there,
    /// or there is no memory.
    init?(_ registry: borrowing Registry, own: Int32, slot: Int) {
        let isOurs = slot == registry.slot
        guard isOurs || registry.isAlive(slot) else { return nil }
        let descriptor = isOurs ? own : registry.openMailbox(slot)
        guard descriptor >= 0 else { return nil }
        defer { if !isOurs { linux_close(descriptor) } }
        guard linux_file_size(descriptor) == MailboxLayout.byteCount,
            let header = MailboxHeader(mapping: descriptor)
        else { return nil }
        guard header.isKnown, header.closed.pointee.load(ordering: .acquiring) == 0,
            let ring = Self.mapRing(descriptor, registry.slot)
        else {
            header.unmap()
            return nil
        }
        guard let writer = PacketRingWriter(ring) else {
            linux_unmap(ring, PacketRing.strideByteCount)
            header.unmap()
            return nil
        }
        self.header = header
        self.ring = ring
        self.writer = writer
        bellPath = registry.bellPath(slot)
        header.setActive(registry.slot)
    }

    deinit {
        linux_unmap(ring, PacketRing.strideByteCount)
        header.unmap()
        bellPath.deallocate()
    }

    private static func mapRing(_ descriptor: Int32, _ slot: Int) -> UnsafeMutableRawPointer? {
        let offset = UInt64(MailboxLayout.ringOffset(slot))
        let error = linux_reserve_file(descriptor, offset, UInt64(PacketRing.strideByteCount))
        if error == 0 { return linux_map_file(descriptor, offset, PacketRing.strideByteCount) }
        var warning = Sentence("no memory for packets to another process (errno ")
        warning.append(Int(error))
        warning.append("): enlarge /dev/shm")
        warning.log(RDMA_LOG_WARNING)
        return nil
    }

    /// The owner is gone.
    @inline(__always)
    var isClosed: Bool { header.closed.pointee.load(ordering: .relaxed) != 0 }

    /// Whether the owner sleeps and is to be woken: true for one of those who ask.
    @inline(__always)
    mutating func takeSleeper() -> Bool {
        isTouched = false
        // The packet must be visible before we look whether its reader sleeps.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if header.sleeping.pointee.load(ordering: .relaxed) == 0 { return false }
        return header.sleeping.pointee.exchange(0, ordering: .acquiringAndReleasing) != 0
    }

    /// Wakes the owner. False when it turns out to be dead.
    func ring(with socket: Int32) -> Bool { linux_ring_bell(socket, bellPath) }
}

/// Ways to all devices of this host, by slot.
struct Peers: ~Copyable {
    private let peers: UnsafeMutablePointer<UnsafeMutablePointer<Peer>?>
    /// When a slot that could not be reached may be tried again.
    private let retryAt: UnsafeMutablePointer<UInt64>
    /// Slots that were written to.
    private let touched: UnsafeMutablePointer<Int>
    private var touchedCount = 0

    /// How long a slot without anybody is left alone: looking costs system calls.
    private static let retryNanoseconds: UInt64 = 20_000_000

    init() {
        peers = .allocate(capacity: Registry.slotCount)
        peers.initialize(repeating: nil, count: Registry.slotCount)
        retryAt = .allocate(capacity: Registry.slotCount)
        retryAt.initialize(repeating: 0, count: Registry.slotCount)
        touched = .allocate(capacity: Registry.slotCount)
    }

    deinit {
        for slot in 0..<Registry.slotCount { Self.free(peers[slot]) }
        peers.deallocate()
        retryAt.deallocate()
        touched.deallocate()
    }

    private static func free(_ peer: UnsafeMutablePointer<Peer>?) {
        guard let peer else { return }
        peer.deinitialize(count: 1)
        peer.deallocate()
    }

    /// The way to a slot; nil when nobody holds it.
    @inline(__always)
    func peer(
        _ slot: Int, _ registry: borrowing Registry, own: Int32, now: UInt64
    ) -> UnsafeMutablePointer<Peer>? {
        if let peer = peers[slot], !peer.pointee.isClosed { return peer }
        return open(slot, registry, own: own, now: now)
    }

    @inline(never)
    private func open(
        _ slot: Int, _ registry: borrowing Registry, own: Int32, now: UInt64
    ) -> UnsafeMutablePointer<Peer>? {
        close(slot)
        guard now >= retryAt[slot] else { return nil }
        guard let opened = Peer(registry, own: own, slot: slot) else {
            retryAt[slot] = now &+ Self.retryNanoseconds
            return nil
        }
        let peer = UnsafeMutablePointer<Peer>.allocate(capacity: 1)
        peer.initialize(to: opened)
        peers[slot] = peer
        return peer
    }

    /// Forgets the way to a slot.
    func close(_ slot: Int) {
        Self.free(peers[slot])
        peers[slot] = nil
    }

    /// Notes that something was written.
    @inline(__always)
    mutating func touch(_ slot: Int, _ peer: UnsafeMutablePointer<Peer>) {
        if peer.pointee.isTouched { return }
        peer.pointee.isTouched = true
        touched[touchedCount] = slot
        touchedCount += 1
    }

    /// Wakes those who were written to and sleep. True when that is to be us.
    @inline(__always)
    mutating func wakeTouched(own: Int, with socket: Int32) -> Bool {
        var wakeUs = false
        while touchedCount > 0 {
            touchedCount -= 1
            let slot = touched[touchedCount]
            guard let peer = peers[slot], peer.pointee.takeSleeper() else { continue }
            if slot == own { wakeUs = true } else if !peer.pointee.ring(with: socket) { close(slot) }
        }
        return wakeUs
    }
}
