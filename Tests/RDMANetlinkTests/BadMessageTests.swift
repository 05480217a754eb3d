import Glibc
import TestSupport
import Testing

@testable import RDMANetlink

@Suite("Bad messages end in an error that says where, never in a trap")
struct BadMessageTests {
    @Test("every captured datagram, cut off anywhere")
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

    @Test("a message and an attribute that say they are longer than they are")
    func lengths() throws {
        let message = Captured.datagrams("devices")[0]
        let short = Array(message.dropLast(4))
        #expect(throws: MalformedMessage(offset: 0, sentence: "a message of 108 bytes, of 104 that are left")) {
            try Message.all(in: short)
        }
        #expect(throws: MalformedMessage(offset: 0, sentence: "an attribute of 3 bytes, of 8 that are left")) {
            try Attributes([3, 0, 1, 0, 0, 0, 0, 0])
        }
        #expect(throws: MalformedMessage(offset: 4, sentence: "2 bytes are no attribute")) {
            try Attributes([4, 0, 1, 0, 0, 0])
        }
    }

    @Test("a number of the wrong width, and one that is missing")
    func numbers() throws {
        #expect(throws: MalformedMessage(offset: 4, sentence: "attribute 1 of 3 bytes is no number of 32 bits")) {
            try RDMADevice(attribute(1, [1, 2, 3])[...])
        }
        #expect(throws: MalformedMessage(offset: 4, sentence: "attribute 1 of 8 bytes is no number of 32 bits")) {
            try RDMADevice(attribute(1, [0, 0, 0, 0, 1, 0, 0, 0])[...])
        }
        #expect(throws: MalformedMessage(offset: 0, sentence: "attribute 1 is missing")) {
            try RDMADevice(attribute(2, [0x61, 0])[...])
        }
    }

    @Test("attributes of unknown types are passed over, also within tables")
    func unknown() throws {
        let known = attribute(1, [5, 0, 0, 0])
        #expect(try RDMADevice((attribute(0x3fff, [1]) + known + attribute(900, []))[...]).index == 5)
        let entry = attribute(20, attribute(21, [9, 0, 0, 0]) + attribute(500, [1, 2]))
        #expect(try QueuePairResource.all(attribute(19, attribute(77, []) + entry)[...]).map(\.number) == [9])
    }

    @Test("an answer to another request is not taken; an overrun ends in an error")
    func others() {
        var answers = Answers<RDMADevice>(isDump: true)
        let datagram = Captured.datagrams("devices")[0]
        answers.sequence = 0xffff
        answers.take(datagram) { payload throws(MalformedMessage) in [try RDMADevice(payload)] }
        #expect(answers.values.isEmpty && answers.end == nil)
        answers.take([16, 0, 0, 0, 4, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0]) { _ in [] }
        #expect(answers.end == .refused(ENOBUFS))
    }

    @Test("a kernel without RDMA is named in one sentence")
    func noRDMA() {
        let error = NetlinkError.noSocket("list the RDMA devices", errno: EPROTONOSUPPORT)
        #expect(error.description.hasPrefix("cannot list the RDMA devices: this kernel has no RDMA subsystem; load it"))
    }
}
