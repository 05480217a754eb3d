import ConnectionManager
import Testing
import Verbs

@Suite("Addresses of rdma_cm")
struct AddressTests {
    @Test(
        "the description of an address parses to the same address",
        arguments: [
            "192.0.2.1:7471", "0.0.0.0:0", "255.255.255.255:65535", "[2001:db8::1]:7471", "[::]:0", "[fe80::1%3]:1",
        ])
    func roundTrip(text: String) throws {
        let address = try #require(ConnectionAddress(text))
        #expect(address.description == text)
        #expect(address.isIPv4 == !text.hasPrefix("["))
    }

    @Test(
        "other texts are not parsed",
        arguments: [
            "", ":", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:+1", "192.0.2:1", "2001:db8::1:7471",
            "[2001:db8::1]", "[192.0.2.1]:1", "[fe80::1%eth0]:1", "[fe80::1%-1]:1", "node7:1", "[::1:1",
        ])
    func refused(text: String) { #expect(ConnectionAddress(text) == nil) }

    @Test("isMulticast is true for multicast addresses only")
    func multicast() throws {
        for (text, isMulticast) in [
            ("224.0.0.1:0", true), ("239.255.0.1:0", true), ("223.255.255.255:0", false), ("240.0.0.1:0", false),
            ("[ff02::1]:0", true), ("[fe80::1]:0", false),
        ] {
            #expect(try #require(ConnectionAddress(text)).isMulticast == isMulticast, "\(text)")
        }
    }

    @Test("a numeric host resolves to its address; an empty host is unresolvable")
    func resolution() throws {
        #expect(try ConnectionAddress.resolve("192.0.2.7", port: 9) == [#require(ConnectionAddress("192.0.2.7:9"))])
        #expect(try ConnectionAddress.resolve("::1", port: 9) == [#require(ConnectionAddress("[::1]:9"))])
        let error = #expect(throws: ConnectionError.self) { try ConnectionAddress.resolve("", port: 1) }
        guard case .unresolvable = error?.reason else {
            Issue.record("\(String(describing: error))")
            return
        }
    }
}
