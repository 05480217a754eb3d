import RoCEWire

/// A responder resource: a READ, atomic, ATOMIC WRITE or FLUSH of the peer, kept so that a lost response can be sent again
/// (`struct resp_res` of the kernel's rxe).
struct ReadResource {
    /// The PSN of the request, and of the first response.
    var first = PSN(0)
    /// The number of PSNs of the responses.
    var packets: UInt32 = 0
    /// The number of responses that are not to be sent, or were sent, since the last copy of the request arrived.
    var sent: UInt32 = 0
    /// The number of responses up to the end of the last copy of the request, which may be shorter than the first one.
    var end: UInt32 = 0
    /// The index of the first response to the last copy of the request: its opcode is First or Only.
    var runStart: UInt32 = 0
    /// RETH.DMALen of the last copy of the request.
    var runLength: UInt32 = 0
    /// RETH.VA, RETH.R_Key and RETH.DMALen of a READ.
    var address: UInt64 = 0
    var key: UInt32 = 0
    /// The protection domain of the memory of a READ, which on XRC differs between requests.
    var protectionDomain: UInt32 = 0
    /// The number of the shared receive queue that the request named on XRC; 0 on RC.
    var sharedReceiveQueue: UInt32 = 0
    var length: UInt32 = 0
    /// The MSN of the responses.
    var msn: UInt32 = 0
    /// Of an atomic: the value of the memory before (AtomicAckETH.OrigRemDt).
    var original: UInt64 = 0
    /// The operation: an RDMA READ, an atomic, an ATOMIC WRITE or a FLUSH.
    var operation = Operation.read
    /// Every response was sent at least once.
    var allResponsesSent = false
    /// A duplicate of the request arrived (`replay` of the kernel's rxe). Independent of `allResponsesSent`: a
    /// duplicate can arrive before the last response is sent.
    var isReplayed = false

    enum Operation: UInt8 {
        case read, atomic, atomicWrite, flush
    }

    /// Whether it is an atomic, an ATOMIC WRITE or a FLUSH: executed once, with a response of one packet.
    @inline(__always) var isAtomic: Bool { operation != .read }

    /// The PSN after those of the responses.
    @inline(__always) var endPSN: PSN { first &+ packets }
    /// The MSN before this request.
    @inline(__always) var msnBefore: UInt32 { (msn &- 1) & mask24 }
}

/// The memory of the responder resources of a queue pair: a power of two of them, as many as its
/// `max_dest_rd_atomic` needs, or none. 128 of them are 8 KiB.
struct ReadResourceRing {
    private(set) var memory: UnsafeMutablePointer<ReadResource>?
    private(set) var capacity: UInt32 = 0

    /// The place of a resource by its free-running index. There is one: `max_dest_rd_atomic` is not 0.
    @inline(__always)
    func place(_ index: UInt32) -> UnsafeMutablePointer<ReadResource> {
        assert(capacity != 0, "a resource is used before max_dest_rd_atomic was set")
        return memory.unsafelyUnwrapped + Int(index & (capacity &- 1))
    }

    /// Makes room for `count` resources, and keeps those from `first` to before `end`.
    mutating func reserve(_ count: UInt32, keeping first: UInt32, to end: UInt32) {
        guard count > capacity else { return }
        var larger = ReadResourceRing()
        larger.capacity = max(capacity, 1)
        while larger.capacity < count { larger.capacity *= 2 }
        // Untouched memory takes no pages: each place is written when a resource begins there.
        larger.memory = .allocate(capacity: Int(larger.capacity))
        var index = first
        while index != end {
            larger.place(index).initialize(to: place(index).pointee)
            index &+= 1
        }
        memory?.deallocate()
        self = larger
    }
}

/// The state of the responder of a queue pair (`struct rxe_resp_info` of the kernel's rxe).
struct Responder {
    /// The expected PSN: that of the next request.
    var expected = PSN(0)
    /// The MSN: messages completed, 24 bits.
    var msn: UInt32 = 0
    /// The treatment of packets whose PSN is not `expected`.
    var sequence = RequestSequence.awaitingFirst
    /// The operation of the message of which some packets have arrived and others have not: `.send` or `.write`, and
    /// `betweenMessages` otherwise.
    var message = Self.betweenMessages

