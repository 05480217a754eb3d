import CIBVerbs
import CLinux
import CProviderABI
import CSoftExtension
import ProviderKit
import RoCETransport

// Memory that other processes of this host can map (rdma_soft.h). It is taken from arenas: memory files of which every
// process that sends to this device maps all.

/// An arena: a memory file, and its parts that are free.
struct Arena: ~Copyable {
    let descriptor: Int32
    let memory: UnsafeMutableRawPointer
    /// The free parts, in order, with used bytes between them.
    private var free: UnsafeMutablePointer<Part>
    private var freeCount = 1
    private var freeCapacity = 16

    private struct Part {
        var offset: Int
        var byteCount: Int
    }

    /// The bytes of an arena, most of which have no memory.
    static let byteCount = 256 << 20

    /// Returns nil, and the errno value in `error`, when there is no memory or descriptor.
    init?(error: inout Int32) {
        var descriptor: Int32 = -1
        var memory: UnsafeMutableRawPointer?
        error = linux_make_arena(
            ("swift-rdma soft memory" as StaticString).cString, Self.byteCount, &descriptor, &memory)
        guard error == 0, let memory else { return nil }
        self.descriptor = descriptor
        self.memory = memory
        free = .allocate(capacity: freeCapacity)
        free.initialize(to: Part(offset: 0, byteCount: Self.byteCount))
    }

    deinit {
        free.deallocate()
        linux_close_arena(descriptor, memory, Self.byteCount)
    }

    /// The offset of a memory range in the arena; nil when it is not inside.
    func offset(of address: UInt, byteCount: Int) -> Int? {
        let offset = address &- UInt(bitPattern: memory)
        guard offset < UInt(Self.byteCount), byteCount >= 0, byteCount <= Self.byteCount - Int(offset) else {
            return nil
        }
        return Int(offset)
    }

    /// Takes whole pages, `byteCount` bytes. Returns nil when there is no such part.
    mutating func take(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        for index in 0..<freeCount where free[index].byteCount >= byteCount {
            let offset = free[index].offset
            free[index].offset += byteCount
            free[index].byteCount -= byteCount
            if free[index].byteCount == 0 {
                (free + index).update(from: free + index + 1, count: freeCount - index - 1)
                freeCount -= 1
            }
            return memory + offset
        }
        return nil
    }

    /// Gives pages back, whose memory is freed.
    mutating func giveBack(_ offset: Int, _ byteCount: Int) {
        linux_discard(descriptor, UInt64(offset), memory + offset, byteCount)
        var index = 0
        while index < freeCount && free[index].offset < offset { index += 1 }
        assert(index == freeCount || offset + byteCount <= free[index].offset, "the part was in use")
        let joinsPrevious = index > 0 && free[index - 1].offset + free[index - 1].byteCount == offset
        let joinsNext = index < freeCount && offset + byteCount == free[index].offset
        switch (joinsPrevious, joinsNext) {
        case (true, true):
            free[index - 1].byteCount += byteCount + free[index].byteCount
            (free + index).update(from: free + index + 1, count: freeCount - index - 1)
            freeCount -= 1
        case (true, false): free[index - 1].byteCount += byteCount
        case (false, true):
            free[index].offset = offset
            free[index].byteCount += byteCount
        case (false, false): insert(Part(offset: offset, byteCount: byteCount), at: index)
        }
    }

    private mutating func insert(_ part: Part, at index: Int) {
        if freeCount == freeCapacity {
            let larger = UnsafeMutablePointer<Part>.allocate(capacity: freeCapacity * 2)
            larger.moveInitialize(from: free, count: freeCount)
            free.deallocate()
            free = larger
            freeCapacity *= 2
        }
        for place in stride(from: freeCount, to: index, by: -1) { free[place] = free[place - 1] }
        free[index] = part
        freeCount += 1
    }
}

/// The arenas of a device, which are numbered from 1.
struct SharedMemory: ~Copyable {
    private let arenas = UnsafeMutablePointer<Arena>.allocate(capacity: SharedMemory.capacity)
    private(set) var count = 0
    /// Whether an arena could not be made: then no more are tried.
    private var isExhausted = false

    /// The numbers of arenas are 1 to 63: each has a place of its own in a neighbor's mappings.
    static let capacity = Neighbor.mappingCount - 1
    /// The longest memory that is taken from an arena.
    static let longest = 64 << 20

