import CIBVerbs
import CKernelABI

extension KernelDevice {
    /// Makes an address handle: the kernel's handle of it.
    /// - Parameters:
    ///   - domain: handle of the protection domain.
    ///   - attributes: the path.
    ///   - driver: what the driver answers beyond that.
    public func createAddressHandle(
        domain: UInt32, _ attributes: ibv_ah_attr, driver: DriverData = .none
    ) throws(KernelError) -> UInt32 {
        var request = ib_uverbs_create_ah()
        request.pd_handle = domain
        request.attr = ib_uverbs_ah_attr(attributes)
        var answer = ib_uverbs_create_ah_resp()
        try call(.createAddressHandle, request, &answer, driver: driver)
        return answer.ah_handle
    }

    /// Destroys an address handle.
    public func destroyAddressHandle(_ handle: UInt32) throws(KernelError) {
        try destroy(
            handle, UVERBS_OBJECT_AH, UVERBS_METHOD_AH_DESTROY, UVERBS_ATTR_DESTROY_AH_HANDLE,
            orElse: .destroyAddressHandle)
    }

    /// Lets a queue pair receive what is sent to a multicast group.
    public func attachMulticast(queuePair: UInt32, gid: ibv_gid, lid: UInt16) throws(KernelError) {
        var request = ib_uverbs_attach_mcast()
        request.gid = gid.raw
        request.qp_handle = queuePair
        request.mlid = lid
        try call(.attachMulticast, request)
    }

    /// Ends that.
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
    /// The path in the kernel's layout.
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
    /// The path in the layout that commands of queue pairs have.
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

    /// The path as verbs.h has it.
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
