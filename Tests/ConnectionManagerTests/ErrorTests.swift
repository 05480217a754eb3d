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

    @Test("each description is one line that begins with the operation", arguments: reasons.indices)
    func oneLine(index: Int) {
        let error = ConnectionError(Self.reasons[index], operation: "connect to 192.0.2.1:7471")
        #expect(error.description.hasPrefix("cannot connect to 192.0.2.1:7471: "))
        #expect(!error.description.contains("\n"))
    }

    @Test("reject reasons have the numbers of the specification; unknown numbers are preserved")
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
        #expect(ConnectionEventType(rawValue: 8) == .rejected)
        #expect(ConnectionEventType(rawValue: 15).description == "TIMEWAIT_EXIT")
        #expect(ConnectionEventType(rawValue: 16).description == "unknown (16)")
        #expect(PortSpace(rawValue: 7).description == "unknown (7)")
    }

    @Test("the advice names the package ibverbs-providers if the host has a kernel device")
    func advice() throws {
        let hasDevice = try Device.list().contains { !$0.isSoftware }
        let text = ConnectionAdvice.noDevice()
        #expect(text.contains("apt install ibverbs-providers") == hasDevice, "\(text)")
        #expect(!text.contains("\n"))
    }

    @Test("rdma_conn_param has the given values; nil is the maximum (255) of responder_resources")
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
