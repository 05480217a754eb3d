import CRDMACM
import Verbs

/// What two sides agree on when they connect (struct rdma_conn_param). The defaults suit most.
public struct ConnectionParameters: Hashable, Sendable {
    /// Most reads and atomics of the peer that this side answers at a time; nil: as many as the device can, and of an
    /// accepted connection as the peer asks for.
    public var responderResources: UInt8?
    /// Most reads and atomics that this side has outstanding; nil: as many as the device can, and of an accepted
    /// connection as the peer offers.
    public var initiatorDepth: UInt8?
    /// Whether the hardware controls the flow.
    public var flowControl = false
    /// How often to try again when no answer comes: 0 to 7. Set by the connecting side for both.
    public var retryCount: UInt8 = 7
    /// How often to try again when the peer has no receive posted: 0 to 6; 7 tries for ever.
    public var rnrRetry: UInt8 = 7
    /// How long the peer waits when no receive is posted here: a code from 0 to 31, as `ConnectionOptions.minRNRTimer`.
    public var minRNRTimer: UInt8 = 12
    /// Number of the queue pair: 24 bits.
    public var queuePairNumber: UInt32 = 0
    /// Whether the queue pair takes its receives from a shared receive queue.
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

    /// Hands them to `body` in the form of rdma_cma.h, valid for the call.
    func withRaw<Result>(
        _ privateData: [UInt8], _ body: (UnsafeMutablePointer<rdma_conn_param>) -> Result
    ) -> Result {
        privateData.withUnsafeBufferPointer { bytes in
            var raw = rdma_conn_param()
            raw.private_data = UnsafeRawPointer(bytes.baseAddress)
            raw.private_data_len = UInt8(clamping: bytes.count)
            // librdmacm takes these for "as many as the device can" (RDMA_MAX_RESP_RES, RDMA_MAX_INIT_DEPTH).
            raw.responder_resources = responderResources ?? 0xff
            raw.initiator_depth = initiatorDepth ?? 0xff
            raw.flow_control = flowControl ? 1 : 0
            raw.retry_count = retryCount
            raw.rnr_retry_count = rnrRetry
            raw.srq = hasSharedReceiveQueue ? 1 : 0
            raw.qp_num = queuePairNumber
            return body(&raw)
        }
    }
}

/// How many bytes a program may send along, by message and port space (IBTA volume 1, 12.6 and 12.11; the kernel takes
/// 36 bytes of requests for the addresses).
public enum PrivateDataLimit {
    /// Along with a request for a connection: 56; for the look-up of a datagram service: 180.
    public static func request(_ space: PortSpace) -> Int {
        space.isDatagram ? 180 : space == .infiniBand ? 92 : 56
    }
    /// Along with an acceptance: 196; of a datagram service: 136.
    public static func acceptance(_ space: PortSpace) -> Int { space.isDatagram ? 136 : 196 }
    /// Along with a rejection: 148; of a datagram service: 136.
    public static func rejection(_ space: PortSpace) -> Int { space.isDatagram ? 136 : 148 }
}
