import CIBVerbs
import CProviderABI
import SystemPackage

extension QueuePair {
    /// Limits the send rate: ibv_modify_qp_rate_limit(3).
    ///
    /// - Parameters:
    ///   - limit: The rate limit in kbit/s; 0 is unlimited (`ibv_qp_rate_limit_attr.rate_limit`).
    ///   - maxBurst: The largest burst in bytes; with 0 the device decides (`max_burst_sz`).
    ///   - typicalPacket: The usual size of a packet in bytes; 0 when it is not known (`typical_pkt_sz`).
    public func limitRate(_ limit: UInt32, maxBurst: UInt32 = 0, typicalPacket: UInt16 = 0) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_qp_rate_limit, .modifyQPRateLimit, owner.object)
        var attributes = ibv_qp_rate_limit_attr()
        attributes.rate_limit = limit
        attributes.max_burst_sz = maxBurst
        attributes.typical_pkt_sz = typicalPacket
        try context.check(.modifyQPRateLimit, owner.object, modify(raw, &attributes))
    }

    /// Whether the data of an operation is written to memory in order, so that a program may poll its last byte:
    /// ibv_query_qp_data_in_order(3). False when that is not guaranteed.
    ///
    /// A result of true has come only from a fake provider.
    public func arrivesInOrder(_ opcode: SendOperation.Opcode) -> Bool {
        // The man page: the result is 0 where the order is not known.
        guard let query = context.table.query_qp_data_in_order else { return false }
        return query(raw, ibv_wr_opcode(rawValue: opcode.rawValue), 0) == 1
    }

    /// Enhanced connection establishment (ECE): vendor options that both sides of a connection agree on (`struct
    /// ibv_ece`).
    public struct EnhancedConnection: Hashable, Sendable {
        /// IEEE OUI of the vendor that defines the options (`ibv_ece.vendor_id`).
        public var vendorID: UInt32
        /// The options (`ibv_ece.options`).
        public var options: UInt32

        /// Makes a value with these fields.
        public init(vendorID: UInt32, options: UInt32) {
            self.vendorID = vendorID
            self.options = options
        }
    }

    /// The options that the queue pair offers in RESET, and those in use later: ibv_query_ece(3).
    public func enhancedConnection() throws(VerbsError) -> EnhancedConnection {
        let query = try context.entry(context.table.query_ece, .queryECE, owner.object)
        var ece = ibv_ece()
        try context.check(.queryECE, owner.object, query(raw, &ece, MemoryLayout<ibv_ece>.size))
        return EnhancedConnection(vendorID: ece.vendor_id, options: ece.options)
    }

    /// Sets the options that both sides agreed on, before the transition to RTR: ibv_set_ece(3).
    public func setEnhancedConnection(_ value: EnhancedConnection) throws(VerbsError) {
        let set = try context.entry(context.table.set_ece, .setECE, owner.object)
        var ece = ibv_ece()
        ece.vendor_id = value.vendorID
        ece.options = value.options
        try context.check(.setECE, owner.object, set(raw, &ece, MemoryLayout<ibv_ece>.size))
    }
}
