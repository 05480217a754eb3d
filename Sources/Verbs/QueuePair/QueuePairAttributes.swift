import CIBVerbs
import CProviderABI
import SystemPackage

extension QueuePair {
    /// Attributes of a queue pair with a mask of those that are set (struct ibv_qp_attr, enum ibv_qp_attr_mask).
    ///
    /// Setting an attribute sets its bit; nil clears it. Reading one that is not set answers nil.
    public struct Attributes: @unchecked Sendable {
        // Unchecked: the struct of verbs.h holds numbers only.

        /// The attributes of verbs.h.
        public private(set) var raw = ibv_qp_attr()
        /// Which of them are set.
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
    /// A kind, state or value as this queue pair names them.
    public typealias State = QueuePair.State
    /// What the queues hold.
    public typealias Capabilities = QueuePair.Capabilities
    /// State of automatic path migration.
    public typealias MigrationState = QueuePair.MigrationState

    /// State to go to; of a query, the state it is in.
    public var state: State? {
        get { read(.state, State(rawValue: raw.qp_state.rawValue)) }
        set { write(.state, newValue) { $0.qp_state = ibv_qp_state(rawValue: $1.rawValue) } }
    }
    /// State that the caller believes it is in.
    public var currentState: State? {
        get { read(.currentState, State(rawValue: raw.cur_qp_state.rawValue)) }
        set { write(.currentState, newValue) { $0.cur_qp_state = ibv_qp_state(rawValue: $1.rawValue) } }
    }
    /// Raise the event `sendQueueDrained` in SQD.
    public var notifiesWhenDrained: Bool? {
        get { read(.notifiesWhenDrained, raw.en_sqd_async_notify != 0) }
        set { write(.notifiesWhenDrained, newValue) { $0.en_sqd_async_notify = $1 ? 1 : 0 } }
    }
    /// What peers may do through it: remoteWrite, remoteRead, remoteAtomic.
    public var access: AccessFlags? {
        get { read(.access, AccessFlags(rawValue: raw.qp_access_flags)) }
        set { write(.access, newValue) { $0.qp_access_flags = $1.rawValue } }
    }
    /// Place of its P_Key in the port's table.
    public var pkeyIndex: UInt16? {
        get { read(.pkeyIndex, raw.pkey_index) }
        set { write(.pkeyIndex, newValue) { $0.pkey_index = $1 } }
    }
    /// The port that it uses, from 1.
    public var port: UInt8? {
        get { read(.port, raw.port_num) }
        set { write(.port, newValue) { $0.port_num = $1 } }
    }
    /// UD: datagrams with another key are dropped.
    public var queueKey: UInt32? {
        get { read(.queueKey, raw.qkey) }
        set { write(.queueKey, newValue) { $0.qkey = $1 } }
    }
    /// The way to the peer.
    public var path: AddressVector? {
        get { read(.path, AddressVector(raw.ah_attr)) }
        set { write(.path, newValue) { $0.ah_attr = $1.raw } }
    }
    /// Largest payload of a packet.
    public var pathMTU: MTU? {
        get { read(.pathMTU, MTU(rawValue: raw.path_mtu.rawValue)) }
        set { write(.pathMTU, newValue) { $0.path_mtu = ibv_mtu(rawValue: $1.rawValue) } }
    }
    /// How long to wait for an answer before trying again: 4.096 us times 2 to this power, 1 to 31; 0 waits for ever.
    public var timeout: UInt8? {
        get { read(.timeout, raw.timeout) }
        set { write(.timeout, newValue) { $0.timeout = $1 } }
    }
    /// How often to try again when no answer comes: 0 to 7.
    public var retryCount: UInt8? {
        get { read(.retryCount, raw.retry_cnt) }
        set { write(.retryCount, newValue) { $0.retry_cnt = $1 } }
    }
    /// How often to try again when the peer has no receive posted: 0 to 6; 7 tries for ever.
    public var rnrRetry: UInt8? {
        get { read(.rnrRetry, raw.rnr_retry) }
        set { write(.rnrRetry, newValue) { $0.rnr_retry = $1 } }
    }
    /// Number of the first packet that comes: 24 bits.
    public var receivePSN: UInt32? {
        get { read(.receivePSN, raw.rq_psn) }
        set { write(.receivePSN, newValue) { $0.rq_psn = $1 } }
    }
    /// Most reads and atomics that it has outstanding.
    public var initiatorDepth: UInt8? {
        get { read(.initiatorDepth, raw.max_rd_atomic) }
        set { write(.initiatorDepth, newValue) { $0.max_rd_atomic = $1 } }
    }
    /// How long peers wait when no receive is posted here: a code from 0 to 31 (IBTA volume 1, table 45); 12 is 0.64
    /// ms, 0 is 655 ms.
    public var minRNRTimer: UInt8? {
        get { read(.minRNRTimer, raw.min_rnr_timer) }
        set { write(.minRNRTimer, newValue) { $0.min_rnr_timer = $1 } }
    }
    /// Number of the first packet that goes: 24 bits.
    public var sendPSN: UInt32? {
        get { read(.sendPSN, raw.sq_psn) }
        set { write(.sendPSN, newValue) { $0.sq_psn = $1 } }
    }
    /// Most reads and atomics of the peer that it answers at a time.
    public var responderDepth: UInt8? {
        get { read(.responderDepth, raw.max_dest_rd_atomic) }
        set { write(.responderDepth, newValue) { $0.max_dest_rd_atomic = $1 } }
    }
    /// State of automatic path migration.
    public var migrationState: MigrationState? {
        get { read(.migrationState, MigrationState(rawValue: raw.path_mig_state.rawValue)) }
        set { write(.migrationState, newValue) { $0.path_mig_state = ibv_mig_state(rawValue: $1.rawValue) } }
    }
    /// What its queues hold.
    public var capabilities: Capabilities? {
        get { read(.capabilities, Capabilities(raw.cap)) }
        set { write(.capabilities, newValue) { $0.cap = $1.raw } }
    }
    /// Number of the peer's queue pair.
    public var destinationNumber: UInt32? {
        get { read(.destinationNumber, raw.dest_qp_num) }
        set { write(.destinationNumber, newValue) { $0.dest_qp_num = $1 } }
    }
    /// Limit of what it sends, in kbit/s; 0: none.
    public var rateLimit: UInt32? {
        get { read(.rateLimit, raw.rate_limit) }
        set { write(.rateLimit, newValue) { $0.rate_limit = $1 } }
    }

