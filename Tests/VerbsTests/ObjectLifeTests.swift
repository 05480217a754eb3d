import CIBVerbs
import CProviderABI
import SystemPackage
import Testing
import Verbs

/// The calls between the opening and the closing of the device.
private func calls(_ body: (Context) throws -> Void) throws -> [String] {
    Fake.reset()
    do {
        let context = try Fake.open()
        try body(context)
    }
    let calls = Fake.calls.filter { !$0.hasPrefix("query_") }
    #expect(calls.first == "open_device" && calls.last == "close_context")
    return Array(calls.dropFirst().dropLast())
}

extension FakeTests {
    @Suite("every object is created by its verb and destroyed with its last reference, children before parents")
    struct ObjectLife {
        @Test("protection, parent and thread domains are destroyed after the objects that use them")
        func domains() throws {
            let calls = try calls { context in
                var parent: ProtectionDomain?
                do {
                    let domain = try context.makeProtectionDomain()
                    let thread = try context.makeThreadDomain()
                    parent = try domain.makeParentDomain(threadDomain: thread)
                }
                #expect(parent?.base != nil && parent?.threadDomain != nil)
                parent = nil
            }
            #expect(calls.prefix(4) == ["alloc_pd", "alloc_td", "alloc_parent_domain td", "dealloc_pd"])
            #expect(Set(calls.suffix(2)) == ["dealloc_pd", "dealloc_td"] && calls.count == 6)
        }

        @Test("a region keeps its protection domain, and its bytes until it is deregistered")
        func region() throws {
            let calls = try calls { context in
                var region: MemoryRegion? = try context.makeProtectionDomain().makeMemoryRegion(byteCount: 10)
                #expect(region?.byteCount == 10 && region?.unsafeBytes.count == 10)
                #expect(region?.address == UInt64(UInt(bitPattern: region?.unsafeBytes.baseAddress)))
                region = nil
            }
            #expect(calls == ["alloc_pd", "reg_mr", "dereg_mr", "dealloc_pd"])
        }

        @Test("regions of foreign memory, a dmabuf, device memory and the address space, and the null region")
        func specialRegions() throws {
            let calls = try calls { context in
                let domain = try context.makeProtectionDomain()
                final class Memory { let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 8) }
                let owner = Memory()
                defer { owner.bytes.deallocate() }
                let foreign = try domain.unsafeRegister(owner.bytes, access: .localWrite, iova: 0x1000, owner: owner)
                #expect(foreign.address == 0x1000 && foreign.remote.address == 0x1000)
                let dmabuf = try domain.makeMemoryRegion(
                    dmabuf: FileDescriptor(rawValue: 3), offset: 0, byteCount: 4096, iova: 0x2000, access: .localWrite)
                #expect(dmabuf.bytes.isEmpty && dmabuf.unsafeBytes.isEmpty)
                let null = try domain.makeNullMemoryRegion()
                #expect(try null.sge(0..<100).byteCount == 100)
                let memory = try context.makeDeviceMemory(byteCount: 256, alignment: 64)
                let device = try domain.makeMemoryRegion(memory, offset: 64, byteCount: 128, access: .localWrite)
                #expect(device.address == 0 && device.access == [.localWrite, .zeroBased])
                try memory.copyBytes(from: [1, 2, 3].span.bytes, at: 8)
                #expect(try memory.copyBytes(0..<2) == [7, 7])
                #expect(
                    failure { () throws(VerbsError) in _ = try memory.copyBytes(250..<257) }?.errno == .invalidArgument)
                let all = try domain.unsafeRegisterAddressSpace(access: .localWrite)
                #expect(all.access == [.localWrite, .onDemand])
                try domain.advise(.prefetchForWriting, [try foreign.sge(), try foreign.sge(0..<8)], flush: true)
            }
            let expected = [
                "reg_mr", "reg_dmabuf_mr 3", "alloc_null_mr", "alloc_dm 6", "reg_dm_mr 64 128 33", "memcpy_to_dm 8 24",
                "memcpy_from_dm 0 2", "advise_mr 1 1 2",
            ]
            for call in expected { #expect(calls.contains(call), "\(call) in \(calls)") }
            #expect(calls.filter { $0 == "dereg_mr" }.count == 5)
            #expect(calls.firstIndex(of: "free_dm")! > calls.firstIndex(of: "dereg_mr")!)
        }

