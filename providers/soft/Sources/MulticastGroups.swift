import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

/// The sockets of the multicast groups to which queue pairs of a device are attached: one for each group, bound to the
/// group's address and port 4791, and a member of the group on the device's interface. The kernel delivers each datagram
/// to the sockets of all processes, so nothing is forwarded between processes.
struct GroupSockets: ~Copyable {
    private struct Entry {
        var group = GID()
        var descriptor: Int32 = -1
        /// The number of queue pairs that are attached.
        var users = 0
    }

    private let entries: UnsafeMutablePointer<Entry>
    private(set) var count = 0
    /// A ready list with the sockets; negative before the first group.
    private(set) var readyList: Int32 = -1

    init() {
        entries = .allocate(capacity: DeviceLimits.multicastGroups)
        entries.initialize(repeating: Entry(), count: DeviceLimits.multicastGroups)
    }

    deinit {
        for index in 0..<count where entries[index].descriptor >= 0 { linux_close(entries[index].descriptor) }
        if readyList >= 0 { linux_close(readyList) }
        entries.deallocate()
    }

    /// Leaves all groups.
    mutating func close() {
        for index in 0..<count { close(index) }
        count = 0
    }

    /// Closes the socket of a group. A child of fork(2) may keep it open, so it is removed from the ready list first.
    private mutating func close(_ index: Int) {
        guard entries[index].descriptor >= 0 else { return }
        linux_ready_remove(readyList, entries[index].descriptor)
        linux_close(entries[index].descriptor)
        entries[index].descriptor = -1
    }

    private func index(of group: GID) -> Int? {
        for index in 0..<count where entries[index].group == group { return index }
        return nil
    }

    /// Joins a group for one more queue pair. Returns 0, or a positive errno value: ENOMEM for too many groups, or that
    /// of socket(2), bind(2) or setsockopt(2).
    mutating func join(_ group: GID, port: UInt16, ifindex: UInt32) -> Int32 {
        if let index = index(of: group) {
            let error = entries[index].descriptor >= 0 ? 0 : open(index, port: port, ifindex: ifindex)
            if error == 0 { entries[index].users += 1 }
            return error
        }
        guard count < DeviceLimits.multicastGroups else { return ENOMEM }
        if readyList < 0 {
            let list = linux_ready_list()
            guard list >= 0 else { return -list }
            readyList = list
        }
        entries[count] = Entry(group: group, descriptor: -1, users: 1)
        let error = open(count, port: port, ifindex: ifindex)
        if error == 0 { count += 1 }
        return error
    }

    /// Leaves a group for one queue pair; the last one ends the membership.
    mutating func leave(_ group: GID) {
        guard let index = index(of: group) else { return }
        entries[index].users -= 1
        guard entries[index].users == 0 else { return }
        close(index)
        count -= 1
        // The last entry moves to the free place, and its tag is its index.
        guard index != count else { return }
        entries[index] = entries[count]
        entries[count] = Entry()
        guard entries[index].descriptor >= 0 else { return }
        linux_ready_remove(readyList, entries[index].descriptor)
        _ = linux_ready_add(readyList, entries[index].descriptor, UInt64(index))
    }

    /// Joins the groups that have no socket, and after `isOther` all of them: another interface has replaced the old one.
    mutating func follow(port: UInt16, ifindex: UInt32, isOther: Bool) {
        for index in 0..<count {
            if isOther { close(index) }
            if entries[index].descriptor < 0 { _ = open(index, port: port, ifindex: ifindex) }
        }
    }

    /// Whether a group has no socket.
    var lacksSocket: Bool {
        for index in 0..<count where entries[index].descriptor < 0 { return true }
        return false
    }

    private func open(_ index: Int, port: UInt16, ifindex: UInt32) -> Int32 {
        // With index 0, the kernel would choose an interface.
        guard ifindex != 0 else { return ENODEV }
        let descriptor = entries[index].group.withNetworkBytes { linux_roce_group_socket($0, port, ifindex) }
        guard descriptor >= 0 else { return -descriptor }
        let error = linux_ready_add(readyList, descriptor, UInt64(index))
        guard error == 0 else {
            linux_close(descriptor)
            return error
        }
        entries[index].descriptor = descriptor
        return 0
    }

