import CIBVerbs
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

// Protection domains, memory regions and windows. Each object is the provider's zeroed memory, which begins with the
// public struct.

/// `alloc_pd`.
func allocateDomain(
    kernel: OpaquePointer?, pd: UnsafeMutablePointer<ibv_pd>?, context: UnsafeMutablePointer<ibv_context>?,
    udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let pd, let context else { return EINVAL }
    return errno { () throws(KernelError) in
        rdma_init_pd(pd, context, try node.pointee.kernel.allocateDomain(driver: try driverData(udata)))
    }
}

/// `dealloc_pd`.
func deallocateDomain(kernel: OpaquePointer?, pd: UnsafeMutablePointer<ibv_pd>?) -> Int32 {
    guard let node = node(kernel), let pd else { return EINVAL }
    return errno { () throws(KernelError) in try node.pointee.kernel.deallocateDomain(pd.pointee.handle) }
}

// MARK: - Memory regions

/// `reg_mr`.
func registerMemory(
    kernel: OpaquePointer?, mr: UnsafeMutablePointer<ibv_mr>?, pd: UnsafeMutablePointer<ibv_pd>?,
    address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64, access: UInt32,
    udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let mr, let pd, length >= 0 else { return EINVAL }
    return errno { () throws(KernelError) in
        let made = try node.pointee.kernel.registerMemory(
            domain: pd.pointee.handle, address: address, length: length, virtualAddress: virtualAddress,
            access: node.access(access), driver: try driverData(udata))
        rdma_init_mr(mr, pd, address, length, made.handle, made.lkey, made.rkey)
    }
}

/// `reg_dmabuf_mr`.
func registerDMABuffer(
    kernel: OpaquePointer?, mr: UnsafeMutablePointer<ibv_mr>?, pd: UnsafeMutablePointer<ibv_pd>?, offset: UInt64,
    length: Int, virtualAddress: UInt64, descriptor: Int32, access: Int32, udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let mr, let pd, length >= 0 else { return EINVAL }
    return errno { () throws(KernelError) in
        let made = try node.pointee.kernel.registerDMABuffer(
            domain: pd.pointee.handle, descriptor: descriptor, offset: offset, length: length,
            virtualAddress: virtualAddress, access: node.access(UInt32(bitPattern: access)),
            driver: try driverData(udata))
        let address = UnsafeMutableRawPointer(bitPattern: UInt(offset))
        rdma_init_mr(mr, pd, address, length, made.handle, made.lkey, made.rkey)
    }
}

/// `rereg_mr`.
func reregisterMemory(
    kernel: OpaquePointer?, mr: UnsafeMutablePointer<ibv_mr>?, flags: Int32, pd: UnsafeMutablePointer<ibv_pd>?,
    address: UnsafeMutableRawPointer?, length: Int, virtualAddress: UInt64, access: Int32,
    udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    let flags = UInt32(bitPattern: flags)
    let (changesDomain, changesPlace) = (
        flags & IBV_REREG_MR_CHANGE_PD.rawValue != 0, flags & IBV_REREG_MR_CHANGE_TRANSLATION.rawValue != 0
    )
    guard let node = node(kernel), let mr, length >= 0, pd != nil || !changesDomain else { return EINVAL }
    return errno { () throws(KernelError) in
        var region = KernelMemoryRegion(handle: mr.pointee.handle, lkey: mr.pointee.lkey, rkey: mr.pointee.rkey)
        try node.pointee.kernel.reregisterMemory(
            &region, flags: flags, domain: pd?.pointee.handle ?? 0, address: address, length: length,
            virtualAddress: virtualAddress, access: node.access(UInt32(bitPattern: access)),
            driver: try driverData(udata))
        let (oldAddress, oldLength) = (mr.pointee.addr, mr.pointee.length)
        rdma_init_mr(
            mr, changesDomain ? pd : mr.pointee.pd, changesPlace ? address : oldAddress,
            changesPlace ? length : oldLength, region.handle, region.lkey, region.rkey)
    }
}

/// `dereg_mr`.
func deregisterMemory(kernel: OpaquePointer?, mr: UnsafeMutablePointer<ibv_mr>?) -> Int32 {
    guard let node = node(kernel), let mr else { return EINVAL }
    return errno { () throws(KernelError) in try node.pointee.kernel.deregisterMemory(mr.pointee.handle) }
}

/// `advise_mr`.
func adviseMemory(
    kernel: OpaquePointer?, pd: UnsafeMutablePointer<ibv_pd>?, advice: ib_uverbs_advise_mr_advice, flags: UInt32,
    list: UnsafePointer<ibv_sge>?, count: UInt32
) -> Int32 {
    guard let node = node(kernel), let pd, count == 0 || list != nil else { return EINVAL }
    return errno { () throws(KernelError) in
        try node.pointee.kernel.adviseMemory(
            domain: pd.pointee.handle, advice: advice.rawValue, flags: flags,
            list: UnsafeBufferPointer(start: list, count: Int(count)))
    }
}

// MARK: - Memory windows

/// `alloc_mw`.
func allocateWindow(
    kernel: OpaquePointer?, mw: UnsafeMutablePointer<ibv_mw>?, pd: UnsafeMutablePointer<ibv_pd>?, type: ibv_mw_type,
    udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let mw, let pd else { return EINVAL }
    return errno { () throws(KernelError) in
        let made = try node.pointee.kernel.allocateWindow(
            domain: pd.pointee.handle, type: type, driver: try driverData(udata))
        rdma_init_mw(mw, pd, type, made.handle, made.rkey)
    }
}

/// `dealloc_mw`.
func deallocateWindow(kernel: OpaquePointer?, mw: UnsafeMutablePointer<ibv_mw>?) -> Int32 {
    guard let node = node(kernel), let mw else { return EINVAL }
    return errno { () throws(KernelError) in try node.pointee.kernel.deallocateWindow(mw.pointee.handle) }
}

// MARK: - Address handles and multicast

/// `create_ah`.
func createAddressHandle(
    kernel: OpaquePointer?, ah: UnsafeMutablePointer<ibv_ah>?, pd: UnsafeMutablePointer<ibv_pd>?,
    attr: UnsafePointer<ibv_ah_attr>?, udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let ah, let pd, let attr else { return EINVAL }
    return errno { () throws(KernelError) in
        let handle = try node.pointee.kernel.createAddressHandle(
            domain: pd.pointee.handle, attr.pointee, driver: try driverData(udata))
        rdma_init_ah(ah, pd, handle)
    }
}

/// `destroy_ah`.
func destroyAddressHandle(kernel: OpaquePointer?, ah: UnsafeMutablePointer<ibv_ah>?) -> Int32 {
    guard let node = node(kernel), let ah else { return EINVAL }
    return errno { () throws(KernelError) in try node.pointee.kernel.destroyAddressHandle(ah.pointee.handle) }
}

/// `attach_mcast`.
func attachMulticast(
    kernel: OpaquePointer?, qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16
) -> Int32 {
    guard let node = node(kernel), let qp, let gid else { return EINVAL }
    return errno { () throws(KernelError) in
        try node.pointee.kernel.attachMulticast(queuePair: qp.pointee.handle, gid: gid.pointee, lid: lid)
    }
}

/// `detach_mcast`.
func detachMulticast(
    kernel: OpaquePointer?, qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16
) -> Int32 {
    guard let node = node(kernel), let qp, let gid else { return EINVAL }
    return errno { () throws(KernelError) in
        try node.pointee.kernel.detachMulticast(queuePair: qp.pointee.handle, gid: gid.pointee, lid: lid)
    }
}