    @inline(__always) static var betweenMessages: Opcode.Operation { .unknown }

    /// The requests that arrived before the expected one.
    var gap = Gap()

    /// A receive work request was consumed and is not complete. On UC it is kept from a dropped message for the next
    /// one.
    var holdsReceive = false
    /// Its `wr_id`.
    var receiveID: UInt64 = 0
    /// The largest message that it can hold: `ReceiveWQE.room`.
    var receiveLength: UInt32 = 0
    /// The bytes received into it.
    var received: UInt32 = 0
    var sgeCount: Int = 0
    /// A copy of its SGEs, since the slot of the queue is released when the receive work request is consumed.
    let sgList: UnsafeMutablePointer<SGE>

    /// An incomplete RDMA WRITE: the address of the next byte, its R_Key, the remaining bytes, and all its bytes.
    var writeAddress: UInt64 = 0
    var writeKey: UInt32 = 0
    var writeLeft: UInt32 = 0
    var writeLength: UInt32 = 0

    /// The responder resources: a ring of `maxDestinationReadAtomic` READs and atomics, indexed by free-running
    /// counters. Resources before `firstResource` are forgotten.
    ///
    /// Invariant: less than half a ring of PSNs (2^23) is between the end of a remembered resource and `expected`. A
    /// duplicate request is at most 2^23 PSNs before `expected`, so it finds every resource that it can refer to; and
    /// since a resource has at most 2^23 PSNs, `steps` from any of its PSNs to `expected` is the distance itself, not
    /// modulo 2^24. Without that limit, a duplicate request finds a resource of an earlier lap and returns its old
    /// result.
    var resources: ReadResourceRing
    var firstResource: UInt32 = 0
    var endResource: UInt32 = 0
    /// All responses of the resources before this one are sent.
    var sendingResource: UInt32 = 0
    /// The value of `expected` at which the oldest resource is forgotten: 2^23 PSNs after its end. Not a PSN, and so
    /// never equal to `expected`, while no resource is remembered.
    var forgetAt = Self.nothingRemembered

    static var nothingRemembered: UInt32 { .max }

    /// The queued ACK, NAK or RNR NAK, if there is one.
    var acknowledgement: Acknowledgement?
    /// The last expendable ACK packet to another host (`OutgoingPacket.isExpendable`): its PSN, and when it was sent, in
    /// nanoseconds; 0: none was, or its loss was counted.
    var expendablePSN = PSN(0)
    var expendableAt: UInt64 = 0

    /// `firstResource`, `sendingResource` and `endResource` follow each other, and no more are remembered than the ring
    /// holds.
    var hasOrderedResources: Bool {
        sendingResource &- firstResource <= endResource &- firstResource
            && endResource &- firstResource <= resources.capacity
    }

    /// Makes room for `count` resources, `maxDestinationReadAtomic`. The ring never becomes smaller, since all resources
    /// may be in use.
    mutating func reserveResources(_ count: UInt32) {
        resources.reserve(count, keeping: firstResource, to: endResource)
    }

    /// An incomplete message is a SEND or an RDMA WRITE, and a SEND holds a receive work request.
    var isConsistent: Bool {
        switch message {
        case .send: holdsReceive
        case .write, Self.betweenMessages: true
        default: false
        }
    }
}

/// The states of the PSN sequence of requests that a responder receives (`sent_psn_nak` of the kernel's rxe).
enum RequestSequence: UInt8 {
    /// No packet arrived since RTR: the first one reports IBV_EVENT_COMM_EST.
    case awaitingFirst
    /// Packets arrive with the expected PSN.
    case inSequence
    /// Requests that follow the expected one are held, and no NAK was queued yet (`Gap`).
    case waiting
    /// A NAK for a PSN sequence error or an RNR NAK was queued, and no further one is until the expected PSN arrives
    /// (IBTA volume 1, 9.7.5.2).
    case negativelyAcknowledged
}

/// A queued acknowledgement: BTH.PSN, and the fields of its AETH.
struct Acknowledgement {
    var psn: PSN
    /// The MSN of `psn`.
    var msn: UInt32
    var syndrome: AETHSyndrome
    /// Whether it answers a duplicate request.
    var isRepeated = false
}
