import RoCEWire

/// The state of the requester of a queue pair (`struct rxe_req_info` and `struct rxe_comp_info` of the kernel's rxe).
/// Indices of send queue slots count up and wrap; the oldest, to which `una` belongs, is the consumer's position in the
/// ring.
///
/// ```
///   send queue   oldest          current           started     produced
///                  |  on its way   |  to be re-sent  |  not begun  |
///   PSNs          una            next              high
/// ```
///
/// Invariant (`isOrdered`): `una`, `next` and `high` follow each other within 2^21 PSNs. The window, at most 2^20
/// packets, limits `next`, and the last READ request can extend `readSegment`, at most 2^20 packets, beyond it. So all
/// PSNs that the requester compares are far less than half a ring (2^23) apart, except for the ends of a message, which
/// can have 2^23 packets: comparisons with those use `steps`.
///
/// `next` and `current` move back to `una` and the oldest slot when packets were lost (go-back-N); otherwise `next ==
/// high`.
struct Requester {
    /// The oldest PSN that is not acknowledged.
    var una = PSN(0)
    /// PSN of the packet that is sent next.
    var next = PSN(0)
    /// One past the highest PSN sent.
    var high = PSN(0)
    /// The work request that `next` belongs to.
    var current: UInt32 = 0
    /// One past the last work request that has PSNs.
    var started: UInt32 = 0
    /// Outstanding READ and atomic requests: sent since the last go-back, and without a complete response
    /// (`ibv_qp_attr.max_rd_atomic` is the limit).
    var outstandingReads: UInt32 = 0
    /// Retries left before IBV_WC_RETRY_EXC_ERR, and before IBV_WC_RNR_RETRY_EXC_ERR.
    var retriesLeft: UInt8 = 0
    var rnrRetriesLeft: UInt8 = 0
    /// The reason of the go-back since the last progress.
    var recovery = LossRecovery.none
    /// The status of the work request at `current`, if it failed; it completes when those before it are complete.
    var failure = CompletionStatus.success
    /// The number of packets that may be unacknowledged, and the progress towards one more.
    var window: UInt32 = 0
    var windowGrowth: UInt32 = 0
    /// Below this size, the window doubles per round trip; above it, the window grows by one.
    var slowStartEnd: UInt32 = 0
    /// The window before the packets were sent again early; 0: they were not, or an acknowledgement came since.
    var windowBeforeProbe: UInt32 = 0
    /// The measured round-trip time, which tells when to send again before the local ACK timeout expires.
    var roundTrip = RoundTripTime()
    /// When the local ACK timeout expires, in nanoseconds. The timer may run to an earlier time: see `isProbing`.
    var timeoutAt: UInt64 = 0
    /// Whether the oldest packets were sent again early since the last acknowledgement.
    var isProbing = false
    /// When that began, in nanoseconds.
    var probeBegan: UInt64 = 0
    /// Packets sent since the last one with BTH.A (AckReq).
    var packetsSinceAckReq: UInt32 = 0
    /// The status that a fault rule gives to the work request in slot `faultAt`, or success.
    var fault = CompletionStatus.success
    var faultAt: UInt32 = 0
    /// The bytes of the work request at `current` that were copied directly (`Core.executeDirectly`).
    var directOffset: UInt32 = 0
    /// Whether a reference was sent since one was last refused (`Core.mayRefer`).
    var hasReferences = false
    /// The SENDs that are to be sent as packets before references are tried again, and their number after the next
    /// refusal.
    var referencePause: UInt32 = 0
    var referencePenalty: UInt32 = 1
    /// Whether a reference was sent since the last go-back, or since one was last acknowledged, and the PSN after the
    /// first such reference.
    var awaitsReference = false
    var referenceEnd = PSN(0)
    /// The progress of draining the send queue in the state SQD.
    var drain = SendQueueDrain.notRequested

    /// Whether the acknowledgement that moved `una` covers packets that a probe did not send again, so that none was
    /// lost. Until `next` has followed `una`.
    var wasProbeNeedless: Bool { isProbing && next.precedes(una) }

    /// The packets that may still be sent before an acknowledgement.
    @inline(__always)
    var windowLeft: UInt32 {
        let inFlight = UInt32(bitPattern: una.distance(to: next))
        return inFlight < window ? window &- inFlight : 0
    }

    @inline(__always)
    var hasWindow: Bool { windowLeft != 0 }

    /// The invariant of the three PSNs.
    var isOrdered: Bool {
        let inFlight = steps(from: una, to: high)
        return steps(from: una, to: next) <= inFlight && inFlight < 1 << 21
    }

    /// The invariant of the slots of the send queue: oldest, `current` and `started` follow each other, and no more
    /// than the queue holds lie between them.
    func isOrdered(oldest: UInt32, limit: UInt32) -> Bool {
        current &- oldest <= started &- oldest && started &- oldest <= limit
    }
}

/// The reason why a requester sent packets again since the last acknowledgement (`need_retry`, `started_retry` of the
/// kernel's rxe). Progress leads back to `none`.
enum LossRecovery: UInt8 {
    /// No packet seemed lost.
    case none
    /// The local ACK timeout expired. A NAK for a PSN sequence error still leads to one more go-back.
    case timedOut
    /// A NAK for a PSN sequence error, or an implied NAK, led to a go-back. The next NAK counts as a copy of it and
    /// causes no go-back; the local ACK timeout does.
    case negativelyAcknowledged
}

/// The substates of SQD, and `notRequested` in every other state (IBTA volume 1, 10.3.1; `ibv_qp_attr.sq_draining`).
enum SendQueueDrain: UInt8 {
    /// The queue pair is not in SQD.
    case notRequested
    /// Work requests that were begun before SQD are not complete.
    case draining
    /// All of them are complete, and IBV_EVENT_SQ_DRAINED was reported if `en_sqd_async_notify` is set.
    case drained
}
