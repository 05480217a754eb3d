import CSimulator

/// An identifier of rdma_cm: `struct rdma_cm_id` of the kernel, with its `struct ucma_context`.
final class Identifier {
    /// The states of `enum rdma_cm_state`. Addresses and routes are resolved within the command, so there are no
    /// states of queries.
    enum State {
        case idle, addressBound, addressResolved, routeResolved, connect, disconnect, listen, deviceRemoved
    }

    /// The states of communication: `enum ib_cm_state` for IB and RoCE, `enum iw_cm_state` for iWARP.
    enum Communication {
        /// There is no `ib_cm_id` or `iw_cm_id`.
        case none
        case idle, listen
        /// REQ sent or received, REP sent or received.
        case requestSent, requestReceived, replySent, replyReceived
        case established
        /// DREQ sent or received; iWARP: the connection is closing.
        case disconnectSent, disconnectReceived
        case timeWait
        /// SIDR_REQ sent or received.
        case lookUpSent, lookUpReceived
    }

    /// The number by which the program names it (`rdma_ucm_create_id_resp.id`). The communication ID is one more.
    let number: UInt32
    var file: ManagerFile
    /// The program's pointer, which events carry; 0: the identifier of a request that is not yet accepted.
    var userID: UInt64
    let space: UInt16
    /// `enum ibv_qp_type`.
    let type: UInt32
    /// The number of its events that the program has read.
    var eventsReported: UInt32 = 0
    /// The number of requests that a listener can still queue.
    var backlog = 0

    var state = State.idle
    var communication = Communication.none
    var source = sim_cm_address()
    var destination = sim_cm_address()
    var device: Device?
    /// The port space and the bound port; 0: not bound. `isClaimed`: the port is allocated on the wire too.
    var boundSpace: UInt16 = 0
    var isClaimed = false

    // Options.
    var reusesAddress = false
    var isFamilyOnly = false
    var hasFamilyOption = false
    var typeOfService: UInt8 = 0
    /// Local ACK Timeout; nil: that of the path.
    var timeout: UInt8?

    /// The port at the other end; 0: not known.
    var remoteLID: UInt16 = 0
    var path: Path?

    /// The communication ID of the peer; 0: not known.
    var remoteID: UInt32 = 0
    /// The PSN with which the peer begins to send, and with which this side does.
    let receivePSN: UInt32
    var sendPSN: UInt32 = 0
    var queuePair: UInt32 = 0
    var hasSharedReceives = false
    var remoteQueuePair: UInt32 = 0
    var pathMTU: UInt8 = 0
    var responderResources: UInt8 = 0
    var initiatorDepth: UInt8 = 0
    var retryCount: UInt8 = 0
    var rnrRetryCount: UInt8 = 0
    var ackTimeout: UInt8 = 0
    var qkey: UInt32 = 0
    var ece = rdma_ucm_ece()
    var memberships: [Membership] = []

    init(number: UInt32, file: ManagerFile, userID: UInt64, space: UInt16, type: UInt32, receivePSN: UInt32) {
        self.number = number
        self.file = file
        self.userID = userID
        self.space = space
        self.type = type
        self.receivePSN = receivePSN
    }

    var communicationID: UInt32 { number + 1 }
    var isDatagram: Bool { type == IBV_QPT_UD.rawValue }

    /// Whether a message from the peer can still arrive.
    var hasPeer: Bool {
        switch communication {
        case .none, .idle, .listen, .timeWait: false
        default: remoteLID != 0
        }
    }
}

/// A path record of the kernel (`struct sa_path_rec`).
struct Path {
    /// In network byte order.
    var source: (UInt64, UInt64) = (0, 0)
    var destination: (UInt64, UInt64) = (0, 0)
    /// IB: LIDs.
    var sourceLID: UInt16 = 0
    var destinationLID: UInt16 = 0
    var flowLabel: UInt32 = 0
    var hopLimit: UInt8 = 0
    var trafficClass: UInt8 = 0
    var serviceLevel: UInt8 = 0
    /// `enum ibv_mtu`, `enum ibv_rate`, and the packet lifetime as 4.096 us times a power of 2.
    var mtu: UInt8 = 5
    var rate: UInt8 = 0
    var lifetime: UInt8 = 18
    var pkey: UInt16 = 0xFFFF

    /// The Local ACK Timeout: the smallest that covers two lifetimes and the peer's delay (`cm_ack_timeout`).
    var ackTimeout: UInt8 {
        let delay: UInt8 = 16
        let twice = lifetime + 1
        let sum = twice >= delay ? twice + (delay >= twice - 1 ? 1 : 0) : delay + (twice >= delay - 1 ? 1 : 0)
        return min(31, sum)
    }
}

/// Membership of a multicast group (`struct ucma_multicast`).
final class Membership {
    let number: UInt32
    let identifier: Identifier
    let userID: UInt64
    let address: sim_cm_address
    var eventsReported: UInt32 = 0

    init(number: UInt32, identifier: Identifier, userID: UInt64, address: sim_cm_address) {
        self.number = number
        self.identifier = identifier
        self.userID = userID
        self.address = address
    }
}
