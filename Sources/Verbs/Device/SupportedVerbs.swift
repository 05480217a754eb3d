import CProviderABI

extension Context {
    /// An interface of the provider beyond verbs.h, by its name and version (`rdma_context_ops.query_extension` of
    /// rdma_provider.h), such as direct access to the queues of a device.
    /// - Returns: Static data, whose layout the provider's header declares for that name and version; nil where the
    ///   provider does not have it. The provider stays loaded as long as the process lives.
    public func providerExtension(_ name: String, version: UInt32) -> UnsafeRawPointer? {
        table.query_extension?(unsafeRaw, name, version)
    }

    /// The verbs that the provider implements, of those that a provider may leave out. The others throw
    /// `EOPNOTSUPP`; a device may refuse one of these as well.
    public var supportedVerbs: [Verb] { optionalVerbs.filter(\.isThere).map(\.verb) }

    /// The verbs that the provider leaves out. They throw `EOPNOTSUPP`.
    public var unsupportedVerbs: [Verb] { optionalVerbs.filter { !$0.isThere }.map(\.verb) }

    private var optionalVerbs: [(verb: Verb, isThere: Bool)] {
        [
            (.queryDevice, table.query_device_ex != nil), (.queryPort, table.query_port != nil),
            (.queryGID, table.query_gid_ex != nil), (.queryGIDTable, table.query_gid_table != nil),
            (.queryPKey, table.query_pkey != nil), (.queryRealTimeValues, table.query_rt_values != nil),
            (.allocPD, table.alloc_pd != nil), (.allocParentDomain, table.alloc_parent_domain != nil),
            (.allocTD, table.alloc_td != nil), (.regMR, table.reg_mr != nil),
            (.regDMABufMR, table.reg_dmabuf_mr != nil), (.reregMR, table.rereg_mr != nil),
            (.allocNullMR, table.alloc_null_mr != nil), (.adviseMR, table.advise_mr != nil),
            (.allocDM, table.alloc_dm != nil), (.regDMMR, table.reg_dm_mr != nil),
            (.createCompChannel, table.create_comp_channel != nil), (.createCQ, table.create_cq != nil),
            (.createCQEx, table.create_cq_ex != nil), (.resizeCQ, table.resize_cq != nil),
            (.modifyCQ, table.modify_cq != nil), (.createSRQ, table.create_srq_ex != nil),
            (.modifySRQ, table.modify_srq != nil), (.querySRQ, table.query_srq != nil),
            (.getSRQNum, table.get_srq_num != nil), (.openXRCD, table.open_xrcd != nil),
            (.openQP, table.open_qp != nil), (.createQP, table.create_qp_ex != nil),
            (.extendedQP, table.qp_to_qp_ex != nil), (.modifyQP, table.modify_qp != nil),
            (.queryQP, table.query_qp != nil), (.modifyQPRateLimit, table.modify_qp_rate_limit != nil),
            (.queryQPDataInOrder, table.query_qp_data_in_order != nil), (.queryECE, table.query_ece != nil),
            (.setECE, table.set_ece != nil), (.createAH, table.create_ah != nil),
            (.attachMulticast, table.attach_mcast != nil), (.createWQ, table.create_wq != nil),
            (.modifyWQ, table.modify_wq != nil), (.createIndirectionTable, table.create_rwq_ind_table != nil),
            (.createFlow, table.create_flow != nil), (.createCounters, table.create_counters != nil),
            (.attachCounters, table.attach_counters_point_flow != nil), (.readCounters, table.read_counters != nil),
        ]
    }
}
