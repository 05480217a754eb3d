import ConnectionManager
import Verbs

/// One or more connected queue pairs with the memory of its messages.
///
/// It has two memory regions: `local` for local access, and `exposed` for RDMA writes, RDMA reads and atomics of the
/// peer.
///
///     local     outgoing | slot 0 | slot 1 | ...     a slot is a receive buffer; on UD it begins with the GRH (40
///     bytes) exposed   counter (8) | padding | message      a written message ends at a multiple of 8 bytes
struct Link: ~Copyable {
    /// The lowest offset of a message in `exposed`.
    static let exposedStart = 64
    /// Bytes after the message that RDMA reads access: they begin at different offsets, so that each returns other
    /// bytes.
    static let readSlack = 256
    /// The bit of `wr_id` that marks a receive work request; the other bits are the `ReceiveSlot`.
    static let receiveID: UInt64 = 1 << 63

    let setup: Setup
    let address: PortAddress
    /// The endpoint of the first queue pair, to send to the peer.
    let endpoint: Endpoint
    /// The endpoints of the other queue pairs; on XRC, of the XRC_RECV queue pair, and the number of the shared receive
    /// queue in place of a QPN.
    let further: [FurtherEndpoint]
    let local: MemoryRegion
    let exposed: MemoryRegion
    /// The number of receive buffers.
    let slotCount: Int
    /// The number of posted receive work requests of each queue pair; several may share a buffer.
    let receiveCount: Int
    var queuePairs: QueuePairs
    var completions: CompletionQueue
    var workCompletions: WorkCompletionBuffer
    var remote = RemoteMemory(address: 0, rkey: 0, byteCount: 0)
    var destination: DatagramDestination?
    /// XRC: the receiving side, and the number of the peer's shared receive queue, which is not 0.
    var receiver: ExtendedReceiver?
    var remoteSharedReceiveQueue: UInt32 = 0
    /// RC on devices that have them: the memory window of type 2 of the operation `window`.
    var memoryWindow: MemoryWindow?
    /// Whether the queue pairs are made for the operation `flush`: RC on devices that have it.
    let flushes: Bool
    /// The connection that rdma_cm has made; it ends with the link.
    var connection: Connection?

    /// What the endpoints of the queue pairs do not have in common.
    struct FurtherEndpoint {
        var queuePairNumber: UInt32
        var packetSequenceNumber: UInt32
    }

    /// Bytes before the payload in a receive buffer: the GRH on UD.
    static func headerSize(_ setup: Setup) -> Int { setup.transport == .ud ? 40 : 0 }
    static func outgoingSize(_ setup: Setup) -> Int { (max(setup.largestSize, 8) + 63) & ~63 }
    static func slotSize(_ setup: Setup) -> Int { (headerSize(setup) + max(setup.largestSize, 1) + 63) & ~63 }

    // MARK: Buffers

