import Glibc
import TestSupport
import Testing

@testable import RDMANetlink

@Suite("Malformed messages are an error with an offset, never a trap")
struct BadMessageTests {
    @Test("every captured datagram, truncated at every length")
    func truncated() {
        for datagram in Captured.all {
            for length in 0..<datagram.count { readEverything(Array(datagram.prefix(length))) }
        }
    }

    @Test("every captured datagram, with a few bytes changed")
    func tampered() {
        var random = SplitMix(seed: 1)
        for datagram in Captured.all {
            for _ in 0..<100 {
                var datagram = datagram
                for _ in 0..<3 {
                    datagram[Int.random(in: datagram.indices, using: &random)] = .random(in: 0...255, using: &random)
                }
                readEverything(datagram)
            }
        }
    }

    @Test("a message and an attribute with a length beyond their end")
    func lengths() throws {
        let message = Captured.datagrams("devices")[0]
        let short = Array(message.dropLast(4))
        #expect(throws: MalformedMessage(offset: 0, message: "a message of 108 bytes, of 104 that are left")) {
            try Message.all(in: short)
        }
        #expect(throws: MalformedMessage(offset: 0, message: "an attribute of 3 bytes, of 8 that are left")) {
            try Attributes([3, 0, 1, 0, 0, 0, 0, 0])
        }
        #expect(throws: MalformedMessage(offset: 4, message: "2 bytes are no attribute")) {
            try Attributes([4, 0, 1, 0, 0, 0])
        }
    }

    @Test("an integer attribute of the wrong length, and a missing one")
    func numbers() throws {
        #expect(throws: MalformedMessage(offset: 4, message: "attribute 1 of 3 bytes is no number of 32 bits")) {
            try RDMADevice(attribute(1, [1, 2, 3])[...])
        }
        #expect(throws: MalformedMessage(offset: 4, message: "attribute 1 of 8 bytes is no number of 32 bits")) {
            try RDMADevice(attribute(1, [0, 0, 0, 0, 1, 0, 0, 0])[...])
        }
        #expect(throws: MalformedMessage(offset: 0, message: "attribute 1 is missing")) {
            try RDMADevice(attribute(2, [0x61, 0])[...])
        }
    }

    @Test("attributes of unknown types are skipped, also in nested attributes")
    func unknown() throws {
        let known = attribute(1, [5, 0, 0, 0])
        #expect(try RDMADevice((attribute(0x3fff, [1]) + known + attribute(900, []))[...]).index == 5)
        let entry = attribute(20, attribute(21, [9, 0, 0, 0]) + attribute(500, [1, 2]))
        #expect(try QueuePairResource.all(attribute(19, attribute(77, []) + entry)[...]).map(\.number) == [9])
    }

    @Test("a response with another sequence number is ignored; NLMSG_OVERRUN is ENOBUFS")
    func others() {
        var response = Response<RDMADevice>(isDump: true)
        let datagram = Captured.datagrams("devices")[0]
        response.sequence = 0xffff
        response.append(datagram) { payload throws(MalformedMessage) in [try RDMADevice(payload)] }
        #expect(response.values.isEmpty && response.end == nil)
        response.append([16, 0, 0, 0, 4, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0]) { _ in [] }
        #expect(response.end == .refused(ENOBUFS))
    }

    @Test("on a kernel without RDMA netlink, the error names the RDMA subsystem")
    func noRDMA() {
        let error = NetlinkError.noSocket("list the RDMA devices", errno: EPROTONOSUPPORT)
        #expect(error.description.hasPrefix("cannot list the RDMA devices: this kernel has no RDMA subsystem; load it"))
    }
}
