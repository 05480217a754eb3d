import RoCEWire

/// Where a queue pair's sending side stands. Indices count slots of the send queue freely; the
/// oldest, to which `una` belongs, is the consumer's position in the ring.
///
/// ```
///   send queue   oldest          current           started     produced
///                  |  on its way   |  to be re-sent  |  not begun  |
///   PSNs          una            next              high
/// ```
///
/// `next` and `current` move back to `una` and the oldest slot when packets were lost (go-back-N); otherwise `next == high`.
struct Requester {
    /// Oldest PSN that is not acknowledged.
    var una = PSN(0)
    /// PSN of the packet that is sent next.
    var next = PSN(0)
    /// One past the highest PSN sent.
    var high = PSN(0)
    /// The work request that `next` belongs to.
    var current: UInt32 = 0
    /// One past the last work request that has PSNs.
    var started: UInt32 = 0
    /// READ and atomic requests on their way: sent since the last go-back, and not answered.
    var outstandingReads: UInt32 = 0
    /// Retries left before RETRY_EXC_ERR, and before RNR_RETRY_EXC_ERR.
    var retriesLeft: UInt8 = 0
    var rnrRetriesLeft: UInt8 = 0
    /// Waits for the RNR timer, and sends nothing.
    var isWaitingForReceiver = false
    /// Went back because of a missing response and has seen no progress since: the next one waits for the timer.
    var wentBackForGap = false
    /// Went back, to a SEND or WRITE that seemed lost, and has seen no progress since.
    var isRepairing = false
    /// The work request at `current` cannot be carried out for this reason; it fails when those before are complete.
    var failure = CompletionStatus.success
    /// How many packets may be on their way, and progress towards one more.
    var window: UInt32 = 0
    var windowGrowth: UInt32 = 0
    /// Below it the window doubles per round trip; above it grows by one.
    var slowStartEnd: UInt32 = 0
    /// Packets sent since an acknowledgement was asked for.
    var unasked: UInt32 = 0
    /// SQD: the drained event is still to be reported.
    var drainPending = false
}
