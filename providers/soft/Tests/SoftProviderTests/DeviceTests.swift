import CIBVerbs
import CProviderABI
import Glibc
import RoCETransport
import SoftTestSupport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("Devices, ports, GIDs")
    struct DeviceTests {
        @Test("soft0 on the loopback interface is always listed")
        func listsLoopback() throws {
            let first = try #require(try Provider.devices().first)
            let name = withUnsafeBytes(of: first.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            #expect(name == "soft0")
            #expect(first.ifindex == if_nametoindex("lo"))
            #expect(first.node_guid != 0)
        }

        @Test("An interface that does not exist is refused with ENODEV")
        func refusesUnknownInterface() {
            #expect(throws: Refusal(ENODEV)) { try OpenDevice(interface: "no-such-if") }
        }

        @Test("The port is active, Ethernet, with one P_Key; another port is EINVAL")
        func queriesPort() throws {
            let device = try OpenDevice()
            var port = ibv_port_attr()
            let size = MemoryLayout<ibv_port_attr>.size
            try check(device.table.query_port(device.context, 1, &port, size))
            #expect(port.state == IBV_PORT_ACTIVE)
            #expect(port.link_layer == UInt8(IBV_LINK_LAYER_ETHERNET))
            #expect(port.active_mtu == IBV_MTU_4096)
            #expect(device.table.query_port(device.context, 2, &port, size) == EINVAL)
            var key: UInt16 = 0
            try check(device.table.query_pkey(device.context, 1, 0, &key))
            #expect(key == 0xFFFF)
            #expect(device.table.query_pkey(device.context, 1, 1, &key) == EINVAL)
        }

        @Test("query_port writes no more bytes than the size of the caller's struct")
        func storesWhatFits() throws {
            let device = try OpenDevice()
            var port = ibv_port_attr()
            port.link_layer = 77
            let known = MemoryLayout<ibv_port_attr>.offset(of: \.link_layer)!
            try check(device.table.query_port(device.context, 1, &port, known))
            #expect(port.link_layer == 77)
            #expect(port.pkey_tbl_len == 1)
        }

        @Test("The GID table contains 127.0.0.1 as ::ffff:127.0.0.1, RoCE v2; an empty entry is ENODATA")
        func queriesGIDs() throws {
            let device = try OpenDevice()
            var entry = ibv_gid_entry()
            let size = MemoryLayout<ibv_gid_entry>.size
            try check(device.table.query_gid_ex(device.context, 1, 0, &entry, 0, size))
            #expect(GID(entry.gid) == GID(high: 0, low: 0xFFFF_7F00_0001))
            #expect(entry.gid_type == IBV_GID_TYPE_ROCE_V2.rawValue)
            #expect(entry.ndev_ifindex == if_nametoindex("lo"))
            #expect(device.table.query_gid_ex(device.context, 1, 31, &entry, 0, size) == ENODATA)
            #expect(device.table.query_gid_ex(device.context, 1, 32, &entry, 0, size) == EINVAL)

            var entries = [ibv_gid_entry](repeating: ibv_gid_entry(), count: 32)
            let count = device.table.query_gid_table(device.context, &entries, 32, 0, size)
            #expect(count >= 1)
            #expect(GID(entries[0].gid) == GID(entry.gid))
        }

        @Test("The verbs enforce the limits that the device reports")
        func queriesDevice() throws {
            let device = try OpenDevice()
            var attr = ibv_device_attr_ex()
            try check(device.table.query_device_ex(device.context, nil, &attr, MemoryLayout<ibv_device_attr_ex>.size))
            #expect(attr.orig_attr.max_sge == 32)
            #expect(attr.orig_attr.phys_port_cnt == 1)
            #expect(attr.phys_port_cnt_ex == 1)
            // Completion timestamps are nanoseconds: 1,000,000 kHz.
            #expect(attr.completion_timestamp_mask == UInt64.max)
            #expect(attr.hca_core_clock == 1_000_000)
        }

        @Test("A protection domain is busy until its parent domain is deallocated")
        func countsParentDomains() throws {
            let device = try OpenDevice()
            let domain = try created(device.table.alloc_pd(device.context))
            var attr = ibv_parent_domain_init_attr()
            attr.pd = domain
            let parent = try created(device.table.alloc_parent_domain(device.context, &attr))
            #expect(device.table.dealloc_pd(domain) == EBUSY)
            try check(device.table.dealloc_pd(parent))
            try check(device.table.dealloc_pd(domain))
        }
    }
}
