import Foundation
import SystemPackage
import Testing
import Verbs

@testable import ConnectionManager

@Suite("Errors of rdma_cm")
struct ErrorTests {
    static let reasons: [ConnectionError.Reason] = [
        .system("rdma_connect", .invalidArgument), .system("rdma_bind_addr", .addressInUse),
        .system("rdma_bind_addr", .addressNotAvailable), .system("rdma_create_event_channel", .noSuchFileOrDirectory),
        .verbs(VerbsError(.modifyQP, errno: .invalidArgument, object: VerbsObject("queue pair", device: "rxe0"))),
        .invalid("what"), .unresolvable("who"), .addressNotResolved(.noRouteToHost), .routeNotResolved(.timedOut),
        .rejected(.consumer, privateData: [1]), .rejected(.invalidServiceID, privateData: []),
        .rejected(RejectionReason(rawValue: 4711), privateData: []), .serviceRefused(.noQueuePair, privateData: []),
        .unreachable(.timedOut), .multicastNotJoined(.invalidArgument), .timedOut(.seconds(2)), .cancelled,
        .disconnected, .deviceRemoved,
    ]

    @Test("each is one line that begins with what was wanted", arguments: reasons.indices)
    func oneLine(index: Int) {
        let error = ConnectionError(Self.reasons[index], operation: "connect to 192.0.2.1:7471")
        #expect(error.description.hasPrefix("cannot connect to 192.0.2.1:7471: "))
        #expect(!error.description.contains("\n"))
    }

    @Test("reasons of rejection carry the specification's numbers; unknown ones are carried")
    func rejection() {
        #expect(RejectionReason(rawValue: 28) == .consumer)
        #expect(RejectionReason.consumer.description == "rejected by the consumer")
        #expect(RejectionReason(rawValue: 8).description == "invalid service identifier")
        #expect(RejectionReason(rawValue: 33).description == "invalid alternate flow label")
        #expect(RejectionReason(rawValue: 35) == .vendorOptionNotSupported)
        #expect(RejectionReason.vendorOptionNotSupported.name == "vendor option not supported")
        for unknown: Int32 in [0, 34, 36, -1, .max, .min] {
            #expect(RejectionReason(rawValue: unknown).description == "unknown (\(unknown))")
        }
        #expect(DatagramServiceStatus(rawValue: 9).description == "unknown (9)")
        #expect(ConnectionEvent.Kind(rawValue: 8) == .rejected)
        #expect(ConnectionEvent.Kind(rawValue: 15).description == "TIMEWAIT_EXIT")
        #expect(ConnectionEvent.Kind(rawValue: 16).description == "unknown (16)")
        #expect(PortSpace(rawValue: 7).description == "unknown (7)")
    }

    @Test("the distribution's provider is named where there is a device that librdmacm would open with it")
    func advice() {
        let hasDevice = Device.all.contains { !$0.isSoftware }
        let text = ConnectionAdvice.noDevice()
        #expect(text.contains("apt install ibverbs-providers") == hasDevice, "\(text)")
        #expect(!text.contains("\n"))
    }

    @Test("parameters arrive at librdmacm as they are; nil asks for all that the device can")
    func parameters() {
        var parameters = ConnectionParameters()
        parameters.queuePairNumber = 0xabcdef
        parameters.hasSharedReceiveQueue = true
        parameters.initiatorDepth = 3
        parameters.withRaw([7, 8]) { raw in
            #expect(raw.pointee.qp_num == 0xabcdef && raw.pointee.srq == 1)
            #expect(raw.pointee.responder_resources == 255 && raw.pointee.initiator_depth == 3)
            #expect(raw.pointee.private_data_len == 2 && raw.pointee.retry_count == 7)
            #expect(Array(UnsafeRawBufferPointer(start: raw.pointee.private_data, count: 2)) == [7, 8])
        }
        parameters.withRaw([]) { #expect($0.pointee.private_data_len == 0) }
    }
}

@Suite(
    "Where the kernel has no RDMA", .enabled(if: !FileManager.default.fileExists(atPath: "/dev/infiniband/rdma_cm")))
struct AbsenceTests {
    private func expectSentence(_ error: ConnectionError?) {
        guard let error else {
            Issue.record("it worked")
            return
        }
        guard case .system("rdma_create_event_channel", _) = error.reason else {
            Issue.record("\(error)")
            return
        }
        let text = error.description
        #expect(text.hasPrefix("cannot use rdma_cm: rdma_create_event_channel failed: ") && !text.contains("\n"))
        #expect(error.hint != nil)
        if case .system(_, .operationNotSupportedByDevice) = error.reason {
            #expect(text.contains("in userspace only, rdma_cm cannot use it"), "\(text)")
        }
    }

    @Test("every way in answers one sentence that says what there is, and what to try")
    func everyEntry() async {
        for _ in 0..<3 {
            expectSentence(#expect(throws: ConnectionError.self) { _ = try EventChannel() })
            expectSentence(#expect(throws: ConnectionError.self) { _ = try Listener(port: 7471) })
            let address = ConnectionAddress("127.0.0.1:7471")!
            expectSentence(
                await #expect(throws: ConnectionError.self) { _ = try await Connector.resolve(address) })
            expectSentence(
                await #expect(throws: ConnectionError.self) {
                    _ = try await Connector.resolve("127.0.0.1", port: 7471, portSpace: .udp)
                })
        }
    }
}