    /// The other way to the peer, for automatic path migration.
    public var alternatePath: AlternatePath? {
        get {
            let path = AlternatePath(
                path: AddressVector(raw.alt_ah_attr), pkeyIndex: raw.alt_pkey_index, port: raw.alt_port_num,
                timeout: raw.alt_timeout)
            return read(.alternatePath, path)
        }
        set {
            write(.alternatePath, newValue) { raw, path in
                raw.alt_ah_attr = path.path.raw
                raw.alt_pkey_index = path.pkeyIndex
                raw.alt_port_num = path.port
                raw.alt_timeout = path.timeout
            }
        }
    }

    /// Of a query: whether the send queue is still draining in SQD.
    public var isDraining: Bool { raw.sq_draining != 0 }

    /// The other way to the peer, for automatic path migration.
    public struct AlternatePath: Hashable, Sendable {
        /// The way.
        public var path: AddressVector
        /// Place of the P_Key in that port's table.
        public var pkeyIndex: UInt16
        /// The local port, from 1.
        public var port: UInt8
        /// As `Attributes.timeout`.
        public var timeout: UInt8

        /// The way along `path`.
        public init(path: AddressVector, pkeyIndex: UInt16 = 0, port: UInt8, timeout: UInt8) {
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
    ///   volume 1, 11.2.5.2); the hint names which. The queue pair is as it was then.
    public func modify(_ attributes: Attributes) throws(VerbsError) {
        try owner.modify(attributes)
    }

    /// Reads all attributes: ibv_query_qp(3). Asks the device, so it is slow.
    public func query() throws(VerbsError) -> Attributes {
        try owner.query()
    }
}

extension QueuePair.Owner {
    func modify(_ attributes: QueuePair.Attributes) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_qp, .modifyQP, object)
        var values = attributes.raw
        let before = QueuePair.State(rawValue: raw.pointee.state.rawValue)
        let code = modify(raw, &values, Int32(bitPattern: attributes.mask.rawValue))
        let kind = QueuePair.Kind(rawValue: raw.pointee.qp_type.rawValue)
        try context.check(.modifyQP, object, code) { errno in
            guard errno == .invalidArgument else { return .general(errno) }
            return .text(Transition.advice(kind: kind, from: before, attributes))
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
