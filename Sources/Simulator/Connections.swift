import CSimulator

// iWARP: a queue pair reaches RTS only through the kernel's connection manager, and the kernel moves it when its
// connection ends (`c4iw_modify_qp` of Linux). These functions are the interface of the simulated connection manager;
// `uverbs_sim_connect` and `uverbs_sim_disconnect` call them for tests without one.
//
// | state of the kernel driver | `enum ibv_qp_state` |
// |----------------------------|---------------------|
// | IDLE                       | INIT, also of a new queue pair |
// | RTS                        | RTS |
// | CLOSING                    | SQD |
// | TERMINATE                  | SQE |
// | ERROR                      | ERR |

/// How a connection ends.
enum ConnectionEnd: UInt8 {
    /// One side closes it, as FIN of TCP: both queue pairs become idle.
    case close
    /// A message was refused (RDMAP Terminate): both queue pairs enter ERROR.
    case terminate
    /// One side aborts it, as RST of TCP: both queue pairs enter ERROR.
    case abort
    /// The answer to `close`.
    case closed
}

/// Learns of the ends of connections. The connection manager is a subclass.
class ConnectionObserver {
    init() {}

    /// The connection of a queue pair has ended, by its program, its peer or an error. The queue pair has its new state.
    func ended(_ queuePair: QueuePair, _ end: ConnectionEnd) {}
}

extension Device {
    /// Moves an idle queue pair to RTS, connected to queue pair `peer` of the port with LID `port`.
    ///
    /// The peer is connected by a call of its own; requests to it wait for that.
    /// - Parameters:
    ///   - isInitiator: Whether it is the active side, which sends the first message.
    ///   - initiatorDepth: READs that it may have outstanding (ORD).
    ///   - responderResources: READs of the peer that it handles at a time (IRD).
    func connect(
        _ number: UInt32, to peer: UInt32, at port: UInt16, isInitiator: Bool, initiatorDepth: UInt8,
        responderResources: UInt8
    ) throws(Refusal) {
        try demand(options.isIWARP, EOPNOTSUPP, "only iWARP queue pairs are connected by the kernel")
        guard let queuePair = queuePair(number: number) else {
            throw Refusal(ENOENT, "there is no queue pair of this number", has: Int(number))
        }
        try demand(
            queuePair.state == IBV_QPS_INIT.rawValue, EINVAL, "the queue pair is not idle", has: Int(queuePair.state))
        try demand(
            !queuePair.wasConnected, EINVAL,
            "the adapter has cleared the contexts of the queue pair's queues when its connection ended: create another")
        try demand(
            initiatorDepth <= codec.identity.maxReadAtomic && responderResources <= codec.identity.maxReadAtomic,
            EINVAL, "more READs than the device has", has: Int(max(initiatorDepth, responderResources)),
            wants: Int(codec.identity.maxReadAtomic))
        queuePair.wasConnected = true
        queuePair.attributes.destination = peer
        queuePair.attributes.address.dlid = port
        queuePair.attributes.maxReadAtomic = initiatorDepth
        queuePair.attributes.maxDestReadAtomic = responderResources
        // The kernel driver enables all operations; the access flags of memory regions decide.
        queuePair.attributes.access = IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue
        queuePair.state = IBV_QPS_RTS.rawValue
        codec.start(queuePair, isInitiator: isInitiator)
        hasProgressed = true
    }

    /// Ends the connection of a queue pair from this side.
    func disconnect(_ number: UInt32, _ end: ConnectionEnd) throws(Refusal) {
        guard let queuePair = queuePair(number: number) else {
            throw Refusal(ENOENT, "there is no queue pair of this number", has: Int(number))
        }
        try demand(
            options.isIWARP && queuePair.state == IBV_QPS_RTS.rawValue, ENOTCONN, "the queue pair is not connected",
            has: Int(queuePair.state))
        endConnection(queuePair, end)
    }

    /// The message of a peer, or a request of this queue pair, is refused: an asynchronous event, and the end of the
    /// connection (`c4iw_ev_dispatch` of Linux).
    func terminate(_ queuePair: QueuePair, _ event: ibv_event_type) {
        guard queuePair.state == IBV_QPS_RTS.rawValue else { return }
        raise(event, queuePair)
        endConnection(queuePair, .terminate)
    }

    /// Ends a connection from this side; does nothing when there is none.
    func endConnection(_ queuePair: QueuePair, _ end: ConnectionEnd) {
        guard queuePair.state == IBV_QPS_RTS.rawValue || queuePair.state == IBV_QPS_SQD.rawValue else { return }
        codec.markError(queuePair)
        queuePair.outstanding = 0
        hasProgressed = true
        if end == .close {
            // The peer's answer makes the queue pair idle.
            queuePair.state = IBV_QPS_SQD.rawValue
            if !tellPeer(of: queuePair, .close) { finishConnection(queuePair, end, IBV_QPS_INIT) }
            return
        }
        queuePair.state = end == .terminate ? IBV_QPS_SQE.rawValue : IBV_QPS_ERR.rawValue
        tellPeer(of: queuePair, end)
        finishConnection(queuePair, end, IBV_QPS_ERR)
    }

