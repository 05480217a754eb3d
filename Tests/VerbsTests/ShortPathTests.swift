import CIBVerbs
import CProviderABI
import SystemPackage
import Testing
import Verbs

extension FakeTests {
    @Suite("addresses, connect and device selection with defaults")
    struct ShortPath {
        @Test(
            "address() selects the active port and the preferred GID",
            arguments: [
                ("roce0", "::ffff:192.0.2.1", 5, 2), ("roce6", "2001:db8::1", 3, 2), ("link0", "fe80::1", 1, 2),
                ("ib0", "fe80::5:6", 0, 1),
            ] as [(String, String, UInt8, UInt8)])
        func address(device: String, gid: String, index: UInt8, port: UInt8) throws {
            let address = try Fake.open(device).address()
            #expect(address.gid == GID(gid) && address.gidIndex == index && address.port == port)
            #expect(address.requiresGlobalRoute == (device != "ib0"))
        }

        @Test("addresses() are ordered: RoCE v2 before v1, IPv4 before global IPv6 before link-local")
        func order() throws {
            let addresses = try Fake.open("roce0").addresses()
            #expect(addresses.map(\.gidIndex) == [5, 3, 1, 4, 2, 0])
        }

        @Test("address() reports ENETDOWN if no port is active")
        func down() throws {
            let error = failure { () throws(VerbsError) in _ = try Fake.open("down0").address() }
            #expect(error?.errno == .networkDown && error?.hint?.contains("no port is active") == true)
        }

        @Test("connect(to:) modifies the queue pair to INIT, RTR and RTS with the documented values")
        func connect() throws {
            Fake.reset()
            let context = try Fake.open("roce0")
            let queue = try context.makeCompletionQueue(capacity: 1)
            let pair = try context.makeProtectionDomain().makeQueuePair(.reliableConnection, completions: queue)
            let peer = Endpoint(
                queuePairNumber: 0x22, packetSequenceNumber: 77, gid: GID("192.0.2.9")!, lid: 0, mtu: .bytes1024,
                maxDestRdAtomic: 4)
            let early = failure { () throws(VerbsError) in try pair.connect(to: peer) }
            #expect(early?.hint?.contains("the peer does not have this endpoint") == true)
            let local = try pair.endpoint()
            #expect(try pair.endpoint() == local)
            #expect(local.maxDestRdAtomic == 16 && local.mtu == .bytes2048 && local.qkey == nil)
            try pair.connect(to: peer)
            #expect(pair.lastKnownState == .readyToSend)
            let steps = Fake.with { $0.modifications }
            #expect(steps.count == 3)
            let (initial, receive, send) = (steps[0].attributes, steps[1].attributes, steps[2].attributes)
            #expect(initial.port_num == 2 && initial.qp_access_flags == 15 && initial.pkey_index == 0)
            #expect(receive.dest_qp_num == 0x22 && receive.rq_psn == 77 && receive.path_mtu == IBV_MTU_1024)
            #expect(receive.min_rnr_timer == 12 && receive.max_dest_rd_atomic == 16)
            #expect(receive.ah_attr.is_global == 1 && receive.ah_attr.grh.sgid_index == 5)
            #expect(receive.ah_attr.grh.hop_limit == 64 && receive.ah_attr.port_num == 2)
            #expect(send.timeout == 14 && send.retry_cnt == 7 && send.rnr_retry == 7)
            #expect(send.sq_psn == local.packetSequenceNumber && send.max_rd_atomic == 4)
        }

        @Test("connect(to:) sets only the attributes of UC; options replace the defaults")
        func unreliable() throws {
            Fake.reset()
            let context = try Fake.open("roce0")
            let queue = try context.makeCompletionQueue(capacity: 1)
            let pair = try context.makeProtectionDomain().makeQueuePair(.unreliableConnection, completions: queue)
            var options = ConnectionOptions()
            (options.pathMTU, options.trafficClass, options.access) = (.bytes256, 8, .remoteWrite)
            try pair.connect(to: try pair.endpoint(), options: options)
            let steps = Fake.with { $0.modifications }
            let masks = steps.map { QueuePair.Attributes.Mask(rawValue: $0.mask) }
            #expect(masks[0] == [.state, .pkeyIndex, .port, .access])
            #expect(masks[1] == [.state, .path, .pathMTU, .destinationQPNumber, .rqPSN])
            #expect(masks[2] == [.state, .sqPSN])
            #expect(steps[0].attributes.qp_access_flags == 2 && steps[1].attributes.path_mtu == IBV_MTU_256)
            #expect(steps[1].attributes.ah_attr.grh.traffic_class == 8)
        }

        @Test("InfiniBand uses the LID within a subnet and a GRH across subnets")
        func infiniBand() throws {
            Fake.reset()
            let address = try Fake.open("ib0").address()
            #expect(address.lid == 7)
            func peer(_ gid: String) -> Endpoint {
                Endpoint(queuePairNumber: 1, packetSequenceNumber: 0, gid: GID(gid)!, lid: 9, mtu: .bytes2048)
            }
            let near = AddressVector(to: peer("fe80::9"), from: address)
            #expect(near.lid == 9 && near.route == nil)
            #expect(AddressVector(to: peer("2001:db8::9"), from: address).route?.gid == GID("2001:db8::9"))
        }

        @Test("connecting an IPv4 address to an IPv6 one is refused")
        func families() throws {
            Fake.reset()
            let context = try Fake.open("roce0")
            let queue = try context.makeCompletionQueue(capacity: 1)
            let pair = try context.makeProtectionDomain().makeQueuePair(.reliableConnection, completions: queue)
            _ = try pair.endpoint()
            let peer = Endpoint(
                queuePairNumber: 1, packetSequenceNumber: 1, gid: GID("2001:db8::9")!, lid: 0, mtu: .bytes1024)
            let error = failure { () throws(VerbsError) in try pair.connect(to: peer) }
            #expect(error?.errno == .invalidArgument && error?.hint?.contains("two of one family") == true)
            #expect(Fake.with { $0.modifications }.isEmpty)
        }

        @Test("openFirst opens the first device with an active port")
        func first() throws {
            Fake.reset()
            let context = try Device.openFirst(from: Fake.loader)
            // bare0 and down0 sort before fake0, but have no active port.
            #expect(context.deviceName == "fake0")
        }

        @Test("queries return the device's values and errors")
        func queries() throws {
            Fake.reset()
            let context = try Fake.open("roce0")
            #expect(try context.attributes().maxQPWR == 1000)
            #expect(try context.ports().map(\.state) == [.down, .active])
            #expect(try context.pkey(port: 1, index: 0) == 0x8001)
            #expect(try context.rawClock() == 12345)
            let empty = failure { () throws(VerbsError) in _ = try context.gid(port: 2, index: 7) }
            #expect(empty?.errno == .noData && empty?.hint == "that entry of the GID table is empty")
            #expect(
                failure { () throws(VerbsError) in _ = try context.port(9) }?.hint?.contains("count from 1") == true)
            #expect(failure { () throws(VerbsError) in _ = try context.gidTable() }?.errno == .notPermitted)
            #expect(context.completionVectorCount == 2)
        }
    }
}
