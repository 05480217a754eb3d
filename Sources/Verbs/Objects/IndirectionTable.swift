import CIBVerbs
import CProviderABI
import SystemPackage

/// A receive work queue indirection table: the work queues over which a queue pair distributes received packets (RSS;
/// `struct ibv_rwq_ind_table`, ibv_create_rwq_ind_table(3)).
public final class IndirectionTable: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

    /// The device.
    public let context: Context
    /// The number of entries: a power of two.
    public let count: Int
    let raw: UnsafeMutablePointer<ibv_rwq_ind_table>
    private let queues: [WorkQueue.Owner]

    init(_ raw: UnsafeMutablePointer<ibv_rwq_ind_table>, queues: [WorkQueue.Owner], context: Context) {
        self.raw = raw
        self.queues = queues
        self.context = context
        count = queues.count
    }

    deinit {
        guard let destroy = context.table.destroy_rwq_ind_table else { return }
        context.destroy(.destroyIndirectionTable, object, keeping: queues, destroy(raw))
    }

    var object: VerbsObject { context.object("indirection table", raw.pointee.ind_tbl_num) }
}

extension IndirectionTable {
    /// The entries of a new table, in order (`ibv_rwq_ind_table_init_attr.ind_tbl`).
    public struct Places: Sendable {
        fileprivate var queues: [WorkQueue.Owner] = []

        /// No entries.
        public init() {}

        /// Appends an entry. Several entries may have the same work queue.
        public mutating func append(_ queue: borrowing WorkQueue) { queues.append(queue.owner) }
    }
}

extension Context {
    /// Makes an indirection table: ibv_create_rwq_ind_table(3).
    ///
    /// This call has run only against a fake provider.
    ///
    /// - Throws: `EINVAL` when the number of entries is not a power of two.
    public func makeIndirectionTable(_ places: IndirectionTable.Places) throws(VerbsError) -> IndirectionTable {
        let create = try entry(
            table.create_rwq_ind_table, destroyedBy: table.destroy_rwq_ind_table, .createIndirectionTable,
            object("context"))
        let count = places.queues.count
        guard count > 0, count & (count - 1) == 0 else {
            throw VerbsError(
                .createIndirectionTable, errno: .invalidArgument, object: object("context"),
                hint: "a table has 1, 2, 4, 8, … places, not \(count)")
        }
        var pointers = places.queues.map { Optional($0.raw) }
        let raw = try made(.createIndirectionTable, object("context")) {
            pointers.withUnsafeMutableBufferPointer { buffer in
                var attributes = ibv_rwq_ind_table_init_attr()
                attributes.log_ind_tbl_size = UInt32(count.trailingZeroBitCount)
                attributes.ind_tbl = buffer.baseAddress
                return create(unsafeRaw, &attributes)
            }
        }
        return IndirectionTable(raw, queues: places.queues, context: self)
    }
}

extension ProtectionDomain {
    /// Makes a queue pair that distributes received packets over work queues: ibv_create_qp_ex(3) with
    /// `IBV_QP_INIT_ATTR_RX_HASH`. It has no send queue.
    ///
    /// This call has run only against a fake provider.
    public func makeQueuePair(
        _ type: QueuePairType = .rawPacket, table: IndirectionTable, hash: ReceiveHash
    ) throws(VerbsError) -> QueuePair {
        var attributes = ibv_qp_init_attr_ex()
        attributes.comp_mask =
            IBV_QP_INIT_ATTR_PD.rawValue | IBV_QP_INIT_ATTR_IND_TABLE.rawValue | IBV_QP_INIT_ATTR_RX_HASH.rawValue
        attributes.pd = unsafeRaw
        attributes.qp_type = ibv_qp_type(rawValue: type.rawValue)
        attributes.rwq_ind_tbl = table.raw
        attributes.rx_hash_conf.rx_hash_function = UInt8(IBV_RX_HASH_FUNC_TOEPLITZ.rawValue)
        attributes.rx_hash_conf.rx_hash_key_len = UInt8(clamping: hash.key.count)
        attributes.rx_hash_conf.rx_hash_fields_mask = hash.fields.rawValue
        // The provider copies the key; it is not const in verbs.h.
        let key = UnsafeMutablePointer<UInt8>.allocate(capacity: max(hash.key.count, 1))
        defer { key.deallocate() }
        for (index, byte) in hash.key.enumerated() { key[index] = byte }
        attributes.rx_hash_conf.rx_hash_key = key
        return try context.makeQueuePair(&attributes, needs: [self, table], object)
    }
}