    /// The buffer of messages to send, and of data from RDMA reads and atomics.
    func outgoing(_ size: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: local.unsafeBytes[..<size])
    }

    /// The payload in a receive buffer.
    func received(slot: ReceiveSlot, byteCount: Int) -> UnsafeRawBufferPointer {
        let start = Self.outgoingSize(setup) + slot.buffer * Self.slotSize(setup)
        let header = Self.headerSize(setup)
        let end = max(header, min(byteCount, header + setup.largestSize))
        return UnsafeRawBufferPointer(rebasing: local.unsafeBytes[start + header..<start + end])
    }

    /// The range in `exposed` to which the peer writes a message of `size` bytes.
    static func writtenRange(_ size: Int) -> Range<Int> {
        let end = exposedStart + (size + 7) & ~7
        return end - size..<end
    }

    /// The last byte of the message that the peer writes, loaded with acquire ordering.
    func writtenMark(_ size: Int) throws(VerbsError) -> UInt8 {
        let word = try exposed.loadAcquiring(at: Self.writtenRange(size).upperBound - 8)
        return UInt8(truncatingIfNeeded: UInt64(littleEndian: word) >> 56)
    }

    /// The message that the peer has written.
    func written(_ size: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: exposed.unsafeBytes[Self.writtenRange(size)])
    }

    /// The bytes that the peer reads: messages of `size` bytes at every offset below `readSlack`.
    func source(_ size: Int) -> UnsafeMutableRawBufferPointer {
        let end = Self.exposedStart + size + Self.readSlack
        return UnsafeMutableRawBufferPointer(rebasing: exposed.unsafeBytes[Self.exposedStart..<end])
    }

    // MARK: Work requests

    /// The SGE of the receive of a slot. Inlined, as `postReceive`: a call would copy the whole struct.
    @inline(__always)
    func sge(ofSlot slot: ReceiveSlot) throws(VerbsError) -> ScatterGatherElement {
        let start = Self.outgoingSize(setup) + slot.buffer * Self.slotSize(setup)
        return try local.sge(start..<start + Self.headerSize(setup) + setup.largestSize)
    }

    /// Posts the receive of a slot.
    mutating func postReceive(slot: ReceiveSlot) throws(VerbsError) {
        if let receiver {
            return try receiver.queue.postReceive(try sge(ofSlot: slot), id: slot.id)
        }
        try queuePairs[slot.queuePair].pointee.postReceive(try sge(ofSlot: slot), id: slot.id)
    }

    /// Posts the receives of one queue pair, and empties the list.
    mutating func post(_ receives: inout ReceiveRequestList, queuePair: Int) throws(VerbsError) {
        guard !receives.isEmpty else { return }
        if let receiver {
            try receiver.queue.postReceive(receives)
        } else {
            try queuePairs[queuePair].pointee.postReceive(receives)
        }
        receives.removeAll()
    }

    /// The send work request of message `number` of a job.
    @inline(__always)
    func request(_ operation: Operation, size: Int, number: UInt64, readOffset: Int = 0) throws(VerbsError)
        -> SendOperation
    {
        let immediate = UInt32(truncatingIfNeeded: number)
        switch operation {
        case .send: return .send
        case .sendImmediate: return .send(immediate: immediate)
        case .write, .flush: return try .write(to: remote.subrange(UInt64(Self.writtenRange(size).lowerBound)...))
        case .writeImmediate:
            return try .write(to: remote.subrange(UInt64(Self.writtenRange(size).lowerBound)...), immediate: immediate)
        case .read: return try .read(from: remote.subrange(UInt64(Self.exposedStart + readOffset)...))
        case .fetchAndAdd: return .fetchAndAdd(at: remote, adding: Counter.addend(number))
        case .compareAndSwap:
            return .compareAndSwap(
                at: remote, expected: Counter.swapped(number), desired: Counter.swapped(number &+ 1))
        case .atomicWrite:
            return try .atomicWrite(to: remote.subrange(UInt64(Self.writtenRange(size).lowerBound)...))
        case .window: return .send(immediate: memoryWindow?.rkey ?? 0)
        }
    }

    /// Posts message `number`, to the queue pairs in turn.
    @inline(__always)
    mutating func postMessage(
        _ operation: Operation, size: Int, number: UInt64, readOffset: Int = 0
    ) throws(VerbsError) {
        if operation.isExtended {
            return try postExtended(operation, queuePairs.index(ofMessage: number), size: size, id: number)
        }
        let sge = try local.sge(0..<size)
        if operation == .window, let memoryWindow {
            // The binding is complete before the SEND begins, and before the peer knows the rkey.
            _ = try queuePairs[0].pointee.bind(
                memoryWindow, to: exposed, Self.writtenRange(size), access: .remoteWrite, id: number, flags: [])
        }
        var request = try request(operation, size: size, number: number, readOffset: readOffset)
        if remoteSharedReceiveQueue != 0 { request = request.to(sharedReceiveQueue: remoteSharedReceiveQueue) }
        let queuePair = queuePairs[queuePairs.index(ofMessage: number)]
        if let destination {
            try queuePair.pointee.postSend(request, sge, to: destination, id: number)
        } else {
            try queuePair.pointee.postSend(request, sge, id: number)
        }
    }

    /// Posts `count` messages of the operation `flush` or `atomicWrite` to one queue pair. The last one is signaled.
    mutating func postExtended(
        _ operation: Operation, _ queuePair: Int, size: Int, count: Int = 1, id: UInt64 = 0
    ) throws(VerbsError) {
        let sge = try local.sge(0..<size)
        let start = UInt64(Self.writtenRange(size).lowerBound)
        let target = try remote.subrange(start..<start + UInt64(size))
        try queuePairs[queuePair].pointee.postExtended { (requests) throws(VerbsError) in
            for index in 1...count {
                let flags: SendFlags = index == count ? .signaled : []
                if operation == .atomicWrite {
                    try requests.append(
                        .atomicWrite(to: target), inline: local.bytes.extracting(0..<size), id: id, flags: flags)
                } else {
                    try requests.append(.write(to: target), sge, id: id, flags: [])
                    try requests.append(.flush(target), id: id, flags: flags)
                }
            }
        }
    }

    /// Writes the answer to a message of the operation `window` through the window with this rkey, and ends its binding.
    mutating func answer(through rkey: UInt32, size: Int, number: UInt64) throws(VerbsError) {
        let written = RemoteMemory(
            address: remote.address + UInt64(Self.writtenRange(size).lowerBound), rkey: rkey, byteCount: UInt64(size))
        try queuePairs[0].pointee.postSend(.write(to: written), try local.sge(0..<size), id: number, flags: [])
        try queuePairs[0].pointee.postSend(.send(invalidating: rkey), id: number)
    }

    /// A list of `job.batch` send work requests, of which the last is signaled. It can be posted repeatedly.
    func batch(_ job: Job) throws(VerbsError) -> SendRequestList {
        var list = SendRequestList(capacity: job.batch)
        let sge = try local.sge(0..<job.size)
        var request = try request(job.operation, size: job.size, number: 0)
        if remoteSharedReceiveQueue != 0 { request = request.to(sharedReceiveQueue: remoteSharedReceiveQueue) }
        for index in 1...job.batch {
            let flags: SendFlags = index == job.batch ? .signaled : []
            if let destination {
                try list.append(request, sge, to: destination, flags: flags)
            } else {
                try list.append(request, sge, flags: flags)
            }
        }
        return list
    }

    /// Polls the completion queue into `workCompletions`. Returns their number.
    @inline(__always)
    mutating func poll() throws(VerbsError) -> Int { try completions.poll(into: &workCompletions) }
}

