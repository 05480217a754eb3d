/// Counters of an engine: packets, drops and retransmissions. They wrap. The names in parentheses are those of the
/// kernel's hw_counters: rxe's, or mlx5's where rxe has no such counter.
@frozen
public struct Counters: Equatable, Sendable {
    /// Packets written by `transmit` (`sent_pkts`).
    public var sentPackets: UInt64 = 0
    /// Payload bytes in sent packets, retransmissions included (without a counterpart; `port_xmit_data` also counts
    /// headers).
    public var sentBytes: UInt64 = 0
    /// Packets passed to `receive` (`rcvd_pkts`).
    public var receivedPackets: UInt64 = 0
    /// Payload bytes placed in memory (without a counterpart; `port_rcv_data` also counts headers).
    public var receivedBytes: UInt64 = 0

    /// Dropped: not a packet of this format, or a BTH.OpCode that is not known.
    public var droppedMalformed: UInt64 = 0
    /// Dropped: no queue pair has the QPN BTH.DestQP.
    public var droppedNoQueuePair: UInt64 = 0
    /// Dropped: the queue pair does not receive in its state (`ibv_qp_attr.qp_state`).
    public var droppedState: UInt64 = 0
    /// Dropped: the addresses of the packet are not those of the connection (`ibv_qp_attr.ah_attr`; IBTA volume 1,
    /// 9.6.1).
    public var droppedAddress: UInt64 = 0
    /// Dropped: a P_Key of another partition (IBTA volume 1, 10.9.3; `ibv_port_attr.bad_pkey_cntr`).
    public var droppedPKey: UInt64 = 0
    /// Dropped: UD with another Q_Key (`ibv_port_attr.qkey_viol_cntr`).
    public var droppedQKey: UInt64 = 0
    /// Dropped: a BTH.OpCode of another transport service, or an XRC request to an XRC_SEND queue pair (IBTA
    /// volume 1, 9.6.1).
    public var droppedServiceType: UInt64 = 0
    /// Dropped: UC or UD packets whose sequence or length the transport service does not allow (IBTA volume 1, 9.8).
    public var droppedInvalid: UInt64 = 0
    /// Dropped: UC or UD packets without a posted receive work request (mlx5: `out_of_buffer`).
    public var droppedNoReceive: UInt64 = 0
    /// Dropped: UC or UD messages longer than the oldest receive work request, which stays in the queue (mlx5:
    /// `resp_local_length_error`).
    public var droppedTooLong: UInt64 = 0
    /// Dropped: UC RDMA WRITEs whose R_Key does not allow the range or the access (mlx5: `resp_remote_access_errors`).
    public var droppedAccess: UInt64 = 0
    /// RC requests ahead of the expected PSN (`out_of_seq_request`); each gap causes one NAK, unless it is filled before.
    public var outOfSequence: UInt64 = 0
    /// Those that were kept until the earlier ones arrived (the engine's own).
    public var heldRequests: UInt64 = 0
    /// Duplicate RC requests, which are acknowledged again and not executed again (`duplicate_request`).
    public var duplicateRequests: UInt64 = 0
    /// RC responses for no outstanding request, which are ignored (IBTA volume 1, 9.7.6).
    public var strayResponses: UInt64 = 0
    /// Congestion notification packets (RoCEv2 annex A17.9.3), which are ignored (mlx5: `rp_cnp_ignored`).
    public var congestionNotifications: UInt64 = 0

    /// Requests that were executed directly: one-sided ones by the requester, without a packet, and long SENDs by the
    /// responder, which counts each part of one (the engine's own).
    public var directRequests: UInt64 = 0
    /// The bytes that those requests copied (the engine's own).
    public var directBytes: UInt64 = 0
    /// Retransmitted request packets (rxe counts the retries instead: `completer_retry_err`).
    public var retransmittedPackets: UInt64 = 0
    /// Repairs: SENDs or RDMA WRITEs that were acknowledged after they had been sent again (the engine's own).
    public var repairs: UInt64 = 0
    /// Duplicate RDMA READ requests whose responses were sent again (part of `duplicate_request`).
    public var repeatedReads: UInt64 = 0
    /// Expirations of the local ACK timeout (IBTA volume 1, 9.7.6.1.3; mlx5: `local_ack_timeout_err`).
    public var timeouts: UInt64 = 0
    /// Packets sent again after the retransmission timeout of the connection, before the local ACK timeout expired (the
    /// engine's own).
    public var probes: UInt64 = 0
    /// Those after which an acknowledgement showed that no packet was lost (the engine's own).
    public var needlessProbes: UInt64 = 0
    /// RNR NAKs received (`rcvd_rnr_err`).
    public var rnrNAKsReceived: UInt64 = 0
    /// NAKs for a PSN sequence error received (`rcvd_seq_err`).
    public var sequenceNAKsReceived: UInt64 = 0
    /// Implied NAKs: READ or atomic responses that were missing when a later response arrived (mlx5:
    /// `implied_nak_seq_err`).
    public var impliedNAKs: UInt64 = 0
    /// RNR NAKs sent (`send_rnr_err`).
    public var rnrNAKsSent: UInt64 = 0
    /// Other NAKs sent (AETH syndrome `AETH_NAK`).
    public var naksSent: UInt64 = 0
    /// Completion queues that overran (`IBV_EVENT_CQ_ERR`).
    public var completionQueueOverruns: UInt64 = 0

    /// Creates counters (hw_counters) of zero.
    @inlinable
    public init() {}
}
