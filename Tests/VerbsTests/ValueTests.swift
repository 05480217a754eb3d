import Foundation
import SystemPackage
import Testing
import Verbs

@Suite("GIDs, enumerations, timers and remote memory")
struct ValueTests {
    @Test(
        "GIDs are parsed and printed as IPv6 addresses",
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
        "text that is not an IP address is not a GID",
        arguments: [
            "", ":", ":::", "1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "g::1", "12345::", "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256", "::ffff:1.2.3", "1.2.3.4::", "1:2:3:4:5:6:7::8", " ::1", "+1::", "1.2.3.-4",
        ])
    func badGID(text: String) {
        #expect(GID(text) == nil)
    }

    @Test("link-local, loopback, IPv4-mapped, multicast and zero GIDs are recognized")
    func gidKinds() throws {
        #expect(GID("fe80::1")?.isLinkLocal == true && GID("fec0::1")?.isLinkLocal == false)
        #expect(GID("127.9.9.9")?.isLoopback == true && GID("::1")?.isLoopback == true)
        #expect(GID("10.0.0.1")?.isIPv4Mapped == true && GID("::1")?.isIPv4Mapped == false)
        #expect(GID("ff0e::1")?.isMulticast == true && GID("fe80::ff00")?.isMulticast == false && GID.zero.isZero)
        #expect(GID("239.1.2.3")?.isMulticast == true && GID("223.1.2.3")?.isMulticast == false)
        #expect(GID(ipv4: 192, 0, 2, 1) == GID("192.0.2.1"))
        #expect(GID(bytes: [1, 2, 3]) == nil)
    }

    @Test("unknown raw values are preserved, compared and printed")
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

    @Test("LocalACKTimeout and RNRTimer are selected by duration, and print it")
    func timers() {
        #expect(
            LocalACKTimeout(atLeast: .zero).rawValue == 1 && LocalACKTimeout(atLeast: .seconds(100_000)).rawValue == 31)
        #expect(LocalACKTimeout(atLeast: .nanoseconds(8192)).rawValue == 1)
        #expect(LocalACKTimeout(atLeast: .nanoseconds(8193)).rawValue == 2)
        #expect(LocalACKTimeout(rawValue: 14).duration == .nanoseconds(67_108_864))
        #expect(LocalACKTimeout.infinite.duration == nil && "\(LocalACKTimeout.infinite)" == "0 (infinite)")
        #expect("\(LocalACKTimeout(rawValue: 14))".hasPrefix("14 (0.067"))
        // IBTA volume 1, table 45.
        #expect(RNRTimer(rawValue: 0).duration == .microseconds(655_360))
        #expect(RNRTimer(rawValue: 12).duration == .microseconds(640))
        #expect(RNRTimer(rawValue: 31).duration == .microseconds(491_520))
        #expect(RNRTimer(atLeast: .microseconds(641)).rawValue == 13 && RNRTimer(atLeast: .zero).rawValue == 1)
        #expect(RNRTimer(atLeast: .milliseconds(492)).rawValue == 0 && RNRTimer(atLeast: .seconds(9)).rawValue == 0)
        #expect("\(RNRTimer(rawValue: 12))".hasPrefix("12 (0.00064"))
    }

    @Test("a subrange of remote memory stays within its bounds")
    func remoteMemory() throws {
        let memory = RemoteMemory(address: 100, rkey: 7, byteCount: 10)
        #expect(try memory.subrange(4...) == RemoteMemory(address: 104, rkey: 7, byteCount: 6))
        #expect(try memory.subrange(10...) == RemoteMemory(address: 110, rkey: 7, byteCount: 0))
        #expect(try memory.subrange(2..<5) == RemoteMemory(address: 102, rkey: 7, byteCount: 3))
        for range in [11..<11, 4..<11, 11..<12] as [Range<UInt64>] {
            let error = failure { () throws(VerbsError) in _ = try memory.subrange(range) }
            #expect(error?.errno == .invalidArgument && error?.hint?.contains("its 10 bytes") == true)
        }
        #expect(failure { () throws(VerbsError) in _ = try memory.subrange(11...) }?.errno == .invalidArgument)
        #expect(try JSONDecoder().decode(RemoteMemory.self, from: JSONEncoder().encode(memory)) == memory)
    }
}
