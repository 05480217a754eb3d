import CIBVerbs
import CRDMACM
import CRDMACMNode

// Between the structs of librdmacm and those of the kernel.

extension rdma_conn_param {
    init(_ parameters: rdma_ucm_conn_param) {
        self.init()
        responder_resources = parameters.responder_resources
        initiator_depth = parameters.initiator_depth
        flow_control = parameters.flow_control
        retry_count = parameters.retry_count
        rnr_retry_count = parameters.rnr_retry_count
        srq = parameters.srq
        qp_num = parameters.qp_num
    }
}

extension rdma_ucm_conn_param {
    init(_ parameters: rdma_conn_param, _ data: [UInt8]) {
        self.init()
        qp_num = parameters.qp_num
        withUnsafeMutableBytes(of: &private_data) { $0.copyBytes(from: data.prefix($0.count)) }
        private_data_len = UInt8(clamping: data.count)
        srq = parameters.srq
        responder_resources = parameters.responder_resources
        initiator_depth = parameters.initiator_depth
        flow_control = parameters.flow_control
        retry_count = parameters.retry_count
        rnr_retry_count = parameters.rnr_retry_count
    }
}

extension rdma_ucm_ud_param {
    init(_ parameters: rdma_ud_param, _ data: [UInt8]) {
        self.init()
        qp_num = parameters.qp_num
        qkey = parameters.qkey
        ah_attr = ib_uverbs_ah_attr(parameters.ah_attr)
        withUnsafeMutableBytes(of: &private_data) { $0.copyBytes(from: data.prefix($0.count)) }
        private_data_len = UInt8(clamping: data.count)
    }
}

extension ib_uverbs_ah_attr {
    init(_ attributes: ibv_ah_attr) {
        self.init()
        withUnsafeBytes(of: attributes.grh.dgid) { gid in
            withUnsafeMutableBytes(of: &grh.dgid) { $0.copyMemory(from: gid) }
        }
        grh.flow_label = attributes.grh.flow_label
        grh.sgid_index = attributes.grh.sgid_index
        grh.hop_limit = attributes.grh.hop_limit
        grh.traffic_class = attributes.grh.traffic_class
        dlid = attributes.dlid
        sl = attributes.sl
        src_path_bits = attributes.src_path_bits
        static_rate = attributes.static_rate
        is_global = attributes.is_global
        port_num = attributes.port_num
    }
}

extension ib_uverbs_qp_attr {
    init(_ attributes: ibv_qp_attr, mask: UInt32) {
        self.init()
        qp_attr_mask = mask
        qp_state = attributes.qp_state.rawValue
        path_mtu = attributes.path_mtu.rawValue
        qkey = attributes.qkey
        rq_psn = attributes.rq_psn
        sq_psn = attributes.sq_psn
        dest_qp_num = attributes.dest_qp_num
        qp_access_flags = attributes.qp_access_flags
        ah_attr = ib_uverbs_ah_attr(attributes.ah_attr)
        pkey_index = attributes.pkey_index
        max_rd_atomic = attributes.max_rd_atomic
        max_dest_rd_atomic = attributes.max_dest_rd_atomic
        min_rnr_timer = attributes.min_rnr_timer
        port_num = attributes.port_num
        timeout = attributes.timeout
        retry_cnt = attributes.retry_cnt
        rnr_retry = attributes.rnr_retry
    }
}