        @Test("re-registration transfers the registration to the new region; it is destroyed once")
        func reregister() throws {
            let calls = try calls { context in
                let region = try context.makeProtectionDomain().makeMemoryRegion(byteCount: 100)
                let bytes = region.unsafeBytes.baseAddress
                let access = try region.reregister(access: [.localWrite, .remoteRead])
                #expect(access.lkey != region.lkey && access.unsafeBytes.baseAddress == bytes)
                let larger = try access.reregister(byteCount: 5000)
                #expect(larger.byteCount == 5000 && larger.access == [.localWrite, .remoteRead])
                #expect(larger.unsafeBytes.baseAddress != bytes && region.unsafeRaw == nil)
                let again = failure { () throws(VerbsError) in _ = try region.reregister(access: .localWrite) }
                #expect(again?.errno == .invalidArgument && again?.hint?.contains("re-registered before") == true)
            }
            #expect(calls == ["alloc_pd", "reg_mr", "rereg_mr 4", "rereg_mr 1", "dereg_mr", "dealloc_pd"])
        }

        @Test("completion queues: resize, moderation, extended queues and channels")
        func completionQueues() throws {
            let calls = try calls { context in
                var queue = try context.makeCompletionQueue(capacity: 16, channel: try context.makeCompletionChannel())
                try queue.resize(capacity: 64)
                #expect(queue.capacity == 64)
                try queue.moderate(count: 8, period: .microseconds(100))
                let extended = try context.makeCompletionQueue(
                    capacity: 16, fields: [.byteCount, .timestamp], flags: .singleThreaded,
                    parentDomain: try context.makeProtectionDomain())
                #expect(extended.id != queue.id)
            }
            #expect(calls.prefix(4) == ["create_comp_channel", "create_cq", "resize_cq 64", "modify_cq 8 100"])
            #expect(calls.contains("create_cq_ex 3"))
            #expect(calls.lastIndex(of: "destroy_comp_channel")! > calls.firstIndex(of: "destroy_cq")!)
        }

        @Test("a queue pair keeps its parents, which are destroyed after it")
        func queuePair() throws {
            let calls = try calls { context in
                var pair: QueuePair?
                do {
                    let domain = try context.makeProtectionDomain()
                    let send = try context.makeCompletionQueue(capacity: 1)
                    let receive = try context.makeCompletionQueue(capacity: 1)
                    let shared = try domain.makeSharedReceiveQueue()
                    #expect(shared.attributes.maxWR == 256)
                    pair = try domain.makeQueuePair(
                        .reliableConnection, sendCompletions: send, receiveCompletions: receive,
                        sharedReceiveQueue: shared)
                }
                #expect(Fake.calls.last == "create_qp_ex 2" && pair?.number == 0x11)
                pair = nil
            }
            let destroyed = calls.drop { !$0.hasPrefix("de") }
            #expect(destroyed.first == "destroy_qp")
            #expect(destroyed.filter { $0 == "destroy_cq" }.count == 2)
            #expect(destroyed.contains("destroy_srq") && destroyed.last == "dealloc_pd")
        }

        @Test("shared receive queues: limit, size, query, number")
        func sharedReceiveQueue() throws {
            let calls = try calls { context in
                var queue = try context.makeProtectionDomain().makeSharedReceiveQueue()
                try queue.setLimit(5)
                try queue.resize(maxWR: 9)
                #expect(try queue.query() == SharedReceiveQueue.Attributes(maxWR: 256, maxSGE: 2, limit: 3))
                #expect(try queue.number() == 77)
            }
            #expect(calls.contains("modify_srq 2 5") && calls.contains("modify_srq 1 0"))
        }

        @Test("XRC: domain, shared receive queue, send and receive queue pairs, one opened by its number")
        func xrc() throws {
            let calls = try calls { context in
                let xrc = try context.openXRCDomain()
                let domain = try context.makeProtectionDomain()
                let queue = try context.makeCompletionQueue(capacity: 1)
                let shared = try domain.makeSharedReceiveQueue(xrcDomain: xrc, completions: queue)
                let receiver = try xrc.makeReceiveQueuePair()
                let opened = try xrc.openReceiveQueuePair(number: receiver.number)
                let sender = try domain.makeQueuePair(.xrcSend, completions: queue)
                #expect(sender.type == .xrcSend && opened.capabilities.maxSendWR == 0)
                #expect(try shared.number() == 77)
            }
            for call in ["open_xrcd -1", "create_srq_ex xrc", "create_qp_ex 10", "open_qp 17", "create_qp_ex 9"] {
                #expect(calls.contains(call), "\(call) in \(calls)")
            }
            #expect(calls.filter { $0 == "destroy_qp" }.count == 3 && calls.filter { $0 == "close_xrcd" }.count == 1)
            #expect(calls.firstIndex(of: "close_xrcd")! > calls.lastIndex(of: "destroy_srq")!)
        }

