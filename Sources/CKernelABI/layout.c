// The layouts that the Swift code relies on, checked against the kernel headers that are installed.
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <rdma/rdma_user_rxe.h>
#include <stddef.h>

#define SIZE(type, size) _Static_assert(sizeof(struct type) == (size), "size of struct " #type)
/* The kernel is told how much room there is, and fills what it knows. */
#define GROWS(type, size) _Static_assert(sizeof(struct type) >= (size), "size of struct " #type)
#define FIELD(type, field, offset)                                                                         \
	_Static_assert(offsetof(struct type, field) == (offset), "offset of " #field " in struct " #type)

_Static_assert(RDMA_VERBS_IOCTL == 0xc0181b01, "the one ioctl of uverbs");
_Static_assert(IB_USER_VERBS_ABI_VERSION == 6, "the ABI of uverbs that KernelVerbs.KernelABI.uverbs names");

/* ---- uverbs: <rdma/ib_user_verbs.h>, <rdma/ib_user_ioctl_verbs.h>, <rdma/rdma_user_ioctl_cmds.h> ---- */

SIZE(ib_uverbs_ioctl_hdr, 24);
FIELD(ib_uverbs_ioctl_hdr, length, 0);
FIELD(ib_uverbs_ioctl_hdr, object_id, 2);
FIELD(ib_uverbs_ioctl_hdr, method_id, 4);
FIELD(ib_uverbs_ioctl_hdr, num_attrs, 6);
FIELD(ib_uverbs_ioctl_hdr, driver_id, 16);
FIELD(ib_uverbs_ioctl_hdr, attrs, 24);

SIZE(ib_uverbs_attr, 16);
FIELD(ib_uverbs_attr, attr_id, 0);
FIELD(ib_uverbs_attr, len, 2);
FIELD(ib_uverbs_attr, flags, 4);
FIELD(ib_uverbs_attr, data, 8);

SIZE(ib_uverbs_cmd_hdr, 8);
FIELD(ib_uverbs_cmd_hdr, command, 0);
FIELD(ib_uverbs_cmd_hdr, in_words, 4);
FIELD(ib_uverbs_cmd_hdr, out_words, 6);

SIZE(ib_uverbs_ex_cmd_hdr, 16);
FIELD(ib_uverbs_ex_cmd_hdr, response, 0);
FIELD(ib_uverbs_ex_cmd_hdr, provider_in_words, 8);
FIELD(ib_uverbs_ex_cmd_hdr, provider_out_words, 10);

SIZE(ib_uverbs_get_context, 8);
FIELD(ib_uverbs_get_context, response, 0);

SIZE(ib_uverbs_get_context_resp, 8);
FIELD(ib_uverbs_get_context_resp, async_fd, 0);
FIELD(ib_uverbs_get_context_resp, num_comp_vectors, 4);

SIZE(ib_uverbs_query_device, 8);
FIELD(ib_uverbs_query_device, response, 0);

SIZE(ib_uverbs_query_device_resp, 176);
FIELD(ib_uverbs_query_device_resp, fw_ver, 0);
FIELD(ib_uverbs_query_device_resp, vendor_id, 40);
FIELD(ib_uverbs_query_device_resp, max_sge, 64);
FIELD(ib_uverbs_query_device_resp, max_pkeys, 168);
FIELD(ib_uverbs_query_device_resp, phys_port_cnt, 171);

SIZE(ib_uverbs_ex_query_device, 8);
FIELD(ib_uverbs_ex_query_device, comp_mask, 0);

GROWS(ib_uverbs_ex_query_device_resp, 304);
FIELD(ib_uverbs_ex_query_device_resp, base, 0);
FIELD(ib_uverbs_ex_query_device_resp, comp_mask, 176);
FIELD(ib_uverbs_ex_query_device_resp, response_length, 180);
FIELD(ib_uverbs_ex_query_device_resp, odp_caps, 184);
FIELD(ib_uverbs_ex_query_device_resp, timestamp_mask, 208);
FIELD(ib_uverbs_ex_query_device_resp, device_cap_flags_ex, 224);
FIELD(ib_uverbs_ex_query_device_resp, rss_caps, 232);
FIELD(ib_uverbs_ex_query_device_resp, tm_caps, 256);
FIELD(ib_uverbs_ex_query_device_resp, cq_moderation_caps, 280);
FIELD(ib_uverbs_ex_query_device_resp, max_dm_size, 288);
FIELD(ib_uverbs_ex_query_device_resp, xrc_odp_caps, 296);

SIZE(ib_uverbs_query_port, 16);
FIELD(ib_uverbs_query_port, response, 0);
FIELD(ib_uverbs_query_port, port_num, 8);

SIZE(ib_uverbs_query_port_resp, 40);
FIELD(ib_uverbs_query_port_resp, port_cap_flags, 0);
FIELD(ib_uverbs_query_port_resp, gid_tbl_len, 16);
FIELD(ib_uverbs_query_port_resp, pkey_tbl_len, 20);
FIELD(ib_uverbs_query_port_resp, lid, 22);
FIELD(ib_uverbs_query_port_resp, state, 26);
FIELD(ib_uverbs_query_port_resp, link_layer, 37);
FIELD(ib_uverbs_query_port_resp, flags, 38);

GROWS(ib_uverbs_query_port_resp_ex, 48);
FIELD(ib_uverbs_query_port_resp_ex, legacy_resp, 0);
FIELD(ib_uverbs_query_port_resp_ex, port_cap_flags2, 40);

SIZE(ib_uverbs_gid_entry, 32);
FIELD(ib_uverbs_gid_entry, gid, 0);
FIELD(ib_uverbs_gid_entry, gid_index, 16);
FIELD(ib_uverbs_gid_entry, port_num, 20);
FIELD(ib_uverbs_gid_entry, gid_type, 24);
FIELD(ib_uverbs_gid_entry, netdev_ifindex, 28);

SIZE(ib_uverbs_alloc_pd, 8);
FIELD(ib_uverbs_alloc_pd, response, 0);

SIZE(ib_uverbs_alloc_pd_resp, 4);
FIELD(ib_uverbs_alloc_pd_resp, pd_handle, 0);
FIELD(ib_uverbs_alloc_pd_resp, driver_data, 4);

SIZE(ib_uverbs_dealloc_pd, 4);
FIELD(ib_uverbs_dealloc_pd, pd_handle, 0);

SIZE(ib_uverbs_reg_mr, 40);
FIELD(ib_uverbs_reg_mr, response, 0);
FIELD(ib_uverbs_reg_mr, start, 8);
FIELD(ib_uverbs_reg_mr, length, 16);
FIELD(ib_uverbs_reg_mr, hca_va, 24);
FIELD(ib_uverbs_reg_mr, pd_handle, 32);
FIELD(ib_uverbs_reg_mr, access_flags, 36);

SIZE(ib_uverbs_reg_mr_resp, 12);
FIELD(ib_uverbs_reg_mr_resp, mr_handle, 0);
FIELD(ib_uverbs_reg_mr_resp, lkey, 4);
FIELD(ib_uverbs_reg_mr_resp, rkey, 8);
FIELD(ib_uverbs_reg_mr_resp, driver_data, 12);

SIZE(ib_uverbs_rereg_mr, 48);
FIELD(ib_uverbs_rereg_mr, response, 0);
FIELD(ib_uverbs_rereg_mr, mr_handle, 8);
FIELD(ib_uverbs_rereg_mr, flags, 12);
FIELD(ib_uverbs_rereg_mr, start, 16);
FIELD(ib_uverbs_rereg_mr, length, 24);
FIELD(ib_uverbs_rereg_mr, hca_va, 32);
FIELD(ib_uverbs_rereg_mr, pd_handle, 40);
FIELD(ib_uverbs_rereg_mr, access_flags, 44);

SIZE(ib_uverbs_rereg_mr_resp, 8);
FIELD(ib_uverbs_rereg_mr_resp, lkey, 0);
FIELD(ib_uverbs_rereg_mr_resp, rkey, 4);

SIZE(ib_uverbs_dereg_mr, 4);
FIELD(ib_uverbs_dereg_mr, mr_handle, 0);

SIZE(ib_uverbs_alloc_mw, 16);
FIELD(ib_uverbs_alloc_mw, response, 0);
FIELD(ib_uverbs_alloc_mw, pd_handle, 8);
FIELD(ib_uverbs_alloc_mw, mw_type, 12);

SIZE(ib_uverbs_alloc_mw_resp, 8);
FIELD(ib_uverbs_alloc_mw_resp, mw_handle, 0);
FIELD(ib_uverbs_alloc_mw_resp, rkey, 4);

SIZE(ib_uverbs_dealloc_mw, 4);
FIELD(ib_uverbs_dealloc_mw, mw_handle, 0);

SIZE(ib_uverbs_create_comp_channel, 8);
FIELD(ib_uverbs_create_comp_channel, response, 0);

SIZE(ib_uverbs_create_comp_channel_resp, 4);
FIELD(ib_uverbs_create_comp_channel_resp, fd, 0);

SIZE(ib_uverbs_create_cq, 32);
FIELD(ib_uverbs_create_cq, response, 0);
FIELD(ib_uverbs_create_cq, user_handle, 8);
FIELD(ib_uverbs_create_cq, cqe, 16);
FIELD(ib_uverbs_create_cq, comp_vector, 20);
FIELD(ib_uverbs_create_cq, comp_channel, 24);

SIZE(ib_uverbs_ex_create_cq, 32);
FIELD(ib_uverbs_ex_create_cq, user_handle, 0);
FIELD(ib_uverbs_ex_create_cq, cqe, 8);
FIELD(ib_uverbs_ex_create_cq, comp_vector, 12);
FIELD(ib_uverbs_ex_create_cq, comp_channel, 16);
FIELD(ib_uverbs_ex_create_cq, comp_mask, 20);
FIELD(ib_uverbs_ex_create_cq, flags, 24);

SIZE(ib_uverbs_create_cq_resp, 8);
FIELD(ib_uverbs_create_cq_resp, cq_handle, 0);
FIELD(ib_uverbs_create_cq_resp, cqe, 4);

SIZE(ib_uverbs_ex_create_cq_resp, 16);
FIELD(ib_uverbs_ex_create_cq_resp, base, 0);
FIELD(ib_uverbs_ex_create_cq_resp, comp_mask, 8);
FIELD(ib_uverbs_ex_create_cq_resp, response_length, 12);

SIZE(ib_uverbs_resize_cq, 16);
FIELD(ib_uverbs_resize_cq, response, 0);
FIELD(ib_uverbs_resize_cq, cq_handle, 8);
FIELD(ib_uverbs_resize_cq, cqe, 12);

SIZE(ib_uverbs_resize_cq_resp, 8);
FIELD(ib_uverbs_resize_cq_resp, cqe, 0);

SIZE(ib_uverbs_req_notify_cq, 8);
FIELD(ib_uverbs_req_notify_cq, cq_handle, 0);
FIELD(ib_uverbs_req_notify_cq, solicited_only, 4);

SIZE(ib_uverbs_destroy_cq, 16);
FIELD(ib_uverbs_destroy_cq, response, 0);
FIELD(ib_uverbs_destroy_cq, cq_handle, 8);

SIZE(ib_uverbs_destroy_cq_resp, 8);
FIELD(ib_uverbs_destroy_cq_resp, comp_events_reported, 0);
FIELD(ib_uverbs_destroy_cq_resp, async_events_reported, 4);

SIZE(ib_uverbs_global_route, 24);
FIELD(ib_uverbs_global_route, dgid, 0);
FIELD(ib_uverbs_global_route, flow_label, 16);
FIELD(ib_uverbs_global_route, sgid_index, 20);
FIELD(ib_uverbs_global_route, hop_limit, 21);
FIELD(ib_uverbs_global_route, traffic_class, 22);

SIZE(ib_uverbs_ah_attr, 32);
FIELD(ib_uverbs_ah_attr, grh, 0);
FIELD(ib_uverbs_ah_attr, dlid, 24);
FIELD(ib_uverbs_ah_attr, sl, 26);
FIELD(ib_uverbs_ah_attr, src_path_bits, 27);
FIELD(ib_uverbs_ah_attr, static_rate, 28);
FIELD(ib_uverbs_ah_attr, is_global, 29);
FIELD(ib_uverbs_ah_attr, port_num, 30);

SIZE(ib_uverbs_create_ah, 56);
FIELD(ib_uverbs_create_ah, response, 0);
FIELD(ib_uverbs_create_ah, user_handle, 8);
FIELD(ib_uverbs_create_ah, pd_handle, 16);
FIELD(ib_uverbs_create_ah, attr, 24);

SIZE(ib_uverbs_create_ah_resp, 4);
FIELD(ib_uverbs_create_ah_resp, ah_handle, 0);
FIELD(ib_uverbs_create_ah_resp, driver_data, 4);

SIZE(ib_uverbs_destroy_ah, 4);
FIELD(ib_uverbs_destroy_ah, ah_handle, 0);

SIZE(ib_uverbs_qp_cap, 20);
FIELD(ib_uverbs_qp_cap, max_send_wr, 0);
FIELD(ib_uverbs_qp_cap, max_recv_wr, 4);
FIELD(ib_uverbs_qp_cap, max_send_sge, 8);
FIELD(ib_uverbs_qp_cap, max_recv_sge, 12);
FIELD(ib_uverbs_qp_cap, max_inline_data, 16);

SIZE(ib_uverbs_create_qp, 56);
FIELD(ib_uverbs_create_qp, response, 0);
FIELD(ib_uverbs_create_qp, user_handle, 8);
FIELD(ib_uverbs_create_qp, pd_handle, 16);
FIELD(ib_uverbs_create_qp, max_send_wr, 32);
FIELD(ib_uverbs_create_qp, sq_sig_all, 52);
FIELD(ib_uverbs_create_qp, qp_type, 53);
FIELD(ib_uverbs_create_qp, is_srq, 54);

SIZE(ib_uverbs_create_qp_resp, 32);
FIELD(ib_uverbs_create_qp_resp, qp_handle, 0);
FIELD(ib_uverbs_create_qp_resp, qpn, 4);
FIELD(ib_uverbs_create_qp_resp, max_send_wr, 8);
FIELD(ib_uverbs_create_qp_resp, max_inline_data, 24);
FIELD(ib_uverbs_create_qp_resp, driver_data, 32);

SIZE(ib_uverbs_qp_dest, 32);
FIELD(ib_uverbs_qp_dest, dgid, 0);
FIELD(ib_uverbs_qp_dest, flow_label, 16);
FIELD(ib_uverbs_qp_dest, dlid, 20);
FIELD(ib_uverbs_qp_dest, sgid_index, 24);
FIELD(ib_uverbs_qp_dest, hop_limit, 25);
FIELD(ib_uverbs_qp_dest, traffic_class, 26);
FIELD(ib_uverbs_qp_dest, sl, 27);
FIELD(ib_uverbs_qp_dest, src_path_bits, 28);
FIELD(ib_uverbs_qp_dest, static_rate, 29);
FIELD(ib_uverbs_qp_dest, is_global, 30);
FIELD(ib_uverbs_qp_dest, port_num, 31);

SIZE(ib_uverbs_modify_qp, 112);
FIELD(ib_uverbs_modify_qp, dest, 0);
FIELD(ib_uverbs_modify_qp, alt_dest, 32);
FIELD(ib_uverbs_modify_qp, qp_handle, 64);
FIELD(ib_uverbs_modify_qp, attr_mask, 68);
FIELD(ib_uverbs_modify_qp, qkey, 72);
FIELD(ib_uverbs_modify_qp, qp_access_flags, 88);
FIELD(ib_uverbs_modify_qp, pkey_index, 92);
FIELD(ib_uverbs_modify_qp, qp_state, 96);
FIELD(ib_uverbs_modify_qp, min_rnr_timer, 103);
FIELD(ib_uverbs_modify_qp, port_num, 104);
FIELD(ib_uverbs_modify_qp, alt_timeout, 109);

SIZE(ib_uverbs_ex_modify_qp, 120);
FIELD(ib_uverbs_ex_modify_qp, base, 0);
FIELD(ib_uverbs_ex_modify_qp, rate_limit, 112);

SIZE(ib_uverbs_ex_modify_qp_resp, 8);
FIELD(ib_uverbs_ex_modify_qp_resp, comp_mask, 0);
FIELD(ib_uverbs_ex_modify_qp_resp, response_length, 4);

SIZE(ib_uverbs_query_qp, 16);
FIELD(ib_uverbs_query_qp, response, 0);
FIELD(ib_uverbs_query_qp, qp_handle, 8);
FIELD(ib_uverbs_query_qp, attr_mask, 12);

SIZE(ib_uverbs_query_qp_resp, 128);
FIELD(ib_uverbs_query_qp_resp, dest, 0);
FIELD(ib_uverbs_query_qp_resp, alt_dest, 32);
FIELD(ib_uverbs_query_qp_resp, max_send_wr, 64);
FIELD(ib_uverbs_query_qp_resp, qkey, 84);
FIELD(ib_uverbs_query_qp_resp, qp_access_flags, 100);
FIELD(ib_uverbs_query_qp_resp, pkey_index, 104);
FIELD(ib_uverbs_query_qp_resp, qp_state, 108);
FIELD(ib_uverbs_query_qp_resp, sq_sig_all, 122);

SIZE(ib_uverbs_destroy_qp, 16);
FIELD(ib_uverbs_destroy_qp, response, 0);
FIELD(ib_uverbs_destroy_qp, qp_handle, 8);

SIZE(ib_uverbs_destroy_qp_resp, 4);
FIELD(ib_uverbs_destroy_qp_resp, events_reported, 0);

SIZE(ib_uverbs_create_srq, 32);
FIELD(ib_uverbs_create_srq, response, 0);
FIELD(ib_uverbs_create_srq, user_handle, 8);
FIELD(ib_uverbs_create_srq, pd_handle, 16);
FIELD(ib_uverbs_create_srq, max_wr, 20);
FIELD(ib_uverbs_create_srq, max_sge, 24);
FIELD(ib_uverbs_create_srq, srq_limit, 28);

SIZE(ib_uverbs_create_srq_resp, 16);
FIELD(ib_uverbs_create_srq_resp, srq_handle, 0);
FIELD(ib_uverbs_create_srq_resp, max_wr, 4);
FIELD(ib_uverbs_create_srq_resp, max_sge, 8);
FIELD(ib_uverbs_create_srq_resp, srqn, 12);
FIELD(ib_uverbs_create_srq_resp, driver_data, 16);

SIZE(ib_uverbs_modify_srq, 16);
FIELD(ib_uverbs_modify_srq, srq_handle, 0);
FIELD(ib_uverbs_modify_srq, attr_mask, 4);
FIELD(ib_uverbs_modify_srq, max_wr, 8);
FIELD(ib_uverbs_modify_srq, srq_limit, 12);

SIZE(ib_uverbs_query_srq, 16);
FIELD(ib_uverbs_query_srq, response, 0);
FIELD(ib_uverbs_query_srq, srq_handle, 8);

SIZE(ib_uverbs_query_srq_resp, 16);
FIELD(ib_uverbs_query_srq_resp, max_wr, 0);
FIELD(ib_uverbs_query_srq_resp, max_sge, 4);
FIELD(ib_uverbs_query_srq_resp, srq_limit, 8);

SIZE(ib_uverbs_destroy_srq, 16);
FIELD(ib_uverbs_destroy_srq, response, 0);
FIELD(ib_uverbs_destroy_srq, srq_handle, 8);

SIZE(ib_uverbs_destroy_srq_resp, 4);
FIELD(ib_uverbs_destroy_srq_resp, events_reported, 0);

SIZE(ib_uverbs_attach_mcast, 24);
FIELD(ib_uverbs_attach_mcast, gid, 0);
FIELD(ib_uverbs_attach_mcast, qp_handle, 16);
FIELD(ib_uverbs_attach_mcast, mlid, 20);

SIZE(ib_uverbs_detach_mcast, 24);
FIELD(ib_uverbs_detach_mcast, gid, 0);
FIELD(ib_uverbs_detach_mcast, qp_handle, 16);
FIELD(ib_uverbs_detach_mcast, mlid, 20);

SIZE(ib_uverbs_post_send, 24);
FIELD(ib_uverbs_post_send, response, 0);
FIELD(ib_uverbs_post_send, qp_handle, 8);
FIELD(ib_uverbs_post_send, wr_count, 12);
FIELD(ib_uverbs_post_send, sge_count, 16);
FIELD(ib_uverbs_post_send, wqe_size, 20);

SIZE(ib_uverbs_send_wr, 56);
FIELD(ib_uverbs_send_wr, wr_id, 0);

SIZE(ib_uverbs_post_send_resp, 4);
FIELD(ib_uverbs_post_send_resp, bad_wr, 0);

SIZE(ib_uverbs_wc, 48);
FIELD(ib_uverbs_wc, wr_id, 0);
FIELD(ib_uverbs_wc, status, 8);
FIELD(ib_uverbs_wc, opcode, 12);
FIELD(ib_uverbs_wc, vendor_err, 16);
FIELD(ib_uverbs_wc, byte_len, 20);
FIELD(ib_uverbs_wc, ex, 24);
FIELD(ib_uverbs_wc, qp_num, 28);
FIELD(ib_uverbs_wc, src_qp, 32);
FIELD(ib_uverbs_wc, wc_flags, 36);
FIELD(ib_uverbs_wc, pkey_index, 40);
FIELD(ib_uverbs_wc, slid, 42);
FIELD(ib_uverbs_wc, sl, 44);
FIELD(ib_uverbs_wc, dlid_path_bits, 45);
FIELD(ib_uverbs_wc, port_num, 46);

SIZE(ib_uverbs_comp_event_desc, 8);
FIELD(ib_uverbs_comp_event_desc, cq_handle, 0);

SIZE(ib_uverbs_async_event_desc, 16);
FIELD(ib_uverbs_async_event_desc, element, 0);
FIELD(ib_uverbs_async_event_desc, event_type, 8);

/* ---- rxe: <rdma/rdma_user_rxe.h>; its queues are checked in rxe_layouts.c ---- */

SIZE(mminfo, 16);
FIELD(mminfo, offset, 0);
FIELD(mminfo, size, 8);

SIZE(rxe_create_ah_resp, 8);
FIELD(rxe_create_ah_resp, ah_num, 0);

SIZE(rxe_create_cq_resp, 16);
FIELD(rxe_create_cq_resp, mi, 0);

SIZE(rxe_resize_cq_resp, 16);
FIELD(rxe_resize_cq_resp, mi, 0);

SIZE(rxe_create_qp_resp, 32);
FIELD(rxe_create_qp_resp, rq_mi, 0);
FIELD(rxe_create_qp_resp, sq_mi, 16);

SIZE(rxe_create_srq_resp, 24);
FIELD(rxe_create_srq_resp, mi, 0);
FIELD(rxe_create_srq_resp, srq_num, 16);

SIZE(rxe_modify_srq_cmd, 8);
FIELD(rxe_modify_srq_cmd, mmap_info_addr, 0);
