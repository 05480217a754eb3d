import Foundation
import SystemPackage
import Testing
import Verbs

@Suite("Values")
struct ValueTests {
    @Test(
        "GIDs read and print as IPv6 addresses",
        arguments: [
            ("::", "::"), ("::1", "::1"), ("fe80::1", "fe80::1"), ("192.0.2.1", "::ffff:192.0.2.1"),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:DB8::", "2001:db8::"), ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
            ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"),
            ("0:0:0:0:0:ffff:c000:0201", "::ffff:192.0.2.1"), ("ff0e::1.2.3.4", "ff0e::102:304"),
        ])
    func gidText(text: String, canonical: String) throws {
        let gid = try #require(GID(text))
        #expect(gid.description == canonical)
        #expect(GID(gid.description) == gid)
        #expect(GID(bytes: gid.bytes) == gid)
        #expect(try JSONDecoder().decode(GID.self, from: JSONEncoder().encode(gid)) == gid)
    }

    @Test(
        "what is no address is no GID",
        arguments: [
            "", ":", ":::", "1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "g::1", "12345::", "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256", "::ffff:1.2.3", "1.2.3.4::", "1:2:3:4:5:6:7::8", " ::1", "+1::", "1.2.3.-4",
        ])
    func badGID(text: String) {
        #expect(GID(text) == nil)
    }

    @Test("the kinds of GID are told apart")
    func gidKinds() throws {
        #expect(GID("fe80::1")?.isLinkLocal == true && GID("fec0::1")?.isLinkLocal == false)
        #expect(GID("127.9.9.9")?.isLoopback == true && GID("::1")?.isLoopback == true)
        #expect(GID("10.0.0.1")?.isIPv4Mapped == true && GID("::1")?.isIPv4Mapped == false)
        #expect(GID("ff0e::1")?.isMulticast == true && GID("fe80::ff00")?.isMulticast == false && GID.zero.isZero)
        #expect(GID("239.1.2.3")?.isMulticast == true && GID("223.1.2.3")?.isMulticast == false)
        #expect(GID(ipv4: 192, 0, 2, 1) == GID("192.0.2.1"))
        #expect(GID(bytes: [1, 2, 3]) == nil)
    }

    @Test("unknown numbers are carried, compared and printed")
    func openValues() {
        let status = WorkCompletion.Status(rawValue: 99)
        #expect(status.name == nil && status.description == "unknown (99)" && status != .success)
        #expect(WorkCompletion.Status.retryExceeded.description == "RETRY_EXC_ERR")
        #expect(WorkCompletion.Opcode(rawValue: 200).isReceive)
        #expect(QueuePair.State(rawValue: 42).description == "unknown (42)")
        #expect(NodeType(rawValue: -1) == .unknown && TransportType.iWARP.description == "iWARP")
        #expect(MTU(rawValue: 9).byteCount == 0 && MTU.bytes4096.byteCount == 4096)
        #expect(MTU(byteCount: 1024) == .bytes1024 && MTU(byteCount: 1500) == nil)
        #expect(Rate.gbps2_5.description == "2.5 Gbit/s")
        #expect(AccessFlags([.localWrite, .remoteRead]).description == "[LOCAL_WRITE, REMOTE_READ]")
        #expect(AccessFlags(rawValue: 1 << 30 | 1).description == "[LOCAL_WRITE, 0x40000000]")
    }

    @Test("remote memory can be cut from the front, not beyond its end")
    func remoteMemory() throws {
        let memory = RemoteMemory(address: 100, rkey: 7, byteCount: 10)
        #expect(memory.dropFirst(4) == RemoteMemory(address: 104, rkey: 7, byteCount: 6))
        #expect(memory.dropFirst(99) == RemoteMemory(address: 110, rkey: 7, byteCount: 0))
        #expect(try JSONDecoder().decode(RemoteMemory.self, from: JSONEncoder().encode(memory)) == memory)
    }
}