        @Test("queue pairs: rate limit, data in order, ECE, query with an unknown state")
        func queuePairExtras() throws {
            let calls = try calls { context in
                let queue = try context.makeCompletionQueue(capacity: 1)
                let pair = try context.makeProtectionDomain().makeQueuePair(.reliableConnection, completions: queue)
                try pair.limitRate(1000, maxBurst: 10, typicalPacket: 64)
                #expect(pair.arrivesInOrder(.write) && !pair.arrivesInOrder(.send))
                #expect(try pair.enhancedConnection() == .init(vendorID: 0x15b3, options: 6))
                try pair.setEnhancedConnection(.init(vendorID: 0x15b3, options: 2))
                let attributes = try pair.query()
                #expect(attributes.state?.description == "unknown (42)" && attributes.retryCount == 5)
            }
            #expect(calls.contains("modify_qp_rate_limit 1000") && calls.contains("set_ece 2"))
        }

        @Test("a queue pair is detached from its multicast groups before it is destroyed")
        func multicast() throws {
            let calls = try calls { context in
                let queue = try context.makeCompletionQueue(capacity: 1)
                let pair = try context.makeProtectionDomain().makeQueuePair(.unreliableDatagram, completions: queue)
                try pair.attach(to: MulticastGroup(gid: GID("ff0e::1")!, lid: 1))
                try pair.attach(to: MulticastGroup(gid: GID("ff0e::2")!, lid: 2))
                try pair.detach(from: MulticastGroup(gid: GID("ff0e::1")!, lid: 1))
            }
            let tail = calls.drop { $0 != "attach_mcast 1" }
            #expect(
                tail.prefix(5) == [
                    "attach_mcast 1", "attach_mcast 2", "detach_mcast 1", "detach_mcast 2", "destroy_qp",
                ])
        }

        @Test("memory windows of both types are bound with a new rkey and keep their region")
        func memoryWindows() throws {
            let calls = try calls { context in
                let queue = try context.makeCompletionQueue(capacity: 1)
                let domain = try context.makeProtectionDomain()
                var pair = try domain.makeQueuePair(.reliableConnection, completions: queue)
                let (one, two) = (try domain.makeMemoryWindow(.one), try domain.makeMemoryWindow(.two))
                do {
                    let region = try domain.makeMemoryRegion(byteCount: 64, access: [.localWrite, .memoryWindowBind])
                    let first = try pair.bind(one, to: region, 0..<8, access: .remoteRead)
                    #expect(first.rkey == 0x5500 && one.rkey == 0x5500 && first.byteCount == 8)
                    let second = try pair.bind(two, to: region, 8..<16, access: .remoteWrite)
                    // Binding increments the low byte of the rkey modulo 256; the upper 24 bits are unchanged.
                    #expect(second.rkey == 0x100 && two.rkey == 0x100 && second.address == region.address + 8)
                    let outside = failure { () throws(VerbsError) in
                        _ = try pair.bind(two, to: region, 60..<70, access: .remoteWrite)
                    }
                    #expect(outside?.errno == .invalidArgument)
                }
                #expect(!Fake.calls.contains("dereg_mr"))
            }
            #expect(calls.contains("bind_mw") && calls.contains("post_send 8"))
            #expect(calls.firstIndex(of: "dereg_mr")! > calls.firstIndex(of: "dealloc_mw")!)
        }

        @Test("work queues in an indirection table under a queue pair")
        func workQueues() throws {
            let calls = try calls { context in
                let domain = try context.makeProtectionDomain()
                let queue = try context.makeCompletionQueue(capacity: 1)
                var work = try domain.makeWorkQueue(completions: queue)
                let other = try domain.makeWorkQueue(completions: queue, flags: .scatterFCS)
                try work.modify(to: .ready)
                #expect(work.lastKnownState == .ready && work.number == 9 && other.lastKnownState == .reset)
                let region = try domain.makeMemoryRegion(byteCount: 64)
                try work.postReceive(try region.sge(), id: 4)
                var places = IndirectionTable.Places()
                places.append(work)
                places.append(other)
                let table = try context.makeIndirectionTable(places)
                let hash = ReceiveHash(fields: [.sourceIPv4, .destinationIPv4], key: .init(repeating: 1, count: 40))
                let pair = try domain.makeQueuePair(table: table, hash: hash)
                #expect(pair.type == .rawPacket)
                places.append(other)
                let odd = failure { () throws(VerbsError) in _ = try context.makeIndirectionTable(places) }
                #expect(odd?.hint?.contains("not 3") == true)
            }
            for call in ["modify_wq 1", "post_wq_recv 4", "create_rwq_ind_table 1", "create_qp_ex 8"] {
                #expect(calls.contains(call), "\(call) in \(calls)")
            }
            #expect(calls.firstIndex(of: "destroy_rwq_ind_table")! > calls.firstIndex(of: "destroy_qp")!)
            #expect(calls.firstIndex(of: "destroy_wq")! > calls.firstIndex(of: "destroy_rwq_ind_table")!)
        }

        @Test("a flow keeps its queue pair and counters; its specs have the layout of verbs.h")
        func flows() throws {
            let calls = try calls { context in
                var flow: Flow?
                do {
                    let queue = try context.makeCompletionQueue(capacity: 1)
                    let pair = try context.makeProtectionDomain().makeQueuePair(.rawPacket, completions: queue)
                    let counters = try context.makeCounters()
                    try counters.attach(.bytes, at: 1)
                    #expect(try counters.read(count: 2, preferCached: true) == [10, 11])
                    flow = try pair.makeFlow(FlowLayout.everySpec(counters), port: 2, priority: 3, flags: .doNotTrap)
                }
                #expect(flow != nil && !Fake.calls.contains("destroy_qp"))
                FlowLayout.check(try #require(Fake.with { $0.flows.first }))
                flow = nil
            }
            #expect(calls.contains("attach_counters 1 1") && calls.contains("read_counters 1"))
            #expect(calls.firstIndex(of: "destroy_qp")! > calls.firstIndex(of: "destroy_flow")!)
            #expect(calls.firstIndex(of: "destroy_counters")! > calls.firstIndex(of: "destroy_flow")!)
        }

        @Test("close() destroys once and throws the provider's error; deinit tries again")
        func closing() throws {
            let calls = try calls { context in
                let domain = try context.makeProtectionDomain()
                let region = try domain.makeMemoryRegion(byteCount: 10)
                let queue = try context.makeCompletionQueue(capacity: 1)
                let pair = try domain.makeQueuePair(.reliableConnection, completions: queue)
                let other = try domain.makeQueuePair(.reliableConnection, completions: queue)
                let shared = try domain.makeSharedReceiveQueue()
                let work = try domain.makeWorkQueue(completions: queue)
                Fake.with { $0.failures = ["dereg_mr": EBUSY] }
                let busy = failure { () throws(VerbsError) in try region.close() }
                #expect(busy?.errno == .resourceBusy && busy?.hint?.contains("still use it") == true)
                Fake.with { $0.failures = [:] }
                #expect(region.unsafeRaw != nil)
                try region.close()
                try region.close()
                #expect(region.unsafeRaw == nil && region.unsafeBytes[0] == 0)
                try pair.close()
                try shared.close()
                try work.close()
                Fake.with { $0.failures = ["destroy_cq": EBUSY] }
                do throws(VerbsError) {
                    try queue.close()
                    Issue.record("a completion queue that is in use was destroyed")
                } catch {
                    #expect(error.errno == .resourceBusy && error.verb == .destroyCQ)
                }
                Fake.with { $0.failures = [:] }
                try context.makeCompletionQueue(capacity: 1).close()
                _ = other.number
            }
            #expect(
                calls.filter { $0.hasPrefix("de") } == [
                    "dereg_mr fails", "dereg_mr", "destroy_qp", "destroy_srq", "destroy_wq", "destroy_cq fails",
                    "destroy_cq", "destroy_qp", "destroy_cq", "dealloc_pd",
                ])
        }

        @Test("the connection manager does not modify a closed queue pair that a flow still references")
        func closedButReferenced() throws {
            let calls = try calls { context in
                let queue = try context.makeCompletionQueue(capacity: 1)
                let pair = try context.makeProtectionDomain().makeQueuePair(.rawPacket, completions: queue)
                let control = QueuePairControl(pair)
                let flow = try pair.makeFlow([.drop])
                #expect(control.exists)
                try pair.close()
                #expect(!control.exists)
                var attributes = QueuePair.Attributes()
                attributes.state = .error
                try control.modify(attributes)
                control.record(.readyToSend)
                withExtendedLifetime(flow) {}
            }
            #expect(calls.count { $0 == "destroy_qp" } == 1 && !calls.contains { $0.hasPrefix("modify_qp") })
        }

        @Test("an object that the provider refuses to destroy keeps its parents")
        func refusedDestruction() throws {
            Fake.reset()
            do {
                let context = try Fake.open()
                Fake.with { $0.failures = ["dereg_mr": 16] }
                let region = try context.makeProtectionDomain().makeMemoryRegion(byteCount: 10)
                region.unsafeBytes[0] = 1
            }
            #expect(Fake.calls.suffix(2) == ["reg_mr", "dereg_mr fails"])
        }
    }
}

