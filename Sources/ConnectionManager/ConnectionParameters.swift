import CRDMACM
import Verbs

/// The parameters that two sides agree on when they connect (`struct rdma_conn_param`).
public struct ConnectionParameters: Hashable, Sendable {
    /// Responder resources (`rdma_conn_param.responder_resources`): the most RDMA reads and atomics of the peer that
    /// this side serves at a time. nil: the limit of the device, and for an accepted connection at most the peer's
    /// initiator depth.
    public var responderResources: UInt8?
    /// Initiator depth (`rdma_conn_param.initiator_depth`): the most outstanding RDMA reads and atomics of this side.
    /// nil: the limit of the device, and for an accepted connection at most the peer's responder resources.
    public var initiatorDepth: UInt8?
    /// Whether the hardware provides end-to-end flow control (`rdma_conn_param.flow_control`).
    public var flowControl = false
    /// Retries when no acknowledgement arrives (`rdma_conn_param.retry_count`): 0 to 7. The connecting side sets it for
    /// both; ignored when accepting.
    public var retryCount: UInt8 = 7
    /// Retries after an RNR NAK, when the peer has no receive posted (`rdma_conn_param.rnr_retry_count`): 0 to 6; 7
    /// retries without a limit.
    public var rnrRetry: UInt8 = 7
    /// Minimum RNR NAK timer (`ibv_qp_attr.min_rnr_timer`): how long the peer waits when no receive is posted here.
    public var minRNRTimer = RNRTimer(rawValue: 12)
    /// Number of the queue pair (`rdma_conn_param.qp_num`): 24 bits.
    public var queuePairNumber: UInt32 = 0
    /// Whether the queue pair uses a shared receive queue (`rdma_conn_param.srq`).
    public var hasSharedReceiveQueue = false

    /// The defaults, with no queue pair.
    public init() {}

    init(_ raw: rdma_conn_param) {
        responderResources = raw.responder_resources
        initiatorDepth = raw.initiator_depth
        flowControl = raw.flow_control != 0
        retryCount = raw.retry_count
        rnrRetry = raw.rnr_retry_count
        queuePairNumber = raw.qp_num
        hasSharedReceiveQueue = raw.srq != 0
    }

    /// Parameters for that queue pair.
    func with(_ queuePair: borrowing QueuePair) -> ConnectionParameters {
        var parameters = self
        parameters.queuePairNumber = queuePair.number
        parameters.hasSharedReceiveQueue = queuePair.hasSharedReceiveQueue
        return parameters
    }

    /// Passes them to `body` as a `struct rdma_conn_param`, which is valid during the call.
    func withRaw<Result>(
        _ privateData: [UInt8], _ body: (UnsafeMutablePointer<rdma_conn_param>) -> Result
    ) -> Result {
        privateData.withUnsafeBufferPointer { bytes in
            var raw = raw
            raw.private_data = UnsafeRawPointer(bytes.baseAddress)
            raw.private_data_len = UInt8(clamping: bytes.count)
            return body(&raw)
        }
    }

    /// The C struct, without private data.
    var raw: rdma_conn_param {
        var raw = rdma_conn_param()
        // For librdmacm, 0xff is the limit of the device (RDMA_MAX_RESP_RES, RDMA_MAX_INIT_DEPTH).
        raw.responder_resources = responderResources ?? 0xff
        raw.initiator_depth = initiatorDepth ?? 0xff
        raw.flow_control = flowControl ? 1 : 0
        raw.retry_count = retryCount
        raw.rnr_retry_count = rnrRetry
        raw.srq = hasSharedReceiveQueue ? 1 : 0
        raw.qp_num = queuePairNumber
        return raw
    }
}

/// The most bytes of private data, by message and port space (`rdma_conn_param.private_data_len`; IBTA volume 1, 12.6
/// and 12.11). The kernel uses 36 bytes of a request for the addresses.
public enum PrivateDataLimit {
    /// In each message of iWARP: 251 bytes, since the length has 8 bits, and MPA's own 4 bytes count (RFC 6581).
    public static let iWARP = 251
    /// In a request (rdma_connect(3)): 56 bytes for a connection, 180 for the look-up of a datagram service.
    public static func request(_ space: PortSpace) -> Int {
        space.isDatagram ? 180 : space == .infiniBand ? 92 : 56
    }
    /// In an acceptance (rdma_accept(3)): 196 bytes; of a datagram service 136.
    public static func acceptance(_ space: PortSpace) -> Int { space.isDatagram ? 136 : 196 }
    /// In a rejection (rdma_reject(3)): 148 bytes; of a datagram service 136.
    public static func rejection(_ space: PortSpace) -> Int { space.isDatagram ? 136 : 148 }
}
