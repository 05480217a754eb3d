/// Which attributes a transition of a queue pair needs and which it may have (IBTA volume 1, 11.2.5.2;
/// ibv_modify_qp(3)). It decides nothing: providers and the kernel do. It explains their EINVAL.
struct Transition {
    typealias Mask = QueuePair.Attributes.Mask
    let needs: Mask
    let allows: Mask

    /// The transition, or nil where there is none.
    static func of(_ kind: QueuePair.Kind, from: QueuePair.State, to: QueuePair.State) -> Transition? {
        if to == .reset || to == .error { return Transition(needs: .state, allows: []) }
        return switch (from, to) {
        case (.reset, .initialized): fromReset(kind)
        case (.initialized, .initialized): Transition(needs: [], allows: fromReset(kind).needs.union(.currentState))
        case (.initialized, .readyToReceive): toReceive(kind)
        case (.readyToReceive, .readyToSend): toSend(kind)
        case (.readyToSend, .readyToSend), (.sendQueueDrained, .readyToSend), (.sendQueueError, .readyToSend):
            Transition(needs: [], allows: whileSending(kind))
        case (.readyToSend, .sendQueueDrained): Transition(needs: .state, allows: .notifiesWhenDrained)
        case (.sendQueueDrained, .sendQueueDrained): Transition(needs: [], allows: whileDrained(kind))
        default: nil
        }
    }

    private static func fromReset(_ kind: QueuePair.Kind) -> Transition {
        let common: Mask = [.state, .pkeyIndex, .port]
        return switch kind {
        case .unreliableDatagram: Transition(needs: common.union(.queueKey), allows: [])
        case .rawPacket: Transition(needs: [.state, .port], allows: [])
        default: Transition(needs: common.union(.access), allows: [])
        }
    }

    private static func toReceive(_ kind: QueuePair.Kind) -> Transition {
        let connected: Mask = [.state, .path, .pathMTU, .destinationNumber, .receivePSN]
        let optional: Mask = [.alternatePath, .access, .pkeyIndex]
        return switch kind {
        case .unreliableDatagram: Transition(needs: .state, allows: [.pkeyIndex, .queueKey])
        case .rawPacket: Transition(needs: .state, allows: [])
        case .unreliableConnection, .xrcSend: Transition(needs: connected, allows: optional)
        default: Transition(needs: connected.union([.responderDepth, .minRNRTimer]), allows: optional)
        }
    }

    private static func toSend(_ kind: QueuePair.Kind) -> Transition {
        let optional: Mask = [.currentState, .alternatePath, .access, .migrationState]
        return switch kind {
        case .unreliableDatagram: Transition(needs: [.state, .sendPSN], allows: [.currentState, .queueKey])
        case .rawPacket: Transition(needs: .state, allows: .rateLimit)
        case .unreliableConnection: Transition(needs: [.state, .sendPSN], allows: optional)
        case .xrcReceive: Transition(needs: [.state, .sendPSN, .timeout], allows: optional.union(.minRNRTimer))
        default:
            Transition(
                needs: [.state, .sendPSN, .timeout, .retryCount, .rnrRetry, .initiatorDepth],
                allows: optional.union([.minRNRTimer, .rateLimit]))
        }
    }

    private static func whileSending(_ kind: QueuePair.Kind) -> Mask {
        switch kind {
        case .unreliableDatagram: [.state, .currentState, .queueKey]
        case .rawPacket: [.state, .rateLimit]
        case .unreliableConnection: [.state, .currentState, .access, .alternatePath, .migrationState]
        default:
            [.state, .currentState, .access, .alternatePath, .migrationState, .minRNRTimer, .rateLimit]
        }
    }

    private static func whileDrained(_ kind: QueuePair.Kind) -> Mask {
        switch kind {
        case .unreliableDatagram: [.state, .pkeyIndex, .queueKey]
        default:
            [
                .state, .port, .path, .timeout, .retryCount, .rnrRetry, .initiatorDepth, .responderDepth,
                .alternatePath, .access, .pkeyIndex, .minRNRTimer, .migrationState,
            ]
        }
    }

    /// Why a modification was refused, as far as the tables tell.
    static func advice(kind: QueuePair.Kind, from: QueuePair.State, _ attributes: QueuePair.Attributes) -> String {
        let target = attributes.state ?? from
        guard let transition = of(kind, from: from, to: target) else {
            return "a queue pair of type \(kind) cannot go from \(from) to \(target)"
        }
        let missing = transition.needs.subtracting(attributes.mask)
        if !missing.isEmpty { return "going from \(from) to \(target) also needs \(missing)" }
        let surplus = attributes.mask.subtracting(transition.needs.union(transition.allows).union(.state))
        if !surplus.isEmpty { return "going from \(from) to \(target) does not take \(surplus)" }
        return "going from \(from) to \(target), the attributes \(attributes.mask) are right, so one of their values"
            + " is out of range: compare with the attributes of the device and the port"
    }
}
