import Foundation
import Testing
import Verbs

@Suite("Encodings of an endpoint")
struct EndpointTests {
    static let endpoints = [
        Endpoint(
            queuePairNumber: 0x11, packetSequenceNumber: 0x8f3a01, gid: GID("192.0.2.1")!, lid: 0, mtu: .bytes4096,
            maxDestRdAtomic: 16),
        Endpoint(
            queuePairNumber: 0xff_ffff, packetSequenceNumber: 0, gid: GID("fe80::1:2")!, lid: 0xabcd, mtu: .bytes256,
            qkey: 0x7fff_ffff),
        Endpoint(
            queuePairNumber: 1, packetSequenceNumber: 0xff_ffff, gid: .zero, lid: 1, mtu: .bytes1024,
            maxDestRdAtomic: 255, qkey: 0,
            memory: RemoteMemory(address: .max, rkey: .max, byteCount: .max)),
        Endpoint(
            queuePairNumber: 1, packetSequenceNumber: 2, gid: GID("2001:db8::1")!, lid: 0, mtu: MTU(rawValue: 9),
            memory: RemoteMemory(address: 0, rkey: 0, byteCount: 0)),
    ]

    @Test("endpoints are unchanged after encoding as text, as bytes and through Codable", arguments: endpoints)
    func roundTrip(endpoint: Endpoint) throws {
        #expect(Endpoint(endpoint.description) == endpoint)
        #expect(endpoint.bytes.count == Endpoint.byteCount)
        #expect(Endpoint(bytes: endpoint.bytes) == endpoint)
        #expect(try JSONDecoder().decode(Endpoint.self, from: JSONEncoder().encode(endpoint)) == endpoint)
    }

    @Test("the text has the documented format")
    func text() {
        #expect(Self.endpoints[0].description == "rdma1,qpn=11,psn=8f3a01,lid=0,mtu=5,depth=10,gid=::ffff:192.0.2.1")
    }

    @Test(
        "incomplete or malformed text is refused",
        arguments: [
            "", "rdma1", "rdma2,qpn=11,psn=1,lid=0,mtu=5,depth=1,gid=::1", "rdma1,qpn=11,psn=1,lid=0,mtu=5,depth=1",
            "rdma1,qpn=1000000,psn=1,lid=0,mtu=5,depth=1,gid=::1",
            "rdma1,qpn=11,psn=1000000,lid=0,mtu=5,depth=1,gid=::1",
            "rdma1,qpn=11,psn=1,lid=10000,mtu=5,depth=1,gid=::1", "rdma1,qpn=11,psn=1,lid=0,mtu=5,depth=1,gid=here",
            "rdma1,qpn=11,psn=1,lid=0,mtu=5,depth=1,gid=::1,", "rdma1,qpn=11,psn=1,lid=0,mtu=5,depth=1,gid=::1,x=1",
            "rdma1,qpn=11,psn=1,lid=0,mtu=5,depth=1,gid=::1,addr=1", "rdma1,qpn=-1,psn=1,lid=0,mtu=5,depth=1,gid=::1",
            "rdma1,qpn=,psn=1,lid=0,mtu=5,depth=1,gid=::1", "rdma1,psn=1,qpn=11,lid=0,mtu=5,depth=1,gid=::1",
            "rdma1,qpn=11,psn=1,lid=0,mtu=5,depth=1,gid=::1,addr=1,rkey=1,len=1,qkey=1",
            "rdma1,qpn=11,psn=1,lid=0,mtu=5,depth=1,gid=::1\n",
        ])
    func badText(text: String) {
        #expect(Endpoint(text) == nil)
    }

    @Test("bytes of another version or length, or with unknown bits, are refused")
    func badBytes() {
        let good = Self.endpoints[2].bytes
        for index in [0, 1, 4, 8, 14, 15] {
            var bad = good
            bad[index] ^= 0x80
            #expect(Endpoint(bytes: bad) == nil, "byte \(index)")
        }
        #expect(Endpoint(bytes: Array(good.dropLast())) == nil)
        #expect(Endpoint(bytes: good + [0]) == nil)
        #expect(Endpoint(bytes: []) == nil)
    }
}
