/// The call that failed, by the name of its manual page, such as `ibv_reg_mr`.
///
/// Open: providers and higher layers may name calls of their own.
public struct Verb: RawRepresentable, Hashable, Sendable, CustomStringConvertible, ExpressibleByStringLiteral {
    /// The name of the manual page.
    public let rawValue: String

    /// The verb of that name.
    public init(rawValue: String) { self.rawValue = rawValue }
    /// The verb of that name.
    public init(stringLiteral value: String) { self.init(rawValue: value) }
    /// The name of the manual page.
    public var description: String { rawValue }
}

extension Verb {
    /// ibv_get_device_list(3)
    public static var getDeviceList: Verb { "ibv_get_device_list" }
    /// ibv_open_device(3)
    public static var openDevice: Verb { "ibv_open_device" }
    /// ibv_query_device_ex(3)
    public static var queryDevice: Verb { "ibv_query_device_ex" }
    /// ibv_query_port(3)
    public static var queryPort: Verb { "ibv_query_port" }
    /// ibv_query_gid_ex(3)
    public static var queryGID: Verb { "ibv_query_gid_ex" }
    /// ibv_query_gid_table(3)
    public static var queryGIDTable: Verb { "ibv_query_gid_table" }
    /// ibv_query_pkey(3)
    public static var queryPKey: Verb { "ibv_query_pkey" }
    /// ibv_query_rt_values_ex(3)
    public static var queryRealTimeValues: Verb { "ibv_query_rt_values_ex" }
    /// ibv_fork_init(3)
    public static var forkInit: Verb { "ibv_fork_init" }
    /// ibv_get_async_event(3)
    public static var getAsyncEvent: Verb { "ibv_get_async_event" }

    /// ibv_alloc_pd(3)
    public static var allocPD: Verb { "ibv_alloc_pd" }
    /// ibv_dealloc_pd(3)
    public static var deallocPD: Verb { "ibv_dealloc_pd" }
    /// ibv_alloc_parent_domain(3)
    public static var allocParentDomain: Verb { "ibv_alloc_parent_domain" }
    /// ibv_alloc_td(3)
    public static var allocTD: Verb { "ibv_alloc_td" }
    /// ibv_dealloc_td(3)
    public static var deallocTD: Verb { "ibv_dealloc_td" }

    /// ibv_reg_mr(3)
    public static var regMR: Verb { "ibv_reg_mr" }
    /// ibv_reg_dmabuf_mr(3)
    public static var regDMABufMR: Verb { "ibv_reg_dmabuf_mr" }
    /// ibv_rereg_mr(3)
    public static var reregMR: Verb { "ibv_rereg_mr" }
    /// ibv_dereg_mr(3)
    public static var deregMR: Verb { "ibv_dereg_mr" }
    /// ibv_alloc_null_mr(3)
    public static var allocNullMR: Verb { "ibv_alloc_null_mr" }
    /// ibv_advise_mr(3)
    public static var adviseMR: Verb { "ibv_advise_mr" }
    /// ibv_alloc_mw(3)
    public static var allocMW: Verb { "ibv_alloc_mw" }
    /// ibv_bind_mw(3)
    public static var bindMW: Verb { "ibv_bind_mw" }
    /// ibv_dealloc_mw(3)
    public static var deallocMW: Verb { "ibv_dealloc_mw" }
    /// ibv_alloc_dm(3)
    public static var allocDM: Verb { "ibv_alloc_dm" }
    /// ibv_free_dm(3)
    public static var freeDM: Verb { "ibv_free_dm" }
    /// ibv_reg_dm_mr(3)
    public static var regDMMR: Verb { "ibv_reg_dm_mr" }
    /// ibv_memcpy_to_dm(3)
    public static var memcpyToDM: Verb { "ibv_memcpy_to_dm" }
    /// ibv_memcpy_from_dm(3)
    public static var memcpyFromDM: Verb { "ibv_memcpy_from_dm" }

    /// ibv_create_comp_channel(3)
    public static var createCompChannel: Verb { "ibv_create_comp_channel" }
    /// ibv_destroy_comp_channel(3)
    public static var destroyCompChannel: Verb { "ibv_destroy_comp_channel" }
    /// ibv_get_cq_event(3)
    public static var getCQEvent: Verb { "ibv_get_cq_event" }
    /// ibv_create_cq(3)
    public static var createCQ: Verb { "ibv_create_cq" }
    /// ibv_create_cq_ex(3)
    public static var createCQEx: Verb { "ibv_create_cq_ex" }
    /// ibv_resize_cq(3)
    public static var resizeCQ: Verb { "ibv_resize_cq" }
    /// ibv_modify_cq(3)
    public static var modifyCQ: Verb { "ibv_modify_cq" }
    /// ibv_destroy_cq(3)
    public static var destroyCQ: Verb { "ibv_destroy_cq" }
    /// ibv_poll_cq(3)
    public static var pollCQ: Verb { "ibv_poll_cq" }
    /// ibv_start_poll, ibv_next_poll of ibv_create_cq_ex(3)
    public static var startPoll: Verb { "ibv_start_poll" }
    /// ibv_req_notify_cq(3)
    public static var reqNotifyCQ: Verb { "ibv_req_notify_cq" }

