import TestSupport
import Testing

@testable import CMProtocol

@Suite("Messages of the connection manager")
struct CodecTests {
    private static let client = PortGID(low: 0xFFFF_0A4D_0001)
    private static let server = PortGID(low: 0xFFFF_0A4D_0002)

    @Test("What the kernel sent is read, and written again byte for byte", arguments: 0..<Captured.all.count)
    func captured(_ index: Int) throws {
        let message = try CMMessage(parsing: Captured.all[index])
        #expect(message.bytes == Captured.all[index])
    }

    @Test("The fields of the kernel's REQ")
    func request() throws {
        guard case .connectRequest(let request) = try CMMessage(parsing: Captured.request).body else {
            Issue.record("not a REQ")
            return
        }
        #expect(request.localID == 0x0419_C683)
        #expect(request.serviceID == IPService.identifier(portSpace: 0x0106, port: 7174))
        #expect(request.localGUID == 0x5054_00FF_FE77_0001)
        #expect(request.queuePairNumber == 0x22)
        #expect(request.responderResources == 1 && request.initiatorDepth == 1)
        #expect(request.remoteResponseTimeout == 20 && request.localResponseTimeout == 20)
        #expect(request.startingPSN == 0x6C074C)
        #expect(request.retryCount == 7 && request.rnrRetryCount == 7 && request.maxCMRetries == 15)
        #expect(request.pathMTU == 3 && request.partitionKey == 0xFFFF)
        #expect(request.localGID == Self.client && request.remoteGID == Self.server)
        #expect(request.flowLabel == 0x88229 && request.hopLimit == 64 && request.localACKTimeout == 19)
        let addresses = IPAddresses(source: Self.client, destination: Self.server, sourcePort: 0xC97D)
        #expect(IPAddresses(parsing: request.privateData) == addresses)
        #expect(addresses.bytes == Array(request.privateData.prefix(36)))
    }

    @Test("The fields of the kernel's REP and SIDR_REP")
    func replies() throws {
        guard case .connectReply(let reply) = try CMMessage(parsing: Captured.reply).body,
            case .serviceReply(let service) = try CMMessage(parsing: Captured.serviceReply).body
        else {
            Issue.record("not a REP and a SIDR_REP")
            return
        }
        #expect(reply.localID == 0xE5D1_FD60 && reply.remoteID == 0x0419_C683 && reply.queuePairNumber == 0x22)
        #expect(reply.startingPSN == 0xB74046 && reply.targetACKDelay == 15 && reply.rnrRetryCount == 7)
        #expect(reply.localGUID == 0x5054_00FF_FE77_0002)
        #expect(service.status == .valid && service.queuePairNumber == 0x23 && service.queueKey == 0x0123_4567)
        #expect(service.serviceID == IPService.identifier(portSpace: 0x0111, port: 7174))
    }

    @Test("Bytes that are no message are refused with the reason")
    func refusals() {
        func error(_ change: (inout [UInt8]) -> Void) -> CMMessageError? {
            var bytes = Captured.request
            change(&bytes)
            return #expect(throws: CMMessageError.self) { _ = try CMMessage(parsing: bytes) }
        }
        #expect(error { $0.removeLast() } == .byteCount(255))
        #expect(error { $0 = [] } == .byteCount(0))
        #expect(error { $0[0] = 2 } == .notCommunicationManagement(baseVersion: 2, managementClass: 7))
        #expect(error { $0[1] = 3 } == .notCommunicationManagement(baseVersion: 1, managementClass: 3))
        #expect(error { $0[2] = 1 } == .classVersion(1))
        #expect(error { $0[3] = 0x81 } == .method(0x81, status: 0))
        #expect(error { $0[5] = 4 } == .method(3, status: 4))
        #expect(error { $0[17] = 0x1B } == .unknownAttribute(0x1B))
        #expect("\(CMMessageError.byteCount(12))" == "a MAD has 256 bytes, not 12")
    }

    @Test("Reading what was written gives the same message, for bytes of any value")
    func roundTrip() throws {
        var random = SplitMix(seed: 11)
        for attribute in CMAttribute.allCases {
            for _ in 0..<200 {
                var bytes = (0..<256).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                bytes.replaceSubrange(0..<6, with: [1, 7, 2, 3, 0, 0])
                bytes.replaceSubrange(16..<18, with: [0, UInt8(attribute.rawValue)])
                let message = try CMMessage(parsing: bytes)
                #expect(message.body.attribute == attribute)
                #expect(try CMMessage(parsing: message.bytes) == message)
            }
        }
    }

    @Test("Private data that is too long is cut, and shorter data is padded")
    func privateData() throws {
        var reject = ConnectReject()
        reject.privateData = Array(repeating: 7, count: 200)
        reject.information = Array(repeating: 9, count: 100)
        guard
            case .connectReject(let read) = try CMMessage(
                parsing: CMMessage(transactionID: 1, .connectReject(reject)).bytes
            ).body
        else {
            Issue.record("not a REJ")
            return
        }
        #expect(read.privateData == Array(repeating: 7, count: 148))
        #expect(read.information == Array(repeating: 9, count: 72))
    }

    @Test("Addresses of both families; other versions are refused")
    func addresses() {
        let six = IPAddresses(
            source: PortGID(high: 0xFD77 << 48, low: 1), destination: PortGID(high: 0xFD77 << 48, low: 2), sourcePort: 9
        )
        #expect(IPAddresses(parsing: six.bytes) == six)
        var bytes = six.bytes
        bytes[1] = 0x50
        #expect(IPAddresses(parsing: bytes) == nil)
        bytes = six.bytes
        bytes[0] = 1
        #expect(IPAddresses(parsing: bytes) == nil)
        #expect(IPAddresses(parsing: Array(six.bytes.prefix(35))) == nil)
    }
}
