import CIBVerbs
import CProviderABI
import SystemPackage

/// A multicast group of UD queue pairs: its GID, and on InfiniBand its LID.
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
    /// Attaches the queue pair to a multicast group, whose datagrams it then receives: ibv_attach_mcast(3). On
    /// InfiniBand the port must have joined the group at the subnet manager.
    ///
    /// `detach` or the destruction of the queue pair detaches it.
    ///
    /// - Throws: `EINVAL` for a GID that is not a multicast GID, or a queue pair that is not UD.
    public func attach(to group: MulticastGroup) throws(VerbsError) {
        try owner.attach(to: group)
    }

    /// Detaches the queue pair from a multicast group: ibv_detach_mcast(3).
    ///
    /// - Throws: `EINVAL` when it is not attached to the group.
    public func detach(from group: MulticastGroup) throws(VerbsError) {
        try owner.detach(from: group)
    }
}

extension QueuePair.Owner {
    func attach(to group: MulticastGroup) throws(VerbsError) {
        let attach = try context.entry(
            context.table.attach_mcast, destroyedBy: context.table.detach_mcast, .attachMulticast, object)
        var gid = group.gid.raw
        let type = QueuePairType(rawValue: raw.pointee.qp_type.rawValue)
        try context.check(.attachMulticast, object, attach(raw, &gid, group.lid)) { errno in
            if let advice = context.connectionsOnly { return advice }
            guard errno == .invalidArgument else { return .general(errno) }
            return group.gid.isMulticast
                ? .text("only UD queue pairs receive multicasts, this one is \(type)")
                : .text("\(group.gid) is not a multicast GID")
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
