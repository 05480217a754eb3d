import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// An address handle (`ibv_ah`): a resolved path.
struct SoftAddressHandle {
    var base = ibv_ah()
    private let room = ObjectRoom()
    var path: Path

    /// The offset of the path, which is passed to the engine in place.
    static let pathOffset = MemoryLayout<ibv_ah>.stride + MemoryLayout<ObjectRoom>.size
}

extension UnsafeMutablePointer<ibv_ah> {
    @inline(__always)
    var soft: UnsafeMutablePointer<SoftAddressHandle> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: SoftAddressHandle.self)
    }
}

func createAddressHandle(
    pd: UnsafeMutablePointer<ibv_pd>?, attr: UnsafeMutablePointer<ibv_ah_attr>?
) -> UnsafeMutablePointer<ibv_ah>? {
    guard let pd, let attr else { return failure(EINVAL) }
    let context = pd.pointee.context!.soft
    context.lockForControl()
    let path = context.resolve(attr.pointee)
    context.unlock()
    guard let path else { return failure(EINVAL) }
    let handle = UnsafeMutablePointer<SoftAddressHandle>.allocate(capacity: 1)
    handle.initialize(to: SoftAddressHandle(path: path))
    rdma_init_ah(&handle.pointee.base, pd, 0)
    pd.domain.retain()
    return UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
}

func destroyAddressHandle(ah: UnsafeMutablePointer<ibv_ah>?) -> Int32 {
    guard let ah else { return EINVAL }
    ah.pointee.pd.domain.release()
    ah.soft.deallocate()
    return 0
}

extension ContextPointer {
    /// Resolves the attributes of an address handle or queue pair to a path. Returns nil, with EINVAL explained,
    /// without a global route (which RoCE requires), for another port, for an empty entry of the GID table, or for a
    /// destination of the other IP version. Under the lock.
    func resolve(_ attr: ibv_ah_attr) -> Path? {
        guard attr.is_global != 0 else { return noPath("RoCE needs a global route: set is_global and grh") }
        guard attr.port_num == 1 else { return noPath("the device has one port: port_num must be 1") }
        let index = Int(attr.grh.sgid_index)
        followInterface()
        guard let source = guarded.pointee.gids.gid(at: index) else {
            _ = noGID(index)
            return nil
        }
        let destination = GID(attr.grh.dgid).withMappedGroup
        guard destination != GID() else { return noPath("the destination GID (grh.dgid) is zero") }
        guard destination.isIPv4 == source.isIPv4 else {
            return noPath("one of the GIDs is an IPv4 address, the other an IPv6 address: take another GID index")
        }
        guard attr.sl < 16 else { return noPath("the service level (sl) must be 0 to 15") }
        let isShared = guarded.pointee.link.usesSharedMemory && guarded.pointee.gids.isLocal(destination)
        return Path(
            source: source, destination: destination, tag: isShared ? Route.sharedMemory : Route.datagrams,
            flowLabel: attr.grh.flow_label & 0xF_FFFF, trafficClass: attr.grh.traffic_class,
            // 0 is the default of the system, as in the Linux kernel.
            hopLimit: attr.grh.hop_limit == 0 ? 64 : attr.grh.hop_limit, serviceLevel: attr.sl,
            sourceIndex: attr.grh.sgid_index)
    }
}

extension Path {
    /// The path as an `ibv_ah_attr`.
    var verbs: ibv_ah_attr {
        var attr = ibv_ah_attr()
        attr.grh.dgid = destination.verbs
        attr.grh.flow_label = flowLabel
        attr.grh.sgid_index = sourceIndex
        attr.grh.hop_limit = hopLimit
        attr.grh.traffic_class = trafficClass
        attr.sl = serviceLevel
        attr.is_global = 1
        attr.port_num = 1
        return attr
    }
}
