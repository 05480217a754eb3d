import CIBVerbs
import CProviderABI
import SystemPackage

extension QueuePair {
    /// Optional attributes of a new queue pair (struct ibv_qp_init_attr_ex). The default sets none.
    public struct CreationOptions: Hashable, Sendable {
        /// Whether every send work request is signaled, regardless of its flags (`ibv_qp_init_attr.sq_sig_all`).
        public var sqSigAll = false
        /// Creation flags (`ibv_qp_init_attr_ex.create_flags`).
        public var flags: CreationFlags = []
        /// The operations of `postExtended` (`ibv_qp_init_attr_ex.send_ops_flags`). If empty, `postExtended` throws.
        public var extendedOperations: ExtendedOperations = []
        /// Longest header of a TCP segmentation offload, in bytes (`ibv_qp_init_attr_ex.max_tso_header`).
        public var maxTSOHeader: UInt16 = 0
        /// The source QPN of packets, with `CreationFlags.sourceQPN` (`ibv_qp_init_attr_ex.source_qpn`).
        public var sourceQPN: UInt32 = 0

        /// The default options.
        public init() {}
    }
}

extension ProtectionDomain {
    /// Makes a queue pair with a shared receive queue: ibv_create_qp_ex(3), ibv_create_qp(3). It is in state RESET.
    ///
    /// - Parameters:
    ///   - type: The transport service (`ibv_qp_init_attr.qp_type`).
    ///   - sendCompletions: The completion queue of the send queue (`send_cq`).
    ///   - receiveCompletions: The completion queue of the receive queue (`recv_cq`).
    ///   - sharedReceiveQueue: The shared receive queue (`srq`). The queue pair then has no receive queue.
    ///   - capabilities: The smallest limits of its queues (`cap`). The provider may grant more. `maxReceiveWR` and
    ///     `maxReceiveSGE` (`ibv_qp_cap.max_recv_wr`, `max_recv_sge`) are ignored: the shared receive queue has limits
    ///     of its own.
    ///   - options: Optional attributes.
    /// - Throws: `EINVAL` for more than the device allows, `EOPNOTSUPP` for a type or option that it does not support,
    ///   `ENOMEM`.
    public func makeQueuePair(
        _ type: QueuePairType, sendCompletions: borrowing CompletionQueue,
        receiveCompletions: borrowing CompletionQueue, sharedReceiveQueue: borrowing SharedReceiveQueue,
        capabilities: QueuePair.Capabilities = .init(), options: QueuePair.CreationOptions = .init()
    ) throws(VerbsError) -> QueuePair {
        try makeQueuePair(
            type, sendCompletions.owner, receiveCompletions.owner, sharedReceiveQueue.owner, capabilities, options)
    }

    /// Makes a queue pair with a receive queue of its own: ibv_create_qp_ex(3), ibv_create_qp(3). It is in state RESET.
    ///
    /// - Parameters:
    ///   - type: The transport service (`ibv_qp_init_attr.qp_type`).
    ///   - sendCompletions: The completion queue of the send queue (`send_cq`).
    ///   - receiveCompletions: The completion queue of the receive queue (`recv_cq`).
    ///   - capabilities: The smallest limits of its queues (`cap`). The provider may grant more.
    ///   - options: Optional attributes.
    /// - Throws: `EINVAL` for more than the device allows, `EOPNOTSUPP` for a type or option that it does not support,
    ///   `ENOMEM`.
    public func makeQueuePair(
        _ type: QueuePairType, sendCompletions: borrowing CompletionQueue,
        receiveCompletions: borrowing CompletionQueue, capabilities: QueuePair.Capabilities = .init(),
        options: QueuePair.CreationOptions = .init()
    ) throws(VerbsError) -> QueuePair {
        try makeQueuePair(type, sendCompletions.owner, receiveCompletions.owner, nil, capabilities, options)
    }

