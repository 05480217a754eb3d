import CIBVerbs
import CProviderABI
import SystemPackage

extension QueuePair {
    /// Attributes of a queue pair with a mask of those that are set (struct ibv_qp_attr, enum ibv_qp_attr_mask).
    ///
    /// Setting an attribute sets its bit; nil clears it. Reading an attribute that is not set returns nil.
    public struct Attributes: @unchecked Sendable {
        // Unchecked: the struct of verbs.h holds numbers only.

        /// The attributes of verbs.h.
        public private(set) var raw = ibv_qp_attr()
        /// The mask of the attributes that are set.
        public private(set) var mask: Mask = []

        /// Attributes of which none is set.
        public init() {}

        /// Attributes in verbs.h's form, of which those of the mask are set.
        package init(_ raw: ibv_qp_attr, mask: Mask) {
            self.raw = raw
            self.mask = mask
        }

        private func read<Value>(_ bit: Mask, _ value: Value) -> Value? { mask.contains(bit) ? value : nil }

        private mutating func write<Value>(
            _ bit: Mask, _ value: Value?, _ store: (inout ibv_qp_attr, Value) -> Void
        ) {
            if let value {
                store(&raw, value)
                mask.insert(bit)
            } else {
                mask.remove(bit)
            }
        }
    }
}

extension QueuePair.Attributes {
    /// The state of a queue pair.
    public typealias State = QueuePair.State
    /// The limits of the queues.
    public typealias Capabilities = QueuePair.Capabilities
    /// State of automatic path migration.
    public typealias MigrationState = QueuePair.MigrationState

