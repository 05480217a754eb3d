import CLinux
import CProviderABI
import ProviderKit

/// Who is on this host: a directory of this user and network namespace, in which every open device holds one slot. The
/// slot's number is the top byte of its queue pair numbers, so (GID, QPN) is unique on the host, and a packet's
/// destination QP says whom it is for.
///
/// | name | what |
/// |------|------|
/// | `slots`  | byte n is locked by the holder of slot n; the kernel unlocks it when the holder dies |
/// | `box.n`  | the mailbox of slot n (see `Mailbox`) |
/// | `bell.n` | the socket that wakes the holder of slot n |
struct Registry: ~Copyable {
    /// As many as one byte can say.
    static let slotCount = 256

    /// -1 where there is no registry: then we are alone.
    private let directory: Int32
    private let slots: Int32
    private let path: UnsafeMutablePointer<CChar>
    /// The slot that this registration holds.
    let slot: Int

    private static let pathCapacity = 96

    /// Takes a free slot. Where there is no place for a registry, or no slot is free, says so in the log, and takes a
    /// slot in no registry: then nobody finds us, nor we them.
    init() {
        path = .allocate(capacity: Self.pathCapacity)
        path[0] = 0
        let directory = Self.openDirectory(path)
        let slots = directory < 0 ? -1 : linux_private_file(directory, ("slots" as StaticString).cString, 1)
        if slots >= 0, let slot = Self.claim(slots) {
            self.directory = directory
            self.slots = slots
            self.slot = slot
            return
        }
        if directory >= 0 {
            var warning = Sentence("no free slot in ")
            warning.append(path)
            warning.append(": other processes cannot be reached on this host; are 256 devices open?")
            warning.log(RDMA_LOG_WARNING)
            if slots >= 0 { linux_close(slots) }
            linux_close(directory)
        }
        self.directory = -1
        self.slots = -1
        slot = Int(linux_random64() % UInt64(Self.slotCount))
    }

    deinit {
        path.deallocate()
        guard isShared else { return }
        linux_unlock_byte(slots, UInt64(slot))
        linux_close(slots)
        linux_close(directory)
    }

    /// Whether others can find us.
    var isShared: Bool { directory >= 0 }

    private static func openDirectory(_ path: UnsafeMutablePointer<CChar>) -> Int32 {
        let inMemory = linux_private_directory(("/dev/shm" as StaticString).cString, path, pathCapacity)
        if inMemory >= 0 { return inMemory }
        var runtime = Sentence("/run/user/")
        runtime.append(Int(linux_effective_uid()))
        var found: Int32 = -1
        runtime.withCString { found = linux_private_directory($0, path, pathCapacity) }
        if found >= 0 { return found }
        var warning = Sentence("neither /dev/shm nor ")
        runtime.withCString { warning.append($0) }
        warning.append(" can be used (errno ")
        warning.append(Int(-inMemory))
        warning.append("): other processes cannot be reached on this host")
        warning.log(RDMA_LOG_WARNING)
        return -1
    }

    /// Slots are tried from a random one on, so that a number rests before it is used again.
    private static func claim(_ slots: Int32) -> Int? {
        let start = Int(linux_random64() % UInt64(slotCount))
        for offset in 0..<slotCount {
            let slot = (start + offset) % slotCount
            if linux_lock_byte(slots, UInt64(slot)) == 0 { return slot }
        }
        return nil
    }

    /// Whether the holder of another slot is alive.
    func isAlive(_ slot: Int) -> Bool { isShared && linux_byte_is_locked(slots, UInt64(slot)) }

    /// Runs `body` while this registration holds a slot whose holder is dead, so that nobody can take it meanwhile.
    /// False when somebody holds it.
    func whileVacant(_ slot: Int, _ body: () -> Void) -> Bool {
        guard isShared, slot != self.slot, linux_lock_byte(slots, UInt64(slot)) == 0 else { return false }
        body()
        linux_unlock_byte(slots, UInt64(slot))
        return true
    }

    /// Opens the mailbox of a slot: the descriptor, or a negative errno value.
    func openMailbox(_ slot: Int) -> Int32 {
        var name = Sentence("box.")
        name.append(slot)
        var descriptor: Int32 = -1
        name.withCString { descriptor = linux_private_file(directory, $0, 0) }
        return descriptor
    }

    /// Makes a file for this slot's mailbox, which nobody finds before `publishMailbox`.
    func createMailbox() -> Int32 {
        var descriptor: Int32 = -1
        newName.withCString {
            linux_unlink_in(directory, $0)
            descriptor = linux_private_file(directory, $0, 2)
        }
        return descriptor
    }

    /// Puts the new mailbox in the place of what a dead holder left behind. False when that fails.
    func publishMailbox() -> Bool {
        var error: Int32 = 0
        newName.withCString { new in
            name("box.").withCString { error = linux_rename_in(directory, new, $0) }
        }
        return error == 0
    }

    /// Takes this slot's mailbox and bell off the directory.
    func withdraw() {
        name("box.").withCString { linux_unlink_in(directory, $0) }
        name("bell.").withCString { linux_unlink_in(directory, $0) }
    }

    /// The path of a slot's bell; the caller frees it.
    func bellPath(_ slot: Int) -> UnsafeMutablePointer<CChar> {
        var text = Sentence()
        text.append(path)
        text.append("/bell.")
        text.append(slot)
        return text.copy()
    }

    private var newName: Sentence { name("new.") }

    private func name(_ kind: StaticString) -> Sentence {
        var name = Sentence(kind)
        name.append(slot)
        return name
    }
}
