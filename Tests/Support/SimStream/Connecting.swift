import CIBVerbs
import CProviderABI
import CSimulatorABI
import PeerSupport

extension Library {
    /// Moves a queue pair through INIT and RTR to RTS. The device executes no WQEs, so the peer need not exist.
    func connect(_ pair: Pair, _ type: ibv_qp_type) {
        var attributes = ibv_qp_attr()
        attributes.qp_state = IBV_QPS_INIT
        attributes.port_num = 1
        attributes.qkey = 0x1111_1111
        let last = type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS
        modify(pair, &attributes, [IBV_QP_STATE, IBV_QP_PKEY_INDEX, IBV_QP_PORT, last])
        attributes.qp_state = IBV_QPS_RTR
        attributes.path_mtu = IBV_MTU_1024
        attributes.dest_qp_num = 0x111
        attributes.max_dest_rd_atomic = 8
        attributes.max_rd_atomic = 8
        attributes.ah_attr.port_num = 1
        attributes.ah_attr.dlid = 1
        attributes.ah_attr.is_global = 1
        let path = [IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_DEST_QPN, IBV_QP_RQ_PSN]
        let incoming = [IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER]
        let isReliable = type == IBV_QPT_RC
        modify(
            pair, &attributes, [IBV_QP_STATE] + (type == IBV_QPT_UD ? [] : path) + (isReliable ? incoming : []))
        attributes.qp_state = IBV_QPS_RTS
        let outgoing = [IBV_QP_TIMEOUT, IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_MAX_QP_RD_ATOMIC]
        modify(pair, &attributes, [IBV_QP_STATE, IBV_QP_SQ_PSN] + (isReliable ? outgoing : []))
    }

    func modify(_ pair: Pair, _ attributes: inout ibv_qp_attr, _ mask: [ibv_qp_attr_mask]) {
        let result = modifyPair(pair, &attributes, Int32(mask.reduce(0) { $0 | $1.rawValue }))
        equal(result, 0, "modifying a queue pair")
    }
}

/// Memory that the device shares with the program (`uverbs_sim_memory`).
func sharedMemory(_ device: Int32, _ area: uverbs_sim_area, _ number: UInt32) -> UnsafeMutableRawBufferPointer {
    var start: UnsafeMutableRawPointer?
    let count = sim?.pointee.memory(device, Int32(area.rawValue), number, &start) ?? 0
    return UnsafeMutableRawBufferPointer(start: start, count: Int(count))
}