    /// The state to move to; in the result of a query, the current state (`ibv_qp_attr.qp_state`).
    public var state: State? {
        get { read(.state, State(rawValue: raw.qp_state.rawValue)) }
        set { write(.state, newValue) { $0.qp_state = ibv_qp_state(rawValue: $1.rawValue) } }
    }
    /// The state that the caller assumes (`ibv_qp_attr.cur_qp_state`).
    public var currentState: State? {
        get { read(.currentState, State(rawValue: raw.cur_qp_state.rawValue)) }
        set { write(.currentState, newValue) { $0.cur_qp_state = ibv_qp_state(rawValue: $1.rawValue) } }
    }
    /// Whether the event `sendQueueDrained` is raised in SQD (`ibv_qp_attr.en_sqd_async_notify`).
    public var notifiesWhenDrained: Bool? {
        get { read(.notifiesWhenDrained, raw.en_sqd_async_notify != 0) }
        set { write(.notifiesWhenDrained, newValue) { $0.en_sqd_async_notify = $1 ? 1 : 0 } }
    }
    /// The operations that peers may do: `remoteWrite`, `remoteRead`, `remoteAtomic` (`ibv_qp_attr.qp_access_flags`).
    public var access: AccessFlags? {
        get { read(.access, AccessFlags(rawValue: raw.qp_access_flags)) }
        set { write(.access, newValue) { $0.qp_access_flags = $1.rawValue } }
    }
    /// Index of the P_Key in the port's table (`ibv_qp_attr.pkey_index`).
    public var pkeyIndex: UInt16? {
        get { read(.pkeyIndex, raw.pkey_index) }
        set { write(.pkeyIndex, newValue) { $0.pkey_index = $1 } }
    }
    /// The port number, from 1 (`ibv_qp_attr.port_num`).
    public var port: UInt8? {
        get { read(.port, raw.port_num) }
        set { write(.port, newValue) { $0.port_num = $1 } }
    }
    /// UD: the Q_Key; datagrams with another Q_Key are dropped (`ibv_qp_attr.qkey`).
    public var qkey: UInt32? {
        get { read(.qkey, raw.qkey) }
        set { write(.qkey, newValue) { $0.qkey = $1 } }
    }
    /// The address vector of the peer (`ibv_qp_attr.ah_attr`).
    public var path: AddressVector? {
        get { read(.path, AddressVector(raw.ah_attr)) }
        set { write(.path, newValue) { $0.ah_attr = $1.raw } }
    }
    /// The path MTU: the largest payload of a packet (`ibv_qp_attr.path_mtu`).
    public var pathMTU: MTU? {
        get { read(.pathMTU, MTU(rawValue: raw.path_mtu.rawValue)) }
        set { write(.pathMTU, newValue) { $0.path_mtu = ibv_mtu(rawValue: $1.rawValue) } }
    }
    /// The time that the requester waits for a response before it retries (`ibv_qp_attr.timeout`).
    public var timeout: LocalACKTimeout? {
        get { read(.timeout, LocalACKTimeout(rawValue: raw.timeout)) }
        set { write(.timeout, newValue) { $0.timeout = $1.rawValue } }
    }
    /// The number of retries after a timeout: 0 to 7 (`ibv_qp_attr.retry_cnt`).
    public var retryCount: UInt8? {
        get { read(.retryCount, raw.retry_cnt) }
        set { write(.retryCount, newValue) { $0.retry_cnt = $1 } }
    }
    /// The number of retries after an RNR NAK: 0 to 6; 7 is unlimited (`ibv_qp_attr.rnr_retry`).
    public var rnrRetry: UInt8? {
        get { read(.rnrRetry, raw.rnr_retry) }
        set { write(.rnrRetry, newValue) { $0.rnr_retry = $1 } }
    }
    /// The PSN of the first packet to receive: 24 bits (`ibv_qp_attr.rq_psn`).
    public var rqPSN: UInt32? {
        get { read(.rqPSN, raw.rq_psn) }
        set { write(.rqPSN, newValue) { $0.rq_psn = $1 } }
    }
    /// The largest number of outstanding RDMA reads and atomics as the requester (`ibv_qp_attr.max_rd_atomic`).
    public var maxRdAtomic: UInt8? {
        get { read(.maxRdAtomic, raw.max_rd_atomic) }
        set { write(.maxRdAtomic, newValue) { $0.max_rd_atomic = $1 } }
    }
    /// The time that a peer waits after an RNR NAK before it sends again (`ibv_qp_attr.min_rnr_timer`).
    public var minRNRTimer: RNRTimer? {
        get { read(.minRNRTimer, RNRTimer(rawValue: raw.min_rnr_timer)) }
        set { write(.minRNRTimer, newValue) { $0.min_rnr_timer = $1.rawValue } }
    }
    /// The PSN of the first packet to send: 24 bits (`ibv_qp_attr.sq_psn`).
    public var sqPSN: UInt32? {
        get { read(.sqPSN, raw.sq_psn) }
        set { write(.sqPSN, newValue) { $0.sq_psn = $1 } }
    }
    /// The largest number of RDMA reads and atomics of the peer that are handled at a time as the responder
    /// (`ibv_qp_attr.max_dest_rd_atomic`).
    public var maxDestRdAtomic: UInt8? {
        get { read(.maxDestRdAtomic, raw.max_dest_rd_atomic) }
        set { write(.maxDestRdAtomic, newValue) { $0.max_dest_rd_atomic = $1 } }
    }
    /// State of automatic path migration (`ibv_qp_attr.path_mig_state`).
    public var migrationState: MigrationState? {
        get { read(.migrationState, MigrationState(rawValue: raw.path_mig_state.rawValue)) }
        set { write(.migrationState, newValue) { $0.path_mig_state = ibv_mig_state(rawValue: $1.rawValue) } }
    }
    /// The limits of its queues (`ibv_qp_attr.cap`).
    public var capabilities: Capabilities? {
        get { read(.capabilities, Capabilities(raw.cap)) }
        set { write(.capabilities, newValue) { $0.cap = $1.raw } }
    }
    /// The QPN of the peer's queue pair (`ibv_qp_attr.dest_qp_num`).
    public var destinationQPNumber: UInt32? {
        get { read(.destinationQPNumber, raw.dest_qp_num) }
        set { write(.destinationQPNumber, newValue) { $0.dest_qp_num = $1 } }
    }
    /// The rate limit of the send queue in kbit/s; 0 is unlimited (`ibv_qp_attr.rate_limit`).
    public var rateLimit: UInt32? {
        get { read(.rateLimit, raw.rate_limit) }
        set { write(.rateLimit, newValue) { $0.rate_limit = $1 } }
    }