    /// Calls `body` with the descriptor and the group of each socket that has datagrams.
    func forEachReady(_ body: (Int32, GID) -> Void) {
        guard count > 0 else { return }
        var tags = InlineArray<16, UInt64>(repeating: 0)
        let list = readyList
        let ready = withUnsafeMutableBytes(of: &tags) { tags in
            Int(linux_ready(list, tags.baseAddress!.assumingMemoryBound(to: UInt64.self), 16))
        }
        for place in 0..<ready where tags[place] < UInt64(count) {
            let entry = entries[Int(tags[place])]
            if entry.descriptor >= 0 { body(entry.descriptor, entry.group) }
        }
    }
}

extension GID {
    /// Whether it is a multicast address: ::ffff:224.0.0.0/100, or ff00::/8.
    var isMulticast: Bool { isIPv4 ? ipv4 >> 28 == 0xE : high >> 56 == 0xFF }

    /// The GID of an IPv4 group in the form of RoCEv2, ::ffff:a.b.c.d, for its form in RoCEv1, ff0e::ffff:a.b.c.d; every
    /// other GID unchanged (`cma_iboe_set_mgid` of the kernel).
    var withMappedGroup: GID {
        let mapped = GID(low: low)
        return high == 0xFF0E_0000_0000_0000 && mapped.isIPv4 && mapped.isMulticast ? mapped : self
    }
}

/// The group of an `ibv_attach_mcast` or `ibv_detach_mcast`; nil, with EINVAL explained, when it cannot be one.
private func group(_ gid: UnsafePointer<ibv_gid>, _ pair: QueuePairPointer) -> GID? {
    let group = GID(gid.pointee).withMappedGroup
    guard pair.pointee.pair.type == .ud else {
        _ = refusal(EINVAL, "only UD queue pairs receive from multicast groups")
        return nil
    }
    guard group.isMulticast else {
        _ = refusal(EINVAL, "the GID is not a multicast GID: ::ffff:224.0.0.0 to ::ffff:239.255.255.255, or ff00::/8")
        return nil
    }
    return group
}

func attachMulticast(qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16) -> Int32 {
    guard let pair = qp?.soft, let gid else { return EINVAL }
    guard let group = group(gid, pair) else { return EINVAL }
    let context = pair.context
    context.lockForControl()
    defer { context.unlock() }
    do throws(RoCETransport.Errno) {
        guard try context.pointee.engine.attach(pair.pointee.pair, to: group) else { return 0 }
    } catch {
        return tooMany("attachments", Int(Limits.maxMulticastAttachments), "max_total_mcast_qp_attach")
    }
    context.followInterface()
    let error = context.guarded.pointee.sockets.join(group)
    guard error != 0 else {
        // The thread is to wait for the socket too.
        context.pointee.progressThread.wake()
        return 0
    }
    try? context.pointee.engine.detach(pair.pointee.pair, from: group)
    if error == ENOMEM { return tooMany("multicast groups", DeviceLimits.multicastGroups, "max_mcast_grp") }
    var text = MessageText("the group cannot be joined on the interface: ")
    text.append(error: error)
    if error == EADDRINUSE { text.append("; is the kernel's rdma_rxe loaded, or does another user run soft?") }
    return text.refusal(error)
}

func detachMulticast(qp: UnsafeMutablePointer<ibv_qp>?, gid: UnsafePointer<ibv_gid>?, lid: UInt16) -> Int32 {
    guard let pair = qp?.soft, let gid else { return EINVAL }
    guard let group = group(gid, pair) else { return EINVAL }
    let context = pair.context
    context.lockForControl()
    defer { context.unlock() }
    do throws(RoCETransport.Errno) {
        try context.pointee.engine.detach(pair.pointee.pair, from: group)
    } catch {
        return refusal(error.rawValue, "the queue pair is not attached to this group")
    }
    context.guarded.pointee.sockets.leave(group)
    return 0
}
