import CSimulator

// Multicast groups: JOIN_IP_MCAST, JOIN_MCAST, LEAVE_MCAST (`rdma_join_multicast` of the kernel). There is no subnet
// administrator and no IGMP: every group exists.

extension ConnectionManager {
    /// Joins a group. The program attaches its queue pair by ATTACH_MCAST after the event.
    func join(_ identifier: Identifier, userID: UInt64, _ address: sim_cm_address) throws(Refusal) -> Membership {
        guard let device = identifier.device else { throw Refusal(EINVAL, "the identifier has no device") }
        try demand(
            identifier.state == .addressBound || identifier.state == .addressResolved, EINVAL,
            "the identifier is neither bound nor has it a resolved address")
        try demand(identifier.isDatagram, EINVAL, "only datagram identifiers have multicast groups")
        try demand(!device.isIWARP, ENOSYS, "iWARP has no multicast")
        try demand(!address.isAny, EINVAL, "the address of no group")
        if device.options.isRoCE {
            try demand(!identifier.source.isLoopback, ENODEV, "the identifier is bound to no interface")
            // The kernel's ENOTSUPP, which is not ENOTSUP.
            try demand(address.family != Family.ip6, 524, "RoCE v2 has IPv4 groups only")
        }
        let membership = add(identifier, userID: userID, address)
        if identifier.qkey == 0 && identifier.space != PortSpace.ipoib { identifier.qkey = Self.defaultQKey }
        var contents = EventContents()
        contents.datagram.ah_attr = group(address, device)
        contents.datagram.qp_num = 0xFF_FFFF
        contents.datagram.qkey = identifier.qkey
        raise(.multicastJoin, identifier, contents, membership: membership)
        return membership
    }

    /// The address of a group.
    private func group(_ address: sim_cm_address, _ device: Device) -> ib_uverbs_ah_attr {
        var attributes = ib_uverbs_ah_attr()
        attributes.is_global = 1
        attributes.port_num = 1
        if device.options.isRoCE {
            setGID(address.gid, &attributes.grh.dgid)
            attributes.grh.hop_limit = 64
            attributes.grh.sgid_index = device.gidIndex(of: device.addressGID)
            return attributes
        }
        // RFC 4391 with the signature of rdma_cm, link-local scope, the default partition.
        let low = UInt64(bigEndian: address.address.1)
        let signature: UInt64 = address.family == Family.ip6 ? 0xFF12_6001_FFFF_0000 : 0xFF12_4001_FFFF_0000
        let high = address.family == Family.ip6 ? UInt64(bigEndian: address.address.0) & 0xFFFF : 0
        let group = address.family == Family.ip6 ? low : low & 0x0FFF_FFFF
        setGID(((signature | high).bigEndian, group.bigEndian), &attributes.grh.dgid)
        attributes.dlid = 0xC000 | UInt16(truncatingIfNeeded: group & 0x3FFF)
        attributes.grh.hop_limit = 0
        return attributes
    }
}
