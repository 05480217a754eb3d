import RoCEWire

/// A READ or atomic of the peer, remembered so that a lost response can be sent again.
struct ReadResource {
    var first = PSN(0)
    /// PSNs of the responses.
    var packets: UInt32 = 0
    /// How many of them were sent since the request (or its repetition) came; all when nothing is to be sent.
    var sent: UInt32 = 0
    /// Responses after this one are those of a repeated request that asked for less.
    var end: UInt32 = 0
    /// Where the first response of the run that is being sent stands: it is FIRST or ONLY.
    var runStart: UInt32 = 0
    /// Bytes of that run.
    var runLength: UInt32 = 0
    var address: UInt64 = 0
    var key: UInt32 = 0
    var length: UInt32 = 0
    var msn: UInt32 = 0
    /// Of an atomic: what the memory held before.
    var original: UInt64 = 0
    var isAtomic = false
    /// Every response was sent at least once.
    var wasAnswered = false
    /// The request came again.
    var isRepeated = false
}

/// Where a queue pair's receiving side stands.
struct Responder {
    /// PSN of the next request.
    var expected = PSN(0)
    /// Messages completed, 24 bits.
    var msn: UInt32 = 0
    /// A NAK named `expected` and nothing is answered before it comes.
    var isNakSent = false
    /// A packet was received since RTR.
    var isEstablished = false
    /// What the message that is under way is about; `.unknown` between messages.
    var message = Opcode.Operation.unknown

    /// A receive work request was taken and is not complete.
    var holdsReceive = false
    var receiveID: UInt64 = 0
    /// Bytes that its pieces hold together.
    var receiveLength: UInt32 = 0
    /// Bytes received into it.
    var received: UInt32 = 0
    var elementCount: Int = 0
    /// Copies of its pieces, since the slot is given back at once.
    let elements: UnsafeMutablePointer<ScatterGatherElement>

    /// A WRITE under way: where the next byte goes, how many are to come, and how many it has.
    var writeAddress: UInt64 = 0
    var writeKey: UInt32 = 0
    var writeLeft: UInt32 = 0
    var writeLength: UInt32 = 0

    /// READs and atomics: a ring of `maxDestinationReadAtomic`, counted freely. What lies before `firstResource` is
    /// forgotten.
    let resources: UnsafeMutablePointer<ReadResource>
    var firstResource: UInt32 = 0
    var endResource: UInt32 = 0
    /// Resources before this one have all their responses sent.
    var sendingResource: UInt32 = 0

    /// An acknowledgement is to be sent.
    var hasAcknowledgement = false
    var acknowledgedPSN = PSN(0)
    var syndrome = AETHSyndrome.ack
}