    /// ibv_create_srq_ex(3)
    public static var createSRQ: Verb { "ibv_create_srq_ex" }
    /// ibv_modify_srq(3)
    public static var modifySRQ: Verb { "ibv_modify_srq" }
    /// ibv_query_srq(3)
    public static var querySRQ: Verb { "ibv_query_srq" }
    /// ibv_get_srq_num(3)
    public static var getSRQNum: Verb { "ibv_get_srq_num" }
    /// ibv_destroy_srq(3)
    public static var destroySRQ: Verb { "ibv_destroy_srq" }
    /// ibv_post_srq_recv(3)
    public static var postSRQReceive: Verb { "ibv_post_srq_recv" }
    /// ibv_open_xrcd(3)
    public static var openXRCD: Verb { "ibv_open_xrcd" }
    /// ibv_close_xrcd(3)
    public static var closeXRCD: Verb { "ibv_close_xrcd" }

    /// ibv_create_qp_ex(3)
    public static var createQP: Verb { "ibv_create_qp_ex" }
    /// ibv_open_qp(3)
    public static var openQP: Verb { "ibv_open_qp" }
    /// ibv_modify_qp(3)
    public static var modifyQP: Verb { "ibv_modify_qp" }
    /// ibv_query_qp(3)
    public static var queryQP: Verb { "ibv_query_qp" }
    /// ibv_modify_qp_rate_limit(3)
    public static var modifyQPRateLimit: Verb { "ibv_modify_qp_rate_limit" }
    /// ibv_query_qp_data_in_order(3)
    public static var queryQPDataInOrder: Verb { "ibv_query_qp_data_in_order" }
    /// ibv_query_ece(3)
    public static var queryECE: Verb { "ibv_query_ece" }
    /// ibv_set_ece(3)
    public static var setECE: Verb { "ibv_set_ece" }
    /// ibv_destroy_qp(3)
    public static var destroyQP: Verb { "ibv_destroy_qp" }
    /// ibv_post_send(3)
    public static var postSend: Verb { "ibv_post_send" }
    /// ibv_post_recv(3)
    public static var postReceive: Verb { "ibv_post_recv" }
    /// ibv_qp_to_qp_ex of ibv_wr_post(3)
    public static var extendedQP: Verb { "ibv_qp_to_qp_ex" }
    /// ibv_wr_complete of ibv_wr_post(3)
    public static var completeWorkRequests: Verb { "ibv_wr_complete" }

    /// ibv_create_ah(3)
    public static var createAH: Verb { "ibv_create_ah" }
    /// ibv_destroy_ah(3)
    public static var destroyAH: Verb { "ibv_destroy_ah" }
    /// ibv_attach_mcast(3)
    public static var attachMulticast: Verb { "ibv_attach_mcast" }
    /// ibv_detach_mcast(3)
    public static var detachMulticast: Verb { "ibv_detach_mcast" }

    /// ibv_create_wq(3)
    public static var createWQ: Verb { "ibv_create_wq" }
    /// ibv_modify_wq(3)
    public static var modifyWQ: Verb { "ibv_modify_wq" }
    /// ibv_destroy_wq(3)
    public static var destroyWQ: Verb { "ibv_destroy_wq" }
    /// ibv_post_wq_recv(3)
    public static var postWQReceive: Verb { "ibv_post_wq_recv" }
    /// ibv_create_rwq_ind_table(3)
    public static var createIndirectionTable: Verb { "ibv_create_rwq_ind_table" }
    /// ibv_destroy_rwq_ind_table(3)
    public static var destroyIndirectionTable: Verb { "ibv_destroy_rwq_ind_table" }

    /// ibv_create_flow(3)
    public static var createFlow: Verb { "ibv_create_flow" }
    /// ibv_destroy_flow(3)
    public static var destroyFlow: Verb { "ibv_destroy_flow" }
    /// ibv_create_counters(3)
    public static var createCounters: Verb { "ibv_create_counters" }
    /// ibv_attach_counters_point_flow(3)
    public static var attachCounters: Verb { "ibv_attach_counters_point_flow" }
    /// ibv_read_counters(3)
    public static var readCounters: Verb { "ibv_read_counters" }
    /// ibv_destroy_counters(3)
    public static var destroyCounters: Verb { "ibv_destroy_counters" }
}
