/// The required and optional attributes of a transition of a queue pair (IBTA volume 1, 11.2.5.2;
/// ibv_modify_qp(3)). It only explains the `EINVAL` of providers and the kernel.
struct Transition {
    typealias Mask = QueuePair.Attributes.Mask
    let needs: Mask
    let allows: Mask

    /// The transition, or nil where there is none.
    static func of(_ type: QueuePairType, from: QueuePair.State, to: QueuePair.State) -> Transition? {
        if to == .reset || to == .error { return Transition(needs: .state, allows: []) }
        return switch (from, to) {
        case (.reset, .initialized): fromReset(type)
        case (.initialized, .initialized): Transition(needs: [], allows: fromReset(type).needs.union(.currentState))
        case (.initialized, .readyToReceive): toReceive(type)
        case (.readyToReceive, .readyToSend): toSend(type)
        case (.readyToSend, .readyToSend), (.sendQueueDrained, .readyToSend), (.sendQueueError, .readyToSend):
            Transition(needs: [], allows: whileSending(type))
        case (.readyToSend, .sendQueueDrained): Transition(needs: .state, allows: .notifiesWhenDrained)
        case (.sendQueueDrained, .sendQueueDrained): Transition(needs: [], allows: whileDrained(type))
        default: nil
        }
    }

    private static func fromReset(_ type: QueuePairType) -> Transition {
        let common: Mask = [.state, .pkeyIndex, .port]
        return switch type {
        case .unreliableDatagram: Transition(needs: common.union(.qkey), allows: [])
        case .rawPacket: Transition(needs: [.state, .port], allows: [])
        default: Transition(needs: common.union(.access), allows: [])
        }
    }

    private static func toReceive(_ type: QueuePairType) -> Transition {
        let connected: Mask = [.state, .path, .pathMTU, .destinationQPNumber, .rqPSN]
        let optional: Mask = [.alternatePath, .access, .pkeyIndex]
        return switch type {
        case .unreliableDatagram: Transition(needs: .state, allows: [.pkeyIndex, .qkey])
        case .rawPacket: Transition(needs: .state, allows: [])
        case .unreliableConnection, .xrcSend: Transition(needs: connected, allows: optional)
        default: Transition(needs: connected.union([.maxDestRdAtomic, .minRNRTimer]), allows: optional)
        }
    }

    private static func toSend(_ type: QueuePairType) -> Transition {
        let optional: Mask = [.currentState, .alternatePath, .access, .migrationState]
        return switch type {
        case .unreliableDatagram: Transition(needs: [.state, .sqPSN], allows: [.currentState, .qkey])
        case .rawPacket: Transition(needs: .state, allows: .rateLimit)
        case .unreliableConnection: Transition(needs: [.state, .sqPSN], allows: optional)
        case .xrcReceive: Transition(needs: [.state, .sqPSN, .timeout], allows: optional.union(.minRNRTimer))
        default:
            Transition(
                needs: [.state, .sqPSN, .timeout, .retryCount, .rnrRetry, .maxRdAtomic],
                allows: optional.union(type == .xrcSend ? .rateLimit : [.minRNRTimer, .rateLimit]))
        }
    }

    private static func whileSending(_ type: QueuePairType) -> Mask {
        switch type {
        case .unreliableDatagram: [.state, .currentState, .qkey]
        case .rawPacket: [.state, .rateLimit]
        case .unreliableConnection: [.state, .currentState, .access, .alternatePath, .migrationState]
        case .xrcSend: [.state, .currentState, .access, .alternatePath, .migrationState, .rateLimit]
        default:
            [.state, .currentState, .access, .alternatePath, .migrationState, .minRNRTimer, .rateLimit]
        }
    }

    private static func whileDrained(_ type: QueuePairType) -> Mask {
        switch type {
        case .unreliableDatagram: [.state, .pkeyIndex, .qkey]
        default:
            [
                .state, .port, .path, .timeout, .retryCount, .rnrRetry, .maxRdAtomic, .maxDestRdAtomic,
                .alternatePath, .access, .pkeyIndex, .minRNRTimer, .migrationState,
            ]
        }
    }

    /// The cause of a refused modification, according to the tables.
    static func advice(type: QueuePairType, from: QueuePair.State, _ attributes: QueuePair.Attributes) -> String {
        let target = attributes.state ?? from
        guard let transition = of(type, from: from, to: target) else {
            return "a queue pair of type \(type) cannot go from \(from) to \(target)"
        }
        let missing = transition.needs.subtracting(attributes.mask)
        if !missing.isEmpty { return "going from \(from) to \(target) also needs \(missing)" }
        let surplus = attributes.mask.subtracting(transition.needs.union(transition.allows).union(.state))
        if !surplus.isEmpty { return "going from \(from) to \(target) does not take \(surplus)" }
        return "going from \(from) to \(target), the attributes \(attributes.mask) are right, so one of their values"
            + " is out of range: compare with the attributes of the device and the port"
    }
}