    deinit {
        arenas.deinitialize(count: count)
        arenas.deallocate()
    }

    /// Takes whole pages.
    /// - Parameter made: Called with the number and descriptor of an arena that was made for it.
    /// - Returns: The address, or nil and the errno value in `error`.
    mutating func take(_ byteCount: Int, error: inout Int32, made: (Int, Int32) -> Void) -> UnsafeMutableRawPointer? {
        for index in 0..<count {
            if let memory = arenas[index].take(byteCount) { return memory }
        }
        guard !isExhausted, count < Self.capacity, let arena = Arena(error: &error) else {
            isExhausted = true
            if error == 0 { error = ENOMEM }
            return nil
        }
        (arenas + count).initialize(to: arena)
        count += 1
        made(count, arenas[count - 1].descriptor)
        return arenas[count - 1].take(byteCount)
    }

    mutating func giveBack(_ address: UnsafeMutableRawPointer, _ byteCount: Int) {
        for index in 0..<count {
            guard let offset = arenas[index].offset(of: UInt(bitPattern: address), byteCount: byteCount) else {
                continue
            }
            return arenas[index].giveBack(offset, byteCount)
        }
    }

    /// The number of the arena that contains this memory, and the offset in it; 0 when none does.
    func place(of address: UnsafeMutableRawPointer?, byteCount: Int) -> (number: UInt32, offset: UInt64) {
        for index in 0..<count {
            if let offset = arenas[index].offset(of: UInt(bitPattern: address), byteCount: byteCount) {
                return (UInt32(index + 1), UInt64(offset))
            }
        }
        return (0, 0)
    }
}

// MARK: - The extension

private nonisolated(unsafe) let memoryExtension: UnsafeMutablePointer<rdma_soft_memory> = {
    let functions = UnsafeMutablePointer<rdma_soft_memory>.allocate(capacity: 1)
    functions.initialize(
        to: rdma_soft_memory(
            size: UInt32(MemoryLayout<rdma_soft_memory>.size), reserved: 0, alloc: allocateSharedMemory,
            free: freeSharedMemory))
    return functions
}()

func queryContextExtension(
    context: UnsafeMutablePointer<ibv_context>?, name: UnsafePointer<CChar>?, version: UInt32
) -> UnsafeRawPointer? {
    guard context != nil else { return nil }
    if isExtension(name, version, "soft-management", UInt32(RDMA_SOFT_MANAGEMENT_VERSION)) {
        return UnsafeRawPointer(managementExtension)
    }
    guard isExtension(name, version, "soft-memory", UInt32(RDMA_SOFT_MEMORY_VERSION)) else { return nil }
    return UnsafeRawPointer(memoryExtension)
}

private func wholePages(_ byteCount: Int) -> Int {
    let page = Int(linux_page_size())
    return (byteCount + page - 1) & ~(page - 1)
}

private func allocateSharedMemory(context: UnsafeMutablePointer<ibv_context>?, length: Int) -> UnsafeMutableRawPointer?
{
    var error = EINVAL
    let memory = length > 0 ? context?.soft.takeShared(length, &error) : nil
    if memory == nil { linux_set_errno(error) }
    return memory
}

private func freeSharedMemory(
    context: UnsafeMutablePointer<ibv_context>?, address: UnsafeMutableRawPointer?, length: Int
) {
    guard let context = context?.soft, let address, length > 0 else { return }
    context.lockForControl()
    context.guarded.pointee.sharedMemory.giveBack(address, wholePages(length))
    context.unlock()
}

extension ContextPointer {
    /// Whether other processes of the host access memory of this device directly. Faults need packets. Under the lock.
    var sharesMemory: Bool { guarded.pointee.faults == nil && guarded.pointee.link.usesSharedMemory }

    fileprivate func takeShared(_ length: Int, _ error: inout Int32) -> UnsafeMutableRawPointer? {
        lockForControl()
        defer { unlock() }
        error = EOPNOTSUPP
        guard length <= SharedMemory.longest, sharesMemory, !linux_commits_strictly() else { return nil }
        error = 0
        return guarded.pointee.sharedMemory.take(wholePages(length), error: &error) { number, descriptor in
            guarded.pointee.senders.share(number, descriptor)
        }
    }
}
