import CIBVerbs
import CKernelABI

extension KernelDevice {
    /// Creates an address handle (IB_USER_VERBS_CMD_CREATE_AH, `struct ib_uverbs_create_ah`).
    /// - Parameters:
    ///   - domain: The handle of the protection domain (`pd_handle`).
    ///   - attributes: The path.
    ///   - driver: The driver's request and response.
    /// - Returns: The kernel's handle (`ah_handle`).
    public func createAddressHandle(
        domain: UInt32, _ attributes: ibv_ah_attr, driver: DriverData = .none
    ) throws(KernelError) -> UInt32 {
        var request = ib_uverbs_create_ah()
        request.pd_handle = domain
        request.attr = ib_uverbs_ah_attr(attributes)
        var response = ib_uverbs_create_ah_resp()
        try call(.createAddressHandle, request, &response, driver: driver)
        return response.ah_handle
    }

    /// Destroys an address handle (UVERBS_METHOD_AH_DESTROY, or `struct ib_uverbs_destroy_ah`).
    public func destroyAddressHandle(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_AH, UVERBS_METHOD_AH_DESTROY, UVERBS_ATTR_DESTROY_AH_HANDLE,
            orElse: .destroyAddressHandle)
    }

    /// Attaches a queue pair to a multicast group (`ibv_attach_mcast`, `struct ib_uverbs_attach_mcast`).
    public func attachMulticast(queuePair: UInt32, gid: ibv_gid, lid: UInt16) throws(KernelError) {
        var request = ib_uverbs_attach_mcast()
        request.gid = gid.raw
        request.qp_handle = queuePair
        request.mlid = lid
        try call(.attachMulticast, request)
    }

    /// Detaches a queue pair from a multicast group (`ibv_detach_mcast`, `struct ib_uverbs_detach_mcast`). A removed
    /// device (EIO) is no error.
    public func detachMulticast(queuePair: UInt32, gid: ibv_gid, lid: UInt16) throws(KernelError) {
        var request = ib_uverbs_detach_mcast()
        request.gid = gid.raw
        request.qp_handle = queuePair
        request.mlid = lid
        do {
            try call(.detachMulticast, request)
        } catch {
            if error != .deviceGone { throw error }
        }
    }
}

extension ib_uverbs_ah_attr {
    /// Converts an `ibv_ah_attr`.
    init(_ attributes: ibv_ah_attr) {
        self.init()
        grh.dgid = attributes.grh.dgid.raw
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

extension ib_uverbs_qp_dest {
    /// Converts an `ibv_ah_attr` for `struct ib_uverbs_modify_qp`.
    init(_ attributes: ibv_ah_attr) {
        self.init()
        dgid = attributes.grh.dgid.raw
        flow_label = attributes.grh.flow_label
        sgid_index = attributes.grh.sgid_index
        hop_limit = attributes.grh.hop_limit
        traffic_class = attributes.grh.traffic_class
        dlid = attributes.dlid
        sl = attributes.sl
        src_path_bits = attributes.src_path_bits
        static_rate = attributes.static_rate
        is_global = attributes.is_global
        port_num = attributes.port_num
    }

    /// The path as an `ibv_ah_attr`.
    var verbs: ibv_ah_attr {
        var attributes = ibv_ah_attr()
        attributes.grh.dgid.raw = dgid
        attributes.grh.flow_label = flow_label
        attributes.grh.sgid_index = sgid_index
        attributes.grh.hop_limit = hop_limit
        attributes.grh.traffic_class = traffic_class
        attributes.dlid = dlid
        attributes.sl = sl
        attributes.src_path_bits = src_path_bits
        attributes.static_rate = static_rate
        attributes.is_global = is_global
        attributes.port_num = port_num
        return attributes
    }
}
