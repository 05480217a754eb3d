import CIBVerbs
import CProviderABI
import SystemPackage

extension QueuePair {
    /// What a queue pair can be made with beyond the usual (struct ibv_qp_init_attr_ex). The default asks for
    /// nothing.
    public struct CreationOptions: Sendable {
        /// Report every send, whatever its flags say.
        public var signalsAllSends = false
        /// Special treatment.
        public var flags: CreationFlags = []
        /// Operations for which `postExtended` is wanted; with none it is not there.
        public var extendedOperations: ExtendedOperations = []
        /// Longest header of a TCP segmentation offload, in bytes.
        public var maxTSOHeader: UInt16 = 0
        /// Number to send with, with `CreationFlags.sourceQPN`.
        public var sourceQPN: UInt32 = 0

        /// Options that ask for nothing.
        public init() {}
    }
}

extension ProtectionDomain {
    /// Makes a queue pair: ibv_create_qp_ex(3). It is in state RESET.
    ///
    /// - Parameters:
    ///   - kind: its transport service.
    ///   - sendCompletions: where completed sends are reported.
    ///   - receiveCompletions: where completed receives are reported.
    ///   - sharedReceiveQueue: where it takes receives from; without one it has a receive queue of its own.
    ///   - capabilities: what its queues must hold. It may get more.
    ///   - options: what else it should be.
    /// - Throws: `EINVAL` for more than the device allows, `EOPNOTSUPP` for a kind or option that it lacks,
    ///   `ENOMEM`.
    public func makeQueuePair(
        _ kind: QueuePair.Kind, sendCompletions: borrowing CompletionQueue,
        receiveCompletions: borrowing CompletionQueue, sharedReceiveQueue: borrowing SharedReceiveQueue,
        capabilities: QueuePair.Capabilities = .init(), options: QueuePair.CreationOptions = .init()
    ) throws(VerbsError) -> QueuePair {
        try makeQueuePair(
            kind, sendCompletions.owner, receiveCompletions.owner, sharedReceiveQueue.owner, capabilities, options)
    }

    /// Makes a queue pair with a receive queue of its own: ibv_create_qp_ex(3). It is in state RESET.
    ///
    /// - Parameters:
    ///   - kind: its transport service.
    ///   - sendCompletions: where completed sends are reported.
    ///   - receiveCompletions: where completed receives are reported.
    ///   - capabilities: what its queues must hold. It may get more.
    ///   - options: what else it should be.
    /// - Throws: as with a shared receive queue.
    public func makeQueuePair(
        _ kind: QueuePair.Kind, sendCompletions: borrowing CompletionQueue,
        receiveCompletions: borrowing CompletionQueue, capabilities: QueuePair.Capabilities = .init(),
        options: QueuePair.CreationOptions = .init()
    ) throws(VerbsError) -> QueuePair {
        try makeQueuePair(kind, sendCompletions.owner, receiveCompletions.owner, nil, capabilities, options)
    }

    /// Makes a queue pair that reports sends and receives to one completion queue: ibv_create_qp_ex(3).
    ///
    /// - Parameters:
    ///   - kind: its transport service.
    ///   - completions: where all completions are reported.
    ///   - capabilities: what its queues must hold. It may get more.
    ///   - options: what else it should be.
    /// - Throws: as with a shared receive queue.
    public func makeQueuePair(
        _ kind: QueuePair.Kind, completions: borrowing CompletionQueue,
        capabilities: QueuePair.Capabilities = .init(), options: QueuePair.CreationOptions = .init()
    ) throws(VerbsError) -> QueuePair {
        try makeQueuePair(kind, completions.owner, completions.owner, nil, capabilities, options)
    }

    private func makeQueuePair(
        _ kind: QueuePair.Kind, _ send: CompletionQueue.Owner, _ receive: CompletionQueue.Owner,
        _ shared: SharedReceiveQueue.Owner?, _ capabilities: QueuePair.Capabilities,
        _ options: QueuePair.CreationOptions
    ) throws(VerbsError) -> QueuePair {
        var attributes = ibv_qp_init_attr_ex()
        attributes.comp_mask = IBV_QP_INIT_ATTR_PD.rawValue
        attributes.pd = unsafeRaw
        attributes.qp_type = ibv_qp_type(rawValue: kind.rawValue)
        attributes.send_cq = send.raw
        attributes.recv_cq = receive.raw
        attributes.srq = shared?.raw
        attributes.cap = capabilities.raw
        options.apply(to: &attributes)
        var needs: [AnyObject] = [self, send, receive]
        if let shared { needs.append(shared) }
        return try context.makeQueuePair(&attributes, needs: needs, object)
    }
}

extension QueuePair.CreationOptions {
    func apply(to attributes: inout ibv_qp_init_attr_ex) {
        attributes.sq_sig_all = signalsAllSends ? 1 : 0
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
        let raw = try made(.createQP, object, advice: { QueuePair.creationAdvice($0, asked) }) {
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
                "asked for \(asked.sendRequests) sends of \(asked.sendSlices) slices, \(asked.receiveRequests)"
                    + " receives of \(asked.receiveSlices) slices and \(asked.inlineBytes) bytes inline: compare with"
                    + " maxWorkRequests and maxSlices of the device's attributes")
        default: .general(errno)
        }
    }
}
