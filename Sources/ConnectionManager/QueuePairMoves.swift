import Verbs

// The transitions of a connection's queue pair: rdma_cm provides the attributes, and they are set on the caller's queue
// pair (rdma_init_qp_attr(3), ibv_modify_qp(3); IBTA volume 1, 12.9).

/// The limits that this side sets for a connection's queue pair.
struct Depths: Sendable {
    /// The largest number of outstanding reads and atomics of the peer (`max_dest_rd_atomic`).
    let responder: UInt8
    /// The largest number of outstanding reads and atomics of this side (`max_rd_atomic`).
    let initiator: UInt8
    let minRNRTimer: RNRTimer

    /// The requested values, or the limits of the device.
    init(_ parameters: ConnectionParameters, on context: Context) throws(VerbsError) {
        let device = try context.attributes()
        responder = parameters.responderResources ?? UInt8(clamping: device.maxQPRdAtom)
        initiator = parameters.initiatorDepth ?? UInt8(clamping: device.maxQPInitRdAtom)
        minRNRTimer = parameters.minRNRTimer
    }
}

extension ManagedConnection {
    /// Moves a queue pair from RESET to INIT, or a UD queue pair to RTS, so that receives can be posted.
    func prepare(_ queuePair: borrowing QueuePair, _ operation: String) throws(ConnectionError) {
        try identifier.require(queuePair, operation)
        let isDatagram = identifier.portSpace.isDatagram
        guard isDatagram == (queuePair.type == .unreliableDatagram) else {
            throw ConnectionError(
                .invalid("a queue pair of type \(queuePair.type) in port space \(identifier.portSpace)"),
                operation: operation, hint: "make one of type \(isDatagram ? "UD" : "RC")")
        }
        let state = queuePair.lastKnownState
        if isDatagram && state == .readyToSend || !isDatagram && state == .initialized { return }
        guard state == .reset else {
            throw ConnectionError(
                .invalid("the queue pair is in state \(state), not RESET"), operation: operation,
                hint: identifier.isIWARP
                    ? "use a new one" : "use a new one, or Connection.recycleQueuePair() when its connection is over")
        }
        let initialize = try attributes(for: .initialized, operation)
        do throws(VerbsError) {
            try queuePair.modify(initialize)
            guard isDatagram else { return }
            var receive = QueuePair.Attributes()
            receive.state = .readyToReceive
            try queuePair.modify(receive)
            var send = QueuePair.Attributes()
            send.state = .readyToSend
            send.sqPSN = 0
            try queuePair.modify(send)
        } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
    }

    /// Claims the queue pair for this connection, after `prepare`.
    func claim(_ queuePair: borrowing QueuePair, _ operation: String) throws(ConnectionError) {
        let control = QueuePairControl(queuePair)
        guard control.claim() else {
            throw ConnectionError(
                .invalid("the queue pair belongs to another connection, or late packets of one may still come"),
                operation: operation, hint: "use a new one, or wait for Connection.recycleQueuePair()")
        }
        guard begin(control) else {
            control.release()
            throw ConnectionError(
                .invalid("this has connected a queue pair already, or tried to"), operation: operation,
                hint: "connect once with each Connector, and accept each request once")
        }
    }

    /// Moves the queue pair of a connection to RTS, through INIT, whose access flags depend on the peer, and RTR.
    func moveToReady(_ depths: Depths, _ operation: String) throws(ConnectionError) {
        for state in [QueuePair.State.initialized, .readyToReceive, .readyToSend] {
            // iWARP: the kernel modifies the queue pair when the connection is established.
            if identifier.isIWARP, state != .initialized { return }
            var attributes = try attributes(for: state, operation)
            // A driver that returns no attribute of a state moves the queue pair itself.
            if attributes.mask == .state { continue }
            if let depth = attributes.maxDestRdAtomic { attributes.maxDestRdAtomic = min(depth, depths.responder) }
            if let depth = attributes.maxRdAtomic { attributes.maxRdAtomic = min(depth, depths.initiator) }
            // The kernel sets 0, the code of 655 ms.
            if attributes.minRNRTimer != nil { attributes.minRNRTimer = depths.minRNRTimer }
            if state == .readyToReceive { expose() }
            do throws(VerbsError) { try queuePair?.modify(attributes) } catch {
                throw ConnectionError(.verbs(error), operation: operation)
            }
        }
    }

    /// Does the same as `ConnectionIdentifier.queuePairAttributes`, with the operation that an error names.
    private func attributes(
        for state: QueuePair.State, _ operation: String
    ) throws(ConnectionError) -> QueuePair.Attributes {
        do throws(ConnectionError) { return try identifier.queuePairAttributes(for: state) } catch {
            throw ConnectionError(error.reason, operation: operation, hint: error.hint)
        }
    }
}