/// A flow with every type of spec (`ibv_flow_spec_…`), and a check of their layout.
private enum FlowLayout {
    static func everySpec(_ counters: Counters) -> [FlowMatch] {
        var ethernet = FlowMatch.Ethernet()
        ethernet.destination = [1, 2, 3, 4, 5, 6]
        ethernet.etherType = 0x0800
        var ipv4 = FlowMatch.IPv4()
        ipv4.source = 0x0a00_0001
        ipv4.nextProtocol = 17
        var ipv6 = FlowMatch.IPv6()
        ipv6.destination = GID("2001:db8::1")!
        ipv6.hopLimit = 9
        var ports = FlowMatch.Ports()
        ports.destination = 4791
        return [
            .ethernet(ethernet, mask: ethernet), .ipv4(ipv4, mask: ipv4, inner: true), .ipv6(ipv6, mask: ipv6),
            .udp(ports, mask: ports), .vxlan(identifier: 0x123456),
            .esp(spi: 1, sequence: 2, spiMask: 3, sequenceMask: 4),
            .gre(.init(), mask: .init()), .mpls(label: 5, mask: 6), .tag(7), .drop, .count(counters),
        ]
    }

    static func check(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { all in
            let header = all.loadUnaligned(as: ibv_flow_attr.self)
            #expect(Int(header.size) == bytes.count && header.num_of_specs == 11)
            #expect(header.port == 2 && header.priority == 3 && header.flags == 2)
            var offset = MemoryLayout<ibv_flow_attr>.size
            func next<Spec>(_ type: UInt32, _ spec: Spec.Type) -> Spec? {
                guard offset + MemoryLayout<Spec>.size <= all.count else { return nil }
                let found = all.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
                let size = all.loadUnaligned(fromByteOffset: offset + 4, as: UInt16.self)
                #expect(found == type && Int(size) == MemoryLayout<Spec>.size, "spec \(type): \(found), \(size)")
                defer { offset += Int(size) }
                return all.loadUnaligned(fromByteOffset: offset, as: Spec.self)
            }
            let ethernet = next(0x20, ibv_flow_spec_eth.self)
            #expect(ethernet?.val.dst_mac.5 == 6 && ethernet?.mask.ether_type == UInt16(0x0800).bigEndian)
            let ipv4 = next(0x132, ibv_flow_spec_ipv4_ext.self)
            #expect(ipv4?.val.src_ip == UInt32(0x0a00_0001).bigEndian && ipv4?.mask.proto == 17)
            let ipv6 = next(0x31, ibv_flow_spec_ipv6.self)
            #expect(ipv6?.val.dst_ip.15 == 1 && ipv6?.mask.dst_ip.0 == 0x20 && ipv6?.mask.hop_limit == 9)
            #expect(next(0x41, ibv_flow_spec_tcp_udp.self)?.mask.dst_port == UInt16(4791).bigEndian)
            #expect(next(0x50, ibv_flow_spec_tunnel.self)?.val.tunnel_id == UInt32(0x123456).bigEndian)
            let esp = next(0x34, ibv_flow_spec_esp.self)
            #expect(esp?.val.seq == UInt32(2).bigEndian && esp?.mask.spi == UInt32(3).bigEndian)
            #expect(next(0x51, ibv_flow_spec_gre.self)?.val.key == 0)
            #expect(next(0x60, ibv_flow_spec_mpls.self)?.mask.label == UInt32(6).bigEndian)
            #expect(next(0x1000, ibv_flow_spec_action_tag.self)?.tag_id == 7)
            #expect(next(0x1001, ibv_flow_spec_action_drop.self) != nil)
            #expect(next(0x1003, ibv_flow_spec_counter_action.self)?.counters != nil)
            #expect(offset == all.count)
        }
    }
}
