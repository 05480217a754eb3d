import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

/// `create_ah`. On InfiniBand the provider builds the address vector alone; on RoCE the kernel resolves the MAC
/// address. EOPNOTSUPP if the kernel does not support that (MLX5_USER_CMDS_SUPP_UHW_CREATE_AH).
func createAddressHandle(
    pd: UnsafeMutablePointer<ibv_pd>?, attr: UnsafeMutablePointer<ibv_ah_attr>?
) -> UnsafeMutablePointer<ibv_ah>? {
    guard let pd, let attr else { return failure(EINVAL) }
    let context = pd.pointee.context.mlx5
    do throws(KernelError) {
        let port = try context.pointee.native.kernel.queryPort(attr.pointee.port_num)
        let isEthernet = port.link_layer == UInt8(IBV_LINK_LAYER_ETHERNET)
        let needsGlobal = isEthernet || UInt32(port.flags) & IB_UVERBS_QPF_GRH_REQUIRED.rawValue != 0
        guard attr.pointee.is_global != 0 || !needsGlobal else { throw .invalidArgument }
        guard isEthernet else {
            let handle = AddressHandlePointer.allocate()
            rdma_init_ah(&handle.pointee.base, pd, 0)
            handle.vector.putAddressVector(attr.pointee, .infiniband)
            pd.domain.retain()
            return UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
        }
        return try createEthernetHandle(pd, attr.pointee, context)
    } catch {
        return failure(error.rawValue)
    }
}

private func createEthernetHandle(
    _ pd: UnsafeMutablePointer<ibv_pd>, _ attributes: ibv_ah_attr, _ context: Mlx5ContextPointer
) throws(KernelError) -> UnsafeMutablePointer<ibv_ah> {
    guard context.pointee.resolvesMACAddresses else { throw .notSupported }
    let gid = try pd.pointee.context.queryGID(
        port: UInt32(attributes.port_num), index: UInt32(attributes.grh.sgid_index))
    var response = mlx5_ib_create_ah_resp()
    let made = try DriverData.response(&response) { driver throws(KernelError) in
        try context.pointee.native.kernel.createAddressHandle(
            domain: pd.pointee.handle, attributes, driver: driver)
    }
    let (a, b, c, d, e, f) = response.dmac
    // RoCEv1 has no UDP header.
    let port = gid.gid_type == IBV_GID_TYPE_ROCE_V2.rawValue ? sourcePort(attributes.grh.flow_label) : 0
    let handle = AddressHandlePointer.allocate()
    rdma_init_ah(&handle.pointee.base, pd, made)
    handle.pointee.hasKernelObject = true
    handle.vector.putAddressVector(attributes, .ethernet(mac: [a, b, c, d, e, f], udpPort: port))
    pd.domain.retain()
    return UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
}

/// The UDP source port; a random one without a flow label.
private func sourcePort(_ flowLabel: UInt32) -> UInt16 {
    let label = flowLabel & 0xFFFFF
    return label != 0
        ? udpPort(flowLabel: label) : UInt16(truncatingIfNeeded: linux_random64() & 0x3FFF | 0xC000)
}

func destroyAddressHandle(ah: UnsafeMutablePointer<ibv_ah>?) -> Int32 {
    guard let ah else { return EINVAL }
    if ah.mlx5.pointee.hasKernelObject { return destroyNativeAddressHandle(ah: ah) }
    ah.pointee.pd.domain.release()
    UnsafeMutableRawPointer(ah).deallocate()
    return 0
}
