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

    /// Where the receive of that slot brings its data.
    func slice(ofSlot slot: Int) throws(VerbsError) -> MemoryRegion.Slice {
        let start = Self.outgoingSize(setup) + slot * Self.slotSize(setup)
        return try local.slice(start..<start + Self.headerSize(setup) + setup.largestSize)
    }

    /// Posts the receive of that slot.
    mutating func postReceive(slot: Int) throws(VerbsError) {
        try queuePair.postReceive(try slice(ofSlot: slot), id: Self.receiveID | UInt64(slot))
    }

    /// What moves message `number` of a job.
    @inline(__always)
    func request(_ operation: Operation, size: Int, number: UInt64, readOffset: Int = 0) -> SendOperation {
        let immediate = UInt32(truncatingIfNeeded: number)
        switch operation {
        case .send: return .send
        case .sendImmediate: return .send(immediate: immediate)
        case .write: return .write(to: remote.dropFirst(UInt64(Self.writtenRange(size).lowerBound)))
        case .writeImmediate:
            return .write(to: remote.dropFirst(UInt64(Self.writtenRange(size).lowerBound)), immediate: immediate)
        case .read: return .read(from: remote.dropFirst(UInt64(Self.exposedStart + readOffset)))
        case .fetchAndAdd: return .fetchAndAdd(at: remote, adding: Counter.addend(number))
        case .compareAndSwap:
            return .compareAndSwap(
                at: remote, expected: Counter.swapped(number), desired: Counter.swapped(number &+ 1))
        }
    }

    /// Posts message `number`.
    @inline(__always)
    mutating func postMessage(
        _ operation: Operation, size: Int, number: UInt64, readOffset: Int = 0
    ) throws(VerbsError) {
        let slice = try local.slice(0..<size)
        let request = request(operation, size: size, number: number, readOffset: readOffset)
        if let destination {
            try queuePair.post(request, slice, to: destination, id: number)
        } else {
            try queuePair.post(request, slice, id: number)
        }
    }

    /// Several messages that are posted at once, as often as wanted; the last of them is reported.
    func batch(_ job: Job) throws(VerbsError) -> SendRequestList {
        var list = SendRequestList(capacity: job.batch)
        let slice = try local.slice(0..<job.size)
        let request = request(job.operation, size: job.size, number: 0)
        for index in 1...job.batch {
            let flags: SendFlags = index == job.batch ? .signaled : []
            if let destination {
                try list.append(request, slice, to: destination, flags: flags)
            } else {
                try list.append(request, slice, flags: flags)
            }
        }
        return list
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
