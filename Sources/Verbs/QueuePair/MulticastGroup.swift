import CIBVerbs
import CProviderABI
import SystemPackage

/// A multicast group of datagrams: its GID, and on InfiniBand its LID.
public struct MulticastGroup: Hashable, Sendable {
    /// GID of the group.
    public let gid: GID
    /// LID of the group; 0 on Ethernet.
    public let lid: UInt16

    /// The group of that GID.
    public init(gid: GID, lid: UInt16 = 0) {
        self.gid = gid
        self.lid = lid
    }
}

extension QueuePair {
    /// Receives the datagrams of a group: ibv_attach_mcast(3). The subnet must know that the port is a member.
    ///
    /// It is detached by `detach`, or before the queue pair is destroyed.
    ///
    /// - Throws: `EINVAL` for a GID that is no multicast GID, or a queue pair that is not UD.
    public func attach(to group: MulticastGroup) throws(VerbsError) {
        try owner.attach(to: group)
    }

    /// Receives the datagrams of a group no more: ibv_detach_mcast(3).
    ///
    /// - Throws: `EINVAL` when it is not in the group.
    public func detach(from group: MulticastGroup) throws(VerbsError) {
        try owner.detach(from: group)
    }
}

extension QueuePair.Owner {
    func attach(to group: MulticastGroup) throws(VerbsError) {
        let attach = try context.entry(
            context.table.attach_mcast, destroyedBy: context.table.detach_mcast, .attachMulticast, object)
        var gid = group.gid.raw
        let code = attach(raw, &gid, group.lid)
        let kind = QueuePair.Kind(rawValue: raw.pointee.qp_type.rawValue)
        try context.check(.attachMulticast, object, code) { errno in
            guard errno == .invalidArgument else { return .general(errno) }
            return group.gid.isMulticast
                ? .text("only UD queue pairs receive multicasts, this one is \(kind)")
                : .text("\(group.gid) is no multicast GID")
        }
        state.withLock { $0.groups.append(group) }
    }

    func detach(from group: MulticastGroup) throws(VerbsError) {
        let detach = try context.entry(context.table.detach_mcast, .detachMulticast, object)
        var gid = group.gid.raw
        try context.check(.detachMulticast, object, detach(raw, &gid, group.lid))
        state.withLock { state in
            if let index = state.groups.firstIndex(of: group) { state.groups.remove(at: index) }
        }
    }
}