    /// Makes a queue pair that reports sends and receives to one completion queue: ibv_create_qp_ex(3),
    /// ibv_create_qp(3). It is in state RESET.
    ///
    /// - Parameters:
    ///   - type: The transport service (`ibv_qp_init_attr.qp_type`).
    ///   - completions: The completion queue of both queues.
    ///   - capabilities: The smallest limits of its queues (`cap`). The provider may grant more.
    ///   - options: Optional attributes.
    /// - Throws: `EINVAL` for more than the device allows, `EOPNOTSUPP` for a type or option that it does not support,
    ///   `ENOMEM`.
    public func makeQueuePair(
        _ type: QueuePairType, completions: borrowing CompletionQueue,
        capabilities: QueuePair.Capabilities = .init(), options: QueuePair.CreationOptions = .init()
    ) throws(VerbsError) -> QueuePair {
        try makeQueuePair(type, completions.owner, completions.owner, nil, capabilities, options)
    }

    private func makeQueuePair(
        _ type: QueuePairType, _ send: CompletionQueue.Owner, _ receive: CompletionQueue.Owner,
        _ shared: SharedReceiveQueue.Owner?, _ capabilities: QueuePair.Capabilities,
        _ options: QueuePair.CreationOptions
    ) throws(VerbsError) -> QueuePair {
        var attributes = ibv_qp_init_attr_ex()
        attributes.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attributes.pd = unsafeRaw
        attributes.qp_type = ibv_qp_type(rawValue: type.rawValue)
        attributes.send_cq = send.raw
        attributes.recv_cq = receive.raw
        attributes.srq = shared?.raw
        attributes.cap = capabilities.raw
        if shared != nil { (attributes.cap.max_recv_wr, attributes.cap.max_recv_sge) = (0, 0) }
        options.apply(to: &attributes)
        var needs: [AnyObject] = [self, send, receive]
        if let shared { needs.append(shared) }
        return try context.makeQueuePair(&attributes, needs: needs, object)
    }
}

extension QueuePair.CreationOptions {
    func apply(to attributes: inout ibv_qp_init_attr_ex) {
        attributes.sq_sig_all = sqSigAll ? 1 : 0
        if !flags.isEmpty {
            attributes.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS.rawValue
            attributes.create_flags = flags.rawValue
            attributes.source_qpn = sourceQPN
        }
        if !extendedOperations.isEmpty {
            attributes.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.rawValue
            attributes.send_ops_flags = extendedOperations.rawValue
        }
        if maxTSOHeader != 0 {
            attributes.comp_mask |= IBV_QP_INIT_ATTR_MAX_TSO_HEADER.rawValue
            attributes.max_tso_header = maxTSOHeader
        }
    }
}

extension Context {
    /// Makes a queue pair from the attributes of verbs.h and keeps `needs` alive with it.
    func makeQueuePair(
        _ attributes: inout ibv_qp_init_attr_ex, needs: [AnyObject], _ object: VerbsObject
    ) throws(VerbsError) -> QueuePair {
        let create = try entry(table.create_qp_ex, destroyedBy: table.destroy_qp, .createQP, object)
        let asked = QueuePair.Capabilities(attributes.cap)
        let connectionsOnly = attributes.qp_type == IBV_QPT_RC ? nil : connectionsOnly
        let raw = try made(.createQP, object, advice: { connectionsOnly ?? QueuePair.creationAdvice($0, asked) }) {
            create(unsafeRaw, &attributes)
        }
        return QueuePair(
            QueuePair.Owner(
                raw, context: self, needs: needs, capabilities: QueuePair.Capabilities(attributes.cap),
                extendedOperations: QueuePair.ExtendedOperations(rawValue: attributes.send_ops_flags)))
    }
}

extension QueuePair {
    static func creationAdvice(_ errno: Errno, _ asked: Capabilities) -> Advice {
        switch errno {
        case .invalidArgument, .noMemory:
            .text(
                "requested \(asked.maxSendWR) sends of \(asked.maxSendSGE) SGEs, \(asked.maxReceiveWR)"
                    + " receives of \(asked.maxReceiveSGE) SGEs and \(asked.maxInlineData) bytes inline: compare with"
                    + " maxQPWR, maxSGE and maxQueuePairs of the device's attributes")
        default: .general(errno)
        }
    }
}
