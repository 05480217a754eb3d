import CIBVerbs
import CProviderABI
import SystemPackage

extension QueuePair {
    /// Limits the rate of what it sends: ibv_modify_qp_rate_limit(3).
    ///
    /// - Parameters:
    ///   - limit: in kbit/s; 0 for none.
    ///   - maxBurst: most bytes of a burst; 0 leaves it to the device.
    ///   - typicalPacket: usual size of a packet in bytes; 0 when not known.
    public func limitRate(_ limit: UInt32, maxBurst: UInt32 = 0, typicalPacket: UInt16 = 0) throws(VerbsError) {
        let modify = try context.entry(context.table.modify_qp_rate_limit, .modifyQPRateLimit, owner.object)
        var attributes = ibv_qp_rate_limit_attr()
        attributes.rate_limit = limit
        attributes.max_burst_sz = maxBurst
        attributes.typical_pkt_sz = typicalPacket
        try context.check(.modifyQPRateLimit, owner.object, modify(raw, &attributes))
    }

    /// Whether the data of an operation arrives in memory in order, so that its last byte may be waited for:
    /// ibv_query_qp_data_in_order(3). False where that is not promised.
    public func arrivesInOrder(_ opcode: SendOperation.Opcode) -> Bool {
        // The man page: whatever is not known is not promised.
        guard let query = context.table.query_qp_data_in_order else { return false }
        return query(raw, ibv_wr_opcode(rawValue: opcode.rawValue), 0) == 1
    }

    /// Options that both sides of a connection agree on, vendor by vendor (struct ibv_ece).
    public struct EnhancedConnection: Hashable, Sendable {
        /// IEEE number of the vendor who defines the options.
        public var vendorID: UInt32
        /// The options.
        public var options: UInt32

        /// Those options of that vendor.
        public init(vendorID: UInt32, options: UInt32) {
            self.vendorID = vendorID
            self.options = options
        }
    }

    /// The options that it offers in RESET, and that hold afterwards: ibv_query_ece(3).
    public func enhancedConnection() throws(VerbsError) -> EnhancedConnection {
        let query = try context.entry(context.table.query_ece, .queryECE, owner.object)
        var ece = ibv_ece()
        try context.check(.queryECE, owner.object, query(raw, &ece, MemoryLayout<ibv_ece>.size))
        return EnhancedConnection(vendorID: ece.vendor_id, options: ece.options)
    }

    /// Sets the options that were agreed on, before it goes to RTR: ibv_set_ece(3).
    public func setEnhancedConnection(_ value: EnhancedConnection) throws(VerbsError) {
        let set = try context.entry(context.table.set_ece, .setECE, owner.object)
        var ece = ibv_ece(vendor_id: value.vendorID, options: value.options, comp_mask: 0)
        try context.check(.setECE, owner.object, set(raw, &ece, MemoryLayout<ibv_ece>.size))
    }
}