    /// The alternate path to the peer, for automatic path migration (`ibv_qp_attr.alt_ah_attr`).
    public var alternatePath: AlternatePath? {
        get {
            let path = AlternatePath(
                path: AddressVector(raw.alt_ah_attr), pkeyIndex: raw.alt_pkey_index, port: raw.alt_port_num,
                timeout: LocalACKTimeout(rawValue: raw.alt_timeout))
            return read(.alternatePath, path)
        }
        set {
            write(.alternatePath, newValue) { raw, path in
                raw.alt_ah_attr = path.path.raw
                raw.alt_pkey_index = path.pkeyIndex
                raw.alt_port_num = path.port
                raw.alt_timeout = path.timeout.rawValue
            }
        }
    }

    /// In the result of a query: whether the send queue is still draining in SQD (`ibv_qp_attr.sq_draining`).
    public var sqDraining: Bool { raw.sq_draining != 0 }

    /// The alternate path to the peer, for automatic path migration.
    public struct AlternatePath: Hashable, Sendable {
        /// The address vector (`ibv_qp_attr.alt_ah_attr`).
        public var path: AddressVector
        /// Index of the P_Key in that port's table (`ibv_qp_attr.alt_pkey_index`).
        public var pkeyIndex: UInt16
        /// The local port, from 1 (`ibv_qp_attr.alt_port_num`).
        public var port: UInt8
        /// The time that the requester waits for a response before it retries (`ibv_qp_attr.alt_timeout`).
        public var timeout: LocalACKTimeout

        /// Makes an alternate path.
        public init(path: AddressVector, pkeyIndex: UInt16 = 0, port: UInt8, timeout: LocalACKTimeout) {
            self.path = path
            self.pkeyIndex = pkeyIndex
            self.port = port
            self.timeout = timeout
        }
    }
}

extension QueuePair {
    /// Changes attributes: ibv_modify_qp(3).
    ///
    /// - Throws: `EINVAL` when an attribute is missing, superfluous or out of range for the transition (IBTA
    ///   volume 1, 11.2.5.2); the hint names it. The queue pair is unchanged then.
    public func modify(_ attributes: Attributes) throws(VerbsError) {
        try owner.modify(attributes)
    }

    /// Reads all attributes: ibv_query_qp(3). It queries the device, so it is slow.
    public func query() throws(VerbsError) -> Attributes {
        try owner.query()
    }
}

extension QueuePair.Owner {
    func modify(_ attributes: QueuePair.Attributes) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_qp, .modifyQP, object)
        var values = attributes.raw
        let before = QueuePair.State(rawValue: raw.pointee.state.rawValue)
        let type = QueuePairType(rawValue: raw.pointee.qp_type.rawValue)
        let mask = Int32(bitPattern: attributes.mask.rawValue)
        try context.check(.modifyQP, object, modify(raw, &values, mask)) { errno in
            guard errno == .invalidArgument else { return .general(errno) }
            return .text(Transition.advice(type: type, from: before, attributes))
        }
    }

    func query() throws(VerbsError) -> QueuePair.Attributes {
        let mask = QueuePair.Attributes.Mask.allQueried
        let query = try context.entry(context.table.query_qp, .queryQP, object)
        var values = ibv_qp_attr()
        var initial = ibv_qp_init_attr()
        try context.check(.queryQP, object, query(raw, &values, Int32(bitPattern: mask.rawValue), &initial))
        return QueuePair.Attributes(values, mask: mask)
    }
}
