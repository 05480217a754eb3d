import Verbs

/// The queue pairs of a link, in the order in which messages use them. They have one completion queue.
struct QueuePairs: ~Copyable {
    /// The most queue pairs of a link.
    static let most = 4096

    private let memory: UnsafeMutablePointer<QueuePair>
    private(set) var count = 0
    private let capacity: Int
    /// QPN and index of each queue pair, in a hash table with linear probing. The table has at least twice as many
    /// places as there are queue pairs, and 0 marks a free place: no queue pair that a program creates has QPN 0.
    private var places: [(number: UInt32, index: UInt32)]

    init(capacity: Int) {
        self.capacity = capacity
        memory = .allocate(capacity: capacity)
        var size = 2
        while size < 2 * capacity { size *= 2 }
        places = Array(repeating: (number: 0, index: 0), count: size)
    }

    deinit {
        memory.deinitialize(count: count)
        memory.deallocate()
    }

    mutating func append(_ queuePair: consuming QueuePair) {
        precondition(count < capacity)
        var place = Int(Self.hash(queuePair.number)) & (places.count - 1)
        while places[place].number != 0 { place = (place + 1) & (places.count - 1) }
        places[place] = (queuePair.number, UInt32(count))
        (memory + count).initialize(to: queuePair)
        count += 1
    }

    /// A queue pair. The pointer is valid as long as this value.
    @inline(__always)
    subscript(index: Int) -> UnsafeMutablePointer<QueuePair> {
        precondition(index >= 0 && index < count)
        return memory + index
    }

    /// The index of the queue pair that sends message `number`: one after the other.
    @inline(__always)
    func index(ofMessage number: UInt64) -> Int { count == 1 ? 0 : Int(number % UInt64(count)) }

    /// The index of the queue pair with that QPN; 0 if there is none.
    @inline(__always)
    func index(ofNumber number: UInt32) -> Int {
        guard count > 1 else { return 0 }
        var place = Int(Self.hash(number)) & (places.count - 1)
        while places[place].number != number {
            guard places[place].number != 0 else { return 0 }
            place = (place + 1) & (places.count - 1)
        }
        return Int(places[place].index)
    }

    private static func hash(_ number: UInt32) -> UInt32 { (number &* 0x9E37_79B1) >> 12 }
}

/// A receive work request: its queue pair and its buffer.
struct ReceiveSlot: Equatable {
    /// Index of the queue pair in the link.
    var queuePair: Int
    /// Index of the buffer.
    var buffer: Int

    init(queuePair: Int, buffer: Int) {
        self.queuePair = queuePair
        self.buffer = buffer
    }

    /// From the `wr_id`: bits 0 to 31 are the buffer, bits 32 to 62 the queue pair, and bit 63 marks a receive.
    init(id: UInt64) {
        buffer = Int(id & 0xFFFF_FFFF)
        queuePair = Int(id >> 32 & 0x7FFF_FFFF)
    }

    var id: UInt64 { Link.receiveID | UInt64(queuePair) << 32 | UInt64(buffer) }
}

extension Setup {
    /// The most receive work requests of a link with several queue pairs: of all of them together.
    static let mostReceives = 65_536

    /// The send work requests that a queue pair holds. Several queue pairs share the window; each holds twice its share,
    /// and at least two batches.
    var sendDepth: Int {
        guard queuePairs > 1, batch > 0 else { return window }
        let share = (2 * window / queuePairs + batch - 1) / batch * batch
        return min(window, max(2 * batch, share))
    }

    /// The receive work requests of a queue pair, if every receive may have the same buffer.
    func receiveDepth(limit: Int) -> Int {
        let wanted = max(16, 4 * sendDepth)
        return min(queuePairs == 1 ? wanted : min(wanted, Self.mostReceives / queuePairs), limit)
    }
}

// The endpoints of further queue pairs differ from the first one in QPN and PSN only. They follow the first one, some in
// each message.
extension ControlConnection {
    private static let endpointsInMessage = 1024

    /// Sends the endpoints of all queue pairs but the first.
    func send(_ further: [Link.FurtherEndpoint]) throws(ToolError) {
        for start in stride(from: 0, to: further.count, by: Self.endpointsInMessage) {
            let part = further[start..<min(start + Self.endpointsInMessage, further.count)]
            try send(
                ControlMessage.queuePairs(
                    numbers: part.map(\.queuePairNumber), sequenceNumbers: part.map(\.packetSequenceNumber)))
        }
    }

    /// Receives the endpoints of `count` queue pairs, of which `first` is known.
    func receiveEndpoints(_ count: Int, first: Endpoint) throws(ToolError) -> [Endpoint] {
        var all = [first]
        while all.count < count {
            guard case .queuePairs(let numbers, let sequenceNumbers) = try next(), !numbers.isEmpty,
                numbers.count == sequenceNumbers.count, numbers.count <= count - all.count
            else { throw ToolError.protocolError }
            for (number, sequenceNumber) in zip(numbers, sequenceNumbers) {
                var endpoint = first
                endpoint.queuePairNumber = number & 0xFF_FFFF
                endpoint.packetSequenceNumber = sequenceNumber & 0xFF_FFFF
                all.append(endpoint)
            }
        }
        return all
    }
}
