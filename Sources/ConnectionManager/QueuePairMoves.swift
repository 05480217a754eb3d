import SystemPackage
import Verbs

// rdma_cm knows what a connection's queue pair must be told, and the queue pair is the caller's: these lines bring the
// two together (rdma_init_qp_attr(3); IBTA volume 1, 12.9).

/// What this side allows a connection's queue pair.
struct Depths: Sendable {
    /// Most reads and atomics of the peer at a time.
    let responder: UInt8
    /// Most reads and atomics that are outstanding from here.
    let initiator: UInt8
    let minRNRTimer: UInt8

    /// What was asked for, or what the device can.
    init(_ parameters: ConnectionParameters, on context: Context) throws(VerbsError) {
        let device = try context.attributes()
        responder = parameters.responderResources ?? UInt8(clamping: device.maxResponderDepth)
        initiator = parameters.initiatorDepth ?? UInt8(clamping: device.maxInitiatorDepth)
        minRNRTimer = parameters.minRNRTimer
    }
}

extension Conversation {
    /// Moves a queue pair from RESET to where receives can be posted: INIT; of datagrams to RTS.
    func prepare(_ queuePair: borrowing QueuePair, _ operation: String) throws(ConnectionError) {
        try identifier.require(queuePair, operation)
        let isDatagram = identifier.portSpace.isDatagram
        guard isDatagram == (queuePair.kind == .unreliableDatagram) else {
            throw ConnectionError(
                .invalid("a queue pair of type \(queuePair.kind) in port space \(identifier.portSpace)"),
                operation: operation, hint: "make one of type \(isDatagram ? "UD" : "RC")")
        }
        let state = queuePair.lastKnownState
        if isDatagram && state == .readyToSend || !isDatagram && state == .initialized { return }
        guard state == .reset else {
            throw ConnectionError(
                .invalid("the queue pair is in state \(state), not RESET"), operation: operation,
                hint: "use a new one, or Connection.recycleQueuePair() when its connection is over")
        }
        do throws(VerbsError) {
            try queuePair.modify(try attributes(for: .initialized, operation))
            guard isDatagram else { return }
            var receive = QueuePair.Attributes()
            receive.state = .readyToReceive
            try queuePair.modify(receive)
            var send = QueuePair.Attributes()
            send.state = .readyToSend
            send.sendPSN = 0
            try queuePair.modify(send)
        } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
    }

    /// Takes the queue pair for this connection, after `prepare`.
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
        do throws(VerbsError) {
            for state in [QueuePair.State.initialized, .readyToReceive, .readyToSend] {
                var attributes = try attributes(for: state, operation)
                // iWARP: the kernel does it with the connection.
                if attributes.mask == .state { continue }
                if let depth = attributes.responderDepth { attributes.responderDepth = min(depth, depths.responder) }
                if let depth = attributes.initiatorDepth { attributes.initiatorDepth = min(depth, depths.initiator) }
                // The kernel says 0, which is 655 ms for every receive that is not posted in time.
                if attributes.minRNRTimer != nil { attributes.minRNRTimer = depths.minRNRTimer }
                if state == .readyToReceive { expose() }
                try queuePair?.modify(attributes)
            }
        } catch {
            throw ConnectionError(.verbs(error), operation: operation)
        }
    }

    /// As `ConnectionIdentifier.queuePairAttributes`, among verbs.
    private func attributes(
        for state: QueuePair.State, _ operation: String
    ) throws(VerbsError) -> QueuePair.Attributes {
        do throws(ConnectionError) {
            return try identifier.queuePairAttributes(for: state)
        } catch {
            var errno = Errno.ioError
            if case .system(_, let code) = error.reason { errno = code }
            throw VerbsError(
                "rdma_init_qp_attr", errno: errno,
                object: VerbsObject("connection identifier", device: identifier.deviceName ?? ""),
                hint: "the connection is no longer there: the peer, or its host, may have gone")
        }
    }
}
