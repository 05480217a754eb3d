/// What an engine has done and why it dropped packets. Counts wrap.
@frozen
public struct Counters: Equatable, Sendable {
    /// Packets written by `transmit`.
    public var sentPackets: UInt64 = 0
    /// Payload bytes in them.
    public var sentBytes: UInt64 = 0
    /// Packets handed to `receive`.
    public var receivedPackets: UInt64 = 0
    /// Payload bytes placed in memory.
    public var receivedBytes: UInt64 = 0

    /// Dropped: not a packet of this format, or an opcode nobody can answer.
    public var droppedMalformed: UInt64 = 0
    /// Dropped: no queue pair has this number.
    public var droppedNoQueuePair: UInt64 = 0
    /// Dropped: the queue pair does not receive in its state.
    public var droppedState: UInt64 = 0
    /// Dropped: the packet's addresses are not those of the connection.
    public var droppedAddress: UInt64 = 0
    /// Dropped: another partition.
    public var droppedPartitionKey: UInt64 = 0
    /// Dropped: UD with another Q_Key (IBA: Q_Key violation counter).
    public var droppedQueueKey: UInt64 = 0
    /// Dropped: an opcode of another service type.
    public var droppedServiceType: UInt64 = 0
    /// Dropped: UC or UD packets out of a sequence, or of a length, that the service type does not allow.
    public var droppedInvalid: UInt64 = 0
    /// Dropped: UC or UD and no receive was posted.
    public var droppedNoReceive: UInt64 = 0
    /// Dropped: UC WRITEs with a key, range or permission that does not allow them.
    public var droppedAccess: UInt64 = 0
    /// RC requests ahead of the expected PSN (the first one of each gap is answered).
    public var outOfSequence: UInt64 = 0
    /// RC requests seen before: answered again, not carried out again.
    public var duplicateRequests: UInt64 = 0
    /// RC responses to nothing outstanding: ignored.
    public var strayResponses: UInt64 = 0
    /// Congestion notifications: ignored.
    public var congestionNotifications: UInt64 = 0

    /// Packets sent again.
    public var retransmittedPackets: UInt64 = 0
    /// Times that SENDs or WRITEs were acknowledged after they had to be sent again: what they lost went through then.
    public var repairs: UInt64 = 0
    /// READ requests that were answered again.
    public var repeatedReads: UInt64 = 0
    /// Times the acknowledgement timer ran out.
    public var timeouts: UInt64 = 0
    /// RNR NAKs received.
    public var rnrNaksReceived: UInt64 = 0
    /// PSN sequence NAKs received.
    public var sequenceNaksReceived: UInt64 = 0
    /// READ or atomic responses found missing by what came after them.
    public var impliedNaks: UInt64 = 0
    /// RNR NAKs sent.
    public var rnrNaksSent: UInt64 = 0
    /// Other NAKs sent.
    public var naksSent: UInt64 = 0
    /// Completion queues that overran.
    public var completionQueueOverruns: UInt64 = 0

    /// All zero.
    @inlinable
    public init() {}
}