    /// The peer has ended the connection.
    private func peerEnded(_ queuePair: QueuePair, _ end: ConnectionEnd) {
        codec.markError(queuePair)
        queuePair.outstanding = 0
        hasProgressed = true
        switch end {
        case .close:
            queuePair.state = IBV_QPS_SQD.rawValue
            tellPeer(of: queuePair, .closed)
            finishConnection(queuePair, end, IBV_QPS_INIT)
        case .closed: finishConnection(queuePair, end, IBV_QPS_INIT)
        case .terminate:
            codec.receiveTerminate(queuePair)
            finishConnection(queuePair, end, IBV_QPS_ERR)
        case .abort: finishConnection(queuePair, end, IBV_QPS_ERR)
        }
    }

    private func finishConnection(_ queuePair: QueuePair, _ end: ConnectionEnd, _ state: ibv_qp_state) {
        queuePair.state = state.rawValue
        queuePair.attributes.destination = 0
        codec.markFlush(queuePair)
        connectionObserver?.ended(queuePair, end)
    }

    /// Returns whether there is a peer.
    @discardableResult
    private func tellPeer(of queuePair: QueuePair, _ end: ConnectionEnd) -> Bool {
        let number = queuePair.attributes.destination
        guard let wire else {
            guard let peer = self.queuePair(number: number) else { return false }
            return receiveEnd(peer, end, Origin(queuePair, self))
        }
        var header = sim_wire_message()
        header.kind = UInt8(SIM_WIRE_DISCONNECT.rawValue)
        header.acknowledgement = end.rawValue
        header.source_queue_pair = queuePair.number
        header.destination_queue_pair = number
        header.path_mtu = UInt32(queuePair.pathMTU)
        wire.sendAcknowledgement(
            header, UnsafeRawBufferPointer(start: nil, count: 0), to: port(of: queuePair.attributes.address))
        return true
    }

    /// A message that ends a connection. Returns false and does nothing when the queue pair is not, or no longer,
    /// connected to its sender.
    @discardableResult
    func receiveEnd(_ queuePair: QueuePair, _ end: ConnectionEnd, _ origin: Origin) -> Bool {
        guard queuePair.state == IBV_QPS_RTS.rawValue || queuePair.state == IBV_QPS_SQD.rawValue,
            queuePair.attributes.destination == origin.queuePair,
            port(of: queuePair.attributes.address) == origin.lid
        else { return false }
        peerEnded(queuePair, end)
        return true
    }

    /// Aborts connections to ports that are closed or whose process has ended: the host of a dead process resets its
    /// connections.
    func abortUnreachable() {
        guard let wire, !isDead else { return }
        for queuePair in queuePairs {
            guard let queuePair, queuePair.state == IBV_QPS_RTS.rawValue || queuePair.state == IBV_QPS_SQD.rawValue,
                !wire.isOpen(port(of: queuePair.attributes.address))
            else { continue }
            while receiveMessages() > 0 {}
            endConnection(queuePair, .abort)
        }
    }

    // MARK: - MODIFY_QP

    /// MODIFY_QP of an iWARP queue pair (`c4iw_ib_modify_qp` of Linux).
    func modifyConnection(
        _ queuePair: QueuePair, _ request: ib_uverbs_modify_qp, _ driver: DriverData
    ) throws(Refusal) {
        var mask = request.attr_mask
        let state = UInt32(request.qp_state)
        try codec.modify(queuePair, driver)
        try demand(
            mask & Mask.state == 0 || state <= IBV_QPS_ERR.rawValue, EINVAL, "there is no such state", has: Int(state))
        // iWARP has no RTR.
        if state == IBV_QPS_RTR.rawValue { mask &= ~Mask.state }
        try demand(
            mask & Mask.access == 0 || queuePair.state == IBV_QPS_INIT.rawValue, EIO,
            "access flags of a queue pair that is not idle", has: Int(queuePair.state))
        if mask & Mask.sendPSN != 0 {
            return try codec.ringDoorbell(queuePair, isReceive: false, slots: request.sq_psn)
        }
        if mask & Mask.receivePSN != 0 {
            return try codec.ringDoorbell(queuePair, isReceive: true, slots: request.rq_psn)
        }
        if mask & Mask.state != 0 {
            try changeState(queuePair, state == IBV_QPS_RESET.rawValue ? IBV_QPS_INIT.rawValue : state)
        }
    }

    private func changeState(_ queuePair: QueuePair, _ state: UInt32) throws(Refusal) {
        if queuePair.state == state { return }
        switch (ibv_qp_state(rawValue: queuePair.state), ibv_qp_state(rawValue: state)) {
        case (IBV_QPS_INIT, IBV_QPS_RTS):
            throw Refusal(EINVAL, "only the kernel's connection manager moves an iWARP queue pair to RTS")
        case (IBV_QPS_INIT, IBV_QPS_ERR):
            queuePair.state = state
            codec.markError(queuePair)
            codec.markFlush(queuePair)
        case (IBV_QPS_RTS, IBV_QPS_SQD): endConnection(queuePair, .close)
        case (IBV_QPS_RTS, IBV_QPS_SQE): endConnection(queuePair, .terminate)
        case (IBV_QPS_RTS, IBV_QPS_ERR): endConnection(queuePair, .abort)
        case (IBV_QPS_ERR, IBV_QPS_INIT): queuePair.state = state
        default:
            throw Refusal(
                EINVAL, "the state machine has no such transition: to, from", has: Int(state),
                wants: Int(queuePair.state))
        }
    }
}
