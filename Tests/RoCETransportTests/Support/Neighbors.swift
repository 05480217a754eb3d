import Glibc
import RoCETransport
import Synchronization

/// Two engines of one host, connected, of which the left one accesses the memory of the right one directly.
final class NeighborPair {
    let left: Host
    let right: Host
    let leftPair: QueuePair
    let rightPair: QueuePair
    let network: Network
    /// The memory of the right engine's table.
    var table: UnsafeMutableRawPointer { tableMemory.start }
    let hazard = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: 1)
    let mappings = UnsafeMutablePointer<SharedMapping>.allocate(capacity: Neighbor.mappingCount)

    /// Freed after the engines, which are above.
    private let tableMemory = TableMemory()

    private final class TableMemory {
        let start: UnsafeMutableRawPointer = calloc(NeighborPair.tableByteCount, 1)
        deinit { free(start) }
    }

    static let tableByteCount = AccessTable.byteCount(maximumQueuePairs: 64)

    init(
        _ connection: Connection = Connection(), reach: Neighbor.Reach = .here, sqSigAll: Bool = true,
        memory: Int = 1 << 16, rightCompletions: UInt32 = 1024, hasEvents: Bool = true,
        upTo state: QueuePairState = .readyToSend,
        configure: (inout Configuration) -> Void = { _ in }
    ) throws {
        left = try Host(1, memory: memory, hasEvents: hasEvents) {
            $0.qpnPrefixBits = 8
            $0.qpnPrefix = 1
            configure(&$0)
        }
        right = try Host(2, memory: memory, completions: rightCompletions, hasEvents: hasEvents) {
            $0.qpnPrefixBits = 8
            $0.qpnPrefix = 2
            configure(&$0)
        }
        leftPair = try left.makeQueuePair(sqSigAll: sqSigAll)
        rightPair = try right.makeQueuePair(sqSigAll: sqSigAll)
        var connection = connection
        connection.tag = Path.sameHost
        try left.connect(leftPair, to: right.gid, number: rightPair.number, connection)
        try right.connect(rightPair, to: left.gid, number: leftPair.number, connection.reversed, upTo: state)
        network = Network([left, right])
        hazard.initialize(to: Atomic(0))
        mappings.initialize(repeating: SharedMapping(), count: Neighbor.mappingCount)
        right.engine.publish(
            AccessTable(table, maximumQueuePairs: 64, descriptor: -1, note: (3, 4), reserve: { _, _, _ in true }))
        left.engine.neighbors[2] = Neighbor(
            table: table, byteCount: Self.tableByteCount, hazard: hazard, reach: reach, mappings: mappings)
    }

    deinit {
        left.engine.neighbors[2] = nil
        right.engine.neighbors[1] = nil
        hazard.deallocate()
        mappings.deallocate()
    }

    /// Lets the right engine copy from memory of the left one too, so that long SENDs are references.
    func acquaint(_ reach: Neighbor.Reach = .here) {
        left.publish()
        right.engine.neighbors[1] = left.neighbor(reach)
    }

    /// A work request that accesses memory of the right engine.
    func request(
        _ opcode: WorkRequestOpcode, id: UInt64 = 1, at memory: UnsafeMutableRawBufferPointer, offset: Int = 0,
        key: UInt32? = nil, flags: SendFlags = []
    ) -> SendWQE {
        var request = SendWQE(id: id, opcode: opcode, flags: flags)
        request.remoteAddress = UInt64(UInt(bitPattern: memory.baseAddress)) &+ UInt64(offset)
        request.rkey = key ?? right.key
        return request
    }

    /// Runs the left engine alone. Returns the packets that it sends.
    func packets() -> Int {
        var count = 0
        repeat {
            while left.engine.transmit(into: left.packet, now: network.now) != nil { count += 1 }
        } while left.engine.hasDirectWork
        return count
    }
}