/// The receiving side of a link over XRC, whose queue pair of type XRC_SEND sends only.
final class ExtendedReceiver {
    let queuePair: QueuePair
    var queue: SharedReceiveQueue

    init(_ domain: ProtectionDomain, _ completions: borrowing CompletionQueue, maxWR: Int) throws(VerbsError) {
        let xrcDomain = try domain.context.openXRCDomain()
        let queue = try domain.makeSharedReceiveQueue(
            SharedReceiveQueue.Attributes(maxWR: UInt32(maxWR)), xrcDomain: xrcDomain, completions: completions)
        queuePair = try xrcDomain.makeReceiveQueuePair()
        self.queue = queue
    }
}

/// The values of atomic operations and of the counter in the server's memory.
enum Counter {
    /// The value that FetchAdd operation `number` adds.
    static func addend(_ number: UInt64) -> UInt64 { number &* 2 &+ 1 }

    /// The sum of the first `count` addends: 1 + 3 + 5 + ... is the square.
    static func sum(_ count: UInt64) -> UInt64 { count &* count }

    /// The value that CmpSwap operation `number` compares with, which the operation before it has stored.
    static func swapped(_ number: UInt64) -> UInt64 { number &* 0x9E37_79B9_7F4A_7C15 }

    /// The value of the counter after `count` operations, which operation number `count` returns.
    static func value(_ operation: Operation, after count: UInt64) -> UInt64 {
        operation == .fetchAndAdd ? sum(count) : swapped(count)
    }
}
