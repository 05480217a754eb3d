import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// An address handle: a resolved path.
struct SoftAddressHandle {
    var base = ibv_ah()
    var path: Path

    /// Where the path lies: it is handed to the engine in place.
    static let pathOffset = MemoryLayout<ibv_ah>.stride
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
    handle.pointee.base = ibv_ah(context: pd.pointee.context, pd: pd, handle: 0)
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
    /// The path that the attributes describe, or nil when they do not describe one: no global route (RoCE has no
    /// other), another port, an empty entry of the GID table, a destination of the other IP version. Under the lock.
    func resolve(_ attr: ibv_ah_attr) -> Path? {
        guard attr.is_global != 0, attr.port_num == 1 else { return nil }
        let index = Int(attr.grh.sgid_index)
        if guarded.pointee.gids.gid(at: index) == nil { refreshAddresses() }
        guard let source = guarded.pointee.gids.gid(at: index) else { return nil }
        let destination = GID(attr.grh.dgid)
        guard destination != GID(), destination.isIPv4 == source.isIPv4, attr.sl < 8 else { return nil }
        if guarded.pointee.link.usesSharedMemory && !guarded.pointee.gids.isLocal(destination) { refreshAddresses() }
        let isShared = guarded.pointee.link.usesSharedMemory && guarded.pointee.gids.isLocal(destination)
        return Path(
            source: source, destination: destination, tag: isShared ? Route.sharedMemory : Route.datagrams,
            flowLabel: attr.grh.flow_label & 0xF_FFFF, trafficClass: attr.grh.traffic_class,
            // 0 leaves it to the system (as the Linux kernel does).
            hopLimit: attr.grh.hop_limit == 0 ? 64 : attr.grh.hop_limit, serviceLevel: attr.sl,
            sourceIndex: attr.grh.sgid_index)
    }
}

extension Path {
    /// As verbs.h has it.
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
