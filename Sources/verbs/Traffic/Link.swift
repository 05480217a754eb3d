import Verbs

/// One connected queue pair with the memory that its messages come from and go to.
///
/// Two regions: `local` for this side's device only, and `exposed` for the peer's writes, reads and atomics.
///
///     local     outgoing | slot 0 | slot 1 | ...     a slot takes one receive; on UD the first 40 bytes are the GRH
///     exposed   counter (8) | padding | message      what is written ends at a multiple of 8 bytes
struct Link: ~Copyable {
    /// Where a message in `exposed` begins at the earliest.
    static let exposedStart = 64
    /// Room behind the message that is read: reads begin at different places, so that each brings other bytes.
    static let readSlack = 256
    /// What marks the id of a receive; the rest of it is the slot.
    static let receiveID: UInt64 = 1 << 63

    let setup: Setup
    let address: PortAddress
    /// What the peer must be told.
    let endpoint: Endpoint
    let local: MemoryRegion
    let exposed: MemoryRegion
    /// Buffers for receives, and how many receives are posted: several may share a buffer.
    let slotCount: Int
    let receiveCount: Int
    var queuePair: QueuePair
    var completions: CompletionQueue
    var arrived: WorkCompletionBuffer
    var remote = RemoteMemory(address: 0, rkey: 0, byteCount: 0)
    var destination: DatagramDestination?

    /// Bytes before the payload of a receive.
    static func headerSize(_ setup: Setup) -> Int { setup.transport == .ud ? 40 : 0 }
    static func outgoingSize(_ setup: Setup) -> Int { (max(setup.largestSize, 8) + 63) & ~63 }
    static func slotSize(_ setup: Setup) -> Int { (headerSize(setup) + max(setup.largestSize, 1) + 63) & ~63 }

    // MARK: Places

    /// Where messages are sent from, and where reads and atomics bring theirs.
    func outgoing(_ size: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: local.unsafeBytes[..<size])
    }

    /// The payload of a receive.
    func received(slot: Int, byteCount: Int) -> UnsafeRawBufferPointer {
        let start = Self.outgoingSize(setup) + slot * Self.slotSize(setup)
        let header = Self.headerSize(setup)
        let end = max(header, min(byteCount, header + setup.largestSize))
        return UnsafeRawBufferPointer(rebasing: local.unsafeBytes[start + header..<start + end])
    }

    /// Where the peer writes a message of that size.
    static func writtenRange(_ size: Int) -> Range<Int> {
        let end = exposedStart + (size + 7) & ~7
        return end - size..<end
    }

    /// The last byte of the message that the peer writes here, read as it may be written.
    func writtenMark(_ size: Int) throws(VerbsError) -> UInt8 {
        let word = try exposed.loadAcquiring(at: Self.writtenRange(size).upperBound - 8)
        return UInt8(truncatingIfNeeded: UInt64(littleEndian: word) >> 56)
    }

    /// The message that the peer has written here.
    func written(_ size: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: exposed.unsafeBytes[Self.writtenRange(size)])
    }

    /// What the peer reads: messages of that size from all places below `readSlack`.
    func source(_ size: Int) -> UnsafeMutableRawBufferPointer {
        let end = Self.exposedStart + size + Self.readSlack
        return UnsafeMutableRawBufferPointer(rebasing: exposed.unsafeBytes[Self.exposedStart..<end])
    }

    // MARK: Work requests

    /// Posts the receive of that slot.
    mutating func postReceive(slot: Int) throws(VerbsError) {
        let start = Self.outgoingSize(setup) + slot * Self.slotSize(setup)
        let slice = try local.slice(start..<start + Self.headerSize(setup) + setup.largestSize)
        try queuePair.postReceive(slice, id: Self.receiveID | UInt64(slot))
    }

    /// Posts message `number`; `flags` say whether its completion is reported.
    @inline(__always)
    mutating func postMessage(
        _ operation: Operation, size: Int, number: UInt64, readOffset: Int = 0, flags: SendFlags = .signaled
    ) throws(VerbsError) {
        let slice = try local.slice(0..<size)
        switch operation {
        case .send: try send(.send, slice, number, flags)
        case .sendImmediate: try send(.send(immediate: UInt32(truncatingIfNeeded: number)), slice, number, flags)
        case .write:
            let place = remote.dropFirst(UInt64(Self.writtenRange(size).lowerBound))
            try queuePair.post(.write(to: place), slice, id: number, flags: flags)
        case .writeImmediate:
            let place = remote.dropFirst(UInt64(Self.writtenRange(size).lowerBound))
            let immediate = UInt32(truncatingIfNeeded: number)
            try queuePair.post(.write(to: place, immediate: immediate), slice, id: number, flags: flags)
        case .read:
            let place = remote.dropFirst(UInt64(Self.exposedStart + readOffset))
            try queuePair.post(.read(from: place), slice, id: number, flags: flags)
        case .fetchAndAdd:
            let addend = Counter.addend(number)
            try queuePair.post(.fetchAndAdd(at: remote, adding: addend), slice, id: number, flags: flags)
        case .compareAndSwap:
            let swap = SendOperation.compareAndSwap(
                at: remote, expected: Counter.swapped(number), desired: Counter.swapped(number &+ 1))
            try queuePair.post(swap, slice, id: number, flags: flags)
        }
    }

    @inline(__always)
    private mutating func send(
        _ operation: SendOperation, _ slice: MemoryRegion.Slice, _ number: UInt64, _ flags: SendFlags
    ) throws(VerbsError) {
        if let destination {
            try queuePair.post(operation, slice, to: destination, id: number, flags: flags)
        } else {
            try queuePair.post(operation, slice, id: number, flags: flags)
        }
    }

    /// Polls; the completions are then in `arrived`.
    @inline(__always)
    mutating func poll() throws(VerbsError) -> Int { try completions.poll(into: &arrived) }
}

/// The arithmetic of atomics: what the counter in the server's memory holds when.
enum Counter {
    /// What operation `number` adds.
    static func addend(_ number: UInt64) -> UInt64 { number &* 2 &+ 1 }

    /// What `count` additions have added up to: the square, for 1 + 3 + 5 + ...
    static func sum(_ count: UInt64) -> UInt64 { count &* count }

    /// What operation `number` of the swaps finds, and the one before it has put there.
    static func swapped(_ number: UInt64) -> UInt64 { number &* 0x9E37_79B9_7F4A_7C15 }

    /// What the counter holds after `count` operations from 0 on, and what operation number `count` finds.
    static func value(_ operation: Operation, after count: UInt64) -> UInt64 {
        operation == .fetchAndAdd ? sum(count) : swapped(count)
    }
}
