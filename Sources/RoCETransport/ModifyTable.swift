/// The attributes that a transition requires and allows (IBTA volume 1, MODIFY QP, table "QP State Transition
/// Properties"; ibv_modify_qp(3); `qp_state_table` of the kernel). `state` and `currentState` are allowed in every
/// change of the table.
///
/// | change | RC | UC | UD | XRC_SEND | XRC_RECV |
/// |--------|----|----|----|----------|----------|
/// | RESET, INIT -> INIT | P_Key index, port, access | same | P_Key index, port, Q_Key | as RC | as RC |
/// | INIT -> RTR | path, MTU, destination, RQ PSN, dest. RD atomic, RNR timer | first four | - | as UC | as RC |
/// | RTR -> RTS | SQ PSN, timeout, both retries, RD atomic | SQ PSN | SQ PSN | as RC | SQ PSN, timeout |
/// | any -> RESET, ERR | - | - | - | - | - |
struct Transition {
    let required: AttributeMask
    let optional: AttributeMask

    private init(_ required: AttributeMask, optional: AttributeMask = []) {
        self.required = required
        self.optional = optional
    }

    /// The transition from one state to another; nil for a pair of states without a transition.
    static func between(_ from: QueuePairState, _ to: QueuePairState, _ type: QueuePairType) -> Transition? {
        switch (from, to) {
        case (_, .reset), (_, .error): return Transition([])
        case (.reset, .initialized): return Transition(initial(type))
        case (.initialized, .initialized): return Transition([], optional: initial(type))
        case (.initialized, .readyToReceive): return toReadyToReceive(type)
        case (.readyToReceive, .readyToSend): return toReadyToSend(type)
        case (.readyToSend, .readyToSend), (.sendQueueDrained, .readyToSend):
            return Transition([], optional: whileSending(type))
        case (.readyToSend, .sendQueueDrained): return Transition([], optional: .sqdAsyncNotify)
        case (.sendQueueDrained, .sendQueueDrained): return whileDrained(type)
        case (.sendQueueError, .readyToSend) where !type.isReliable:
            return Transition([], optional: type == .ud ? .qkey : .access)
        default: return nil
        }
    }

    private static func initial(_ type: QueuePairType) -> AttributeMask {
        type == .ud ? [.pkeyIndex, .port, .qkey] : [.pkeyIndex, .port, .access]
    }

    private static func toReadyToReceive(_ type: QueuePairType) -> Transition {
        if type == .ud { return Transition([], optional: [.pkeyIndex, .qkey]) }
        let optional: AttributeMask = [.alternatePath, .access, .pkeyIndex]
        let connected: AttributeMask = [.path, .pathMTU, .destinationQPN, .rqPSN]
        if type == .uc || type == .xrcSend { return Transition(connected, optional: optional) }
        return Transition(connected.union([.maxDestinationReadAtomic, .minRNRTimer]), optional: optional)
    }

    private static func toReadyToSend(_ type: QueuePairType) -> Transition {
        let optional = whileSending(type)
        if !type.isReliable { return Transition(.sqPSN, optional: optional) }
        if type == .xrcReceive { return Transition([.sqPSN, .timeout], optional: optional) }
        return Transition([.sqPSN, .timeout, .retryCount, .rnrRetry, .maxReadAtomic], optional: optional)
    }

    private static func whileSending(_ type: QueuePairType) -> AttributeMask {
        if type == .ud { return [.qkey, .rateLimit] }
        let connected: AttributeMask = [.access, .alternatePath, .pathMigration, .rateLimit]
        return type == .uc || type == .xrcSend ? connected : connected.union(.minRNRTimer)
    }

    private static func whileDrained(_ type: QueuePairType) -> Transition {
        if type == .ud { return Transition([], optional: [.pkeyIndex, .qkey]) }
        let connected: AttributeMask = [.path, .alternatePath, .access, .pkeyIndex, .pathMigration]
        if type == .uc { return Transition([], optional: connected) }
        let requester: AttributeMask = [.retryCount, .rnrRetry, .maxReadAtomic]
        let responder: AttributeMask = [.maxDestinationReadAtomic, .minRNRTimer]
        let sides = type == .xrcSend ? requester : type == .xrcReceive ? responder : requester.union(responder)
        return Transition([], optional: connected.union([.port, .timeout]).union(sides))
    }

    /// Whether a call with this mask may make the change.
    func allows(_ mask: AttributeMask) -> Bool {
        mask.isSuperset(of: required)
            && mask.subtracting(required).subtracting(optional).subtracting([.state, .currentState]).isEmpty
    }
}
