import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport
import Synchronization

// One-sided requests between processes of one host, without packets (RoCETransport.Neighbor). Each device that others
// connect to has a table of its memory regions and queue pairs in shared memory, whose descriptor the others get as the
// reply to their ring. Before memory is deregistered or re-registered, the device waits for requesters that are
// inside an access.

/// The table of this device (`RoCETransport.AccessTable`), which is made when the first process needs it.
struct OwnAccessTable: ~Copyable {
    /// The descriptor of its memory; negative: there is no table.
    private(set) var descriptor: Int32 = -1
    private(set) var memory: UnsafeMutableRawPointer?
    /// Whether making it has failed, or faults are injected, which need packets.
    private var isUnavailable = false

    static let byteCount = AccessTable.byteCount(maximumQueuePairs: UInt32(DeviceLimits.queuePairNumbers))

    deinit {
        if let memory { linux_unmap(memory, Self.byteCount) }
        if descriptor >= 0 { linux_close(descriptor) }
    }

    /// Makes the table, if there is none. Returns it when it is new.
    mutating func make(allowed: Bool) -> AccessTable? {
        guard descriptor < 0, !isUnavailable else { return nil }
        guard allowed else {
            isUnavailable = true
            return nil
        }
        let error = linux_make_table(
            ("swift-rdma soft keys" as StaticString).cString, Self.byteCount, &descriptor, &memory)
        guard error == 0, let memory else {
            isUnavailable = true
            warn(error)
            return nil
        }
        // Another process finds out by the second value whether it may read this one's memory.
        let address = UInt64(UInt(bitPattern: memory + AccessTable.noteOffset + 8))
        return AccessTable(
            memory, maximumQueuePairs: UInt32(DeviceLimits.queuePairNumbers), descriptor: descriptor,
            note: (address, linux_random64() | 1), reserve: { linux_reserve_table($0, $1, $2) })
    }

    private func warn(_ error: Int32) {
        var warning = MessageText(
            "no shared memory for the memory keys of this device, so that every request of other processes is a packet: "
        )
        warning.append(error: error)
        if error == EFBIG { warning.append(": RLIMIT_FSIZE is less than 5 MiB; raise `ulimit -f`") }
        warning.log(RDMA_LOG_WARNING)
    }
}

/// The table of another device, mapped for reading.
struct PeerAccessTable: ~Copyable {
    private let memory: UnsafeMutableRawPointer
    private let byteCount: Int
    private let reach: Neighbor.Reach

    /// Maps the table of the device at the other end of a connection. Returns nil, and the errno value in `error`: EINVAL for
    /// a descriptor that is not that of a table.
    init?(descriptor: Int32, connection: Int32, error: inout Int32) {
        var memory: UnsafeMutableRawPointer?
        var byteCount = 0
        error = linux_map_table(descriptor, &byteCount, &memory)
        guard error == 0, let memory else { return nil }
        guard
            let table = Neighbor(table: memory, byteCount: byteCount, hazard: nil, reach: .none, mappings: nil)
        else {
            linux_unmap(memory, byteCount)
            error = EINVAL
            return nil
        }
        self.memory = memory
        self.byteCount = byteCount
        reach = Self.reach(of: linux_local_process(connection), table.note)
    }

    deinit { linux_unmap(memory, byteCount) }

    /// The process may have ended, and its ID be that of another one: so its memory is read at the address of a random value,
    /// which must be there.
    private static func reach(of process: Int32, _ note: (UInt64, UInt64)) -> Neighbor.Reach {
        guard process > 0 else { return .none }
        if process == linux_process() { return .here }
        var value: UInt64 = 0
        let error = linux_read_process(process, note.0, &value, MemoryLayout<UInt64>.size)
        guard error == 0, value == note.1 else {
            if error == EPERM { noteRefusal() }
            return .none
        }
        return .process(process, { linux_copy_process($0, $1, $2, $3, $4) })
    }

    private static func noteRefusal() {
        var note = MessageText(
            "memory of another process may not be accessed (EPERM), so READ and WRITE to it are sent as packets, which is "
        )
        note.append("slower: see kernel.yama.ptrace_scope, or the sandbox's rules for process_vm_readv(2)")
        note.log(RDMA_LOG_INFO)
    }

    /// The device as a neighbor; `ring` is the ring that this device writes to it.
    func neighbor(ring: UnsafeMutableRawPointer, _ mappings: UnsafeMutablePointer<SharedMapping>?) -> Neighbor? {
        Neighbor(
            table: memory, byteCount: byteCount, hazard: PacketRing.hazard(ring), reach: reach, mappings: mappings)
    }
}

/// How long the owner of memory waits for a requester that is inside an access to it. A copy takes milliseconds at most,
/// so that after this time the requester is stopped (SIGSTOP, a debugger). Nanoseconds.
private let longestAccess: UInt64 = 1_000_000_000

extension ContextPointer {
    /// Makes the table of this device if there is none. Under the lock.
    func makeAccessTable() {
        if let table = guarded.pointee.accessTable.make(allowed: sharesMemory) {
            pointee.engine.publish(table) { guarded.pointee.gids.contains($0) }
            guarded.pointee.senders.share(0, guarded.pointee.accessTable.descriptor)
        }
    }

    /// Lets connections of this device to itself access its memory directly. Under the lock.
    func makeOwnNeighbor() {
        guard pointee.engine.neighbors[pointee.slot.number] == nil else { return }
        makeAccessTable()
        guard let memory = guarded.pointee.accessTable.memory else { return }
        pointee.engine.neighbors[pointee.slot.number] = Neighbor(
            table: memory, byteCount: OwnAccessTable.byteCount, hazard: nil, reach: .here, mappings: nil)
    }

    /// Ends the access of other processes to a memory region, and waits until none of them is inside one. Not under the
    /// lock.
    /// - Returns: False when one of them is stopped in the middle of an access. Then the access is as before.
    func endAccess(key: UInt32) -> Bool {
        lockForControl()
        pointee.engine.withdraw(key: key)
        let isPublished = guarded.pointee.accessTable.descriptor >= 0
        unlock()
        guard isPublished, !awaitRequesters({ Hazard.concerns($0, key: key) }) else { return true }
        lockForControl()
        pointee.engine.restore(key: key)
        unlock()
        return false
    }

    /// Ends all access of other processes, and waits until none of them is inside one. Not under the lock.
    func endAllAccess() {
        lockForControl()
        pointee.engine.withdrawAll()
        unlock()
        _ = awaitRequesters { $0 != 0 }
    }

    /// Waits until no other process is inside an access through a queue pair, whose entry was removed from the table.
    /// Not under the lock.
    func awaitRequesters(of queuePair: UInt32) {
        if awaitRequesters({ Hazard.concerns($0, queuePair: queuePair) }) { return }
        var warning = MessageText(
            "a process is stopped in the middle of an access through a queue pair that was reset, moved to ERR or ")
        warning.append("destroyed; when it continues, it may still write to the memory region of its request")
        warning.log(RDMA_LOG_WARNING)
    }

    private func awaitRequesters(_ concerns: (UInt64) -> Bool) -> Bool {
        let start = linux_monotonic_ns()
        var round = 0
        while true {
            lockForControl()
            let isInside = guarded.pointee.senders.areInside(concerns)
            unlock()
            guard isInside else { return true }
            if linux_monotonic_ns() &- start > longestAccess { return false }
            if round < 32 { linux_yield() } else { _ = linux_wait_any(nil, 0, 100_000) }
            round += 1
        }
    }
}
