import TestSupport
import Testing
import WireSupport

@testable import CMProtocol

@Suite("Wireshark reads written messages", .enabled(if: Tshark.path != nil, "tshark is not installed"))
struct WiresharkTests {
    /// A MAD in a UD SEND Only to queue pair 1, in UDP and IPv4; no checksum is filled in.
    private static func packet(_ message: CMMessage) -> [UInt8] {
        let transport: [UInt8] =
            [0x64, 0, 0xFF, 0xFF, 0, 0, 0, 1, 0, 0, 0, 9] + [0x80, 1, 0, 0, 0, 0, 0, 1] + message.bytes + [0, 0, 0, 0]
        let udp = transport.count + 8
        let ip: [UInt8] = [
            0x45, 0, UInt8((udp + 20) >> 8), UInt8((udp + 20) & 0xFF), 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10,
            77, 0, 2,
        ]
        return ip + [0xC0, 0, 0x12, 0xB7, UInt8(udp >> 8), UInt8(udp & 0xFF), 0, 0] + transport
    }

    private static func request(_ random: inout SplitMix) -> (CMMessage, [String: UInt64]) {
        func number(_ bits: UInt64) -> UInt64 { random.next() & (1 << bits - 1) }
        var body = ConnectRequest()
        body.localID = UInt32(number(32))
        body.serviceID = IPService.identifier(portSpace: 0x0106, port: UInt16(number(16)))
        body.localGUID = number(63)
        body.queuePairNumber = UInt32(number(24))
        body.responderResources = UInt8(number(8))
        body.initiatorDepth = UInt8(number(8))
        body.remoteResponseTimeout = UInt8(number(5))
        body.flowControl = number(1) == 1
        body.startingPSN = UInt32(number(24))
        body.localResponseTimeout = UInt8(number(5))
        body.retryCount = UInt8(number(3))
        body.partitionKey = UInt16(number(16))
        body.pathMTU = UInt8(number(4))
        body.rnrRetryCount = UInt8(number(3))
        body.maxCMRetries = UInt8(number(4))
        body.hasSharedReceiveQueue = number(1) == 1
        body.flowLabel = UInt32(number(20))
        body.packetRate = UInt8(number(6))
        body.trafficClass = UInt8(number(8))
        body.hopLimit = UInt8(number(8))
        body.serviceLevel = UInt8(number(4))
        body.localACKTimeout = UInt8(number(5))
        let addresses = IPAddresses(
            source: PortGID(low: 0xFFFF_0A4D_0001), destination: PortGID(low: 0xFFFF_0A4D_0002), sourcePort: 4660)
        body.privateData = addresses.bytes
        let transactionID = number(64 - 1)
        let fields: [String: UInt64] = [
            "mad.transactionid": transactionID, "mad.attributeid": 0x10,
            "cm.req.localqpn": UInt64(body.queuePairNumber),
            "cm.req.localcaguid": body.localGUID, "cm.req.responderres": UInt64(body.responderResources),
            "cm.req.initdepth": UInt64(body.initiatorDepth),
            "cm.req.remoteresptout": UInt64(body.remoteResponseTimeout), "cm.req.e2eflowctrl": body.flowControl ? 1 : 0,
            "cm.req.startpsn": UInt64(body.startingPSN), "cm.req.localresptout": UInt64(body.localResponseTimeout),
            "cm.req.retrcount": UInt64(body.retryCount), "cm.req.pkey": UInt64(body.partitionKey),
            "cm.req.pppmtu": UInt64(body.pathMTU), "cm.req.rnrretrcount": UInt64(body.rnrRetryCount),
            "cm.req.maxcmretr": UInt64(body.maxCMRetries), "cm.req.srq": body.hasSharedReceiveQueue ? 1 : 0,
            // Wireshark reads 12 of the 20 bits of the flow label, of the kernel's messages too, and the packet rate from
            // another byte. The kernel's bytes are compared in CodecTests.
            "cm.req.prim_tfcclass": UInt64(body.trafficClass), "cm.req.prim_hoplim": UInt64(body.hopLimit),
            "cm.req.prim_sl": UInt64(body.serviceLevel), "cm.req.prim_localacktout": UInt64(body.localACKTimeout),
            "cm.req.serviceid.dport": body.serviceID & 0xFFFF, "cm.req.ip_cm.sport": 4660,
        ]
        return (CMMessage(transactionID: transactionID, .connectRequest(body)), fields)
    }

    private static func reply(_ random: inout SplitMix) -> (CMMessage, [String: UInt64]) {
        func number(_ bits: UInt64) -> UInt64 { random.next() & (1 << bits - 1) }
        var body = ConnectReply()
        body.localID = UInt32(number(32))
        body.remoteID = UInt32(number(32))
        body.queuePairNumber = UInt32(number(24))
        body.startingPSN = UInt32(number(24))
        body.responderResources = UInt8(number(8))
        body.initiatorDepth = UInt8(number(8))
        body.targetACKDelay = UInt8(number(5))
        body.flowControl = number(1) == 1
        body.rnrRetryCount = UInt8(number(3))
        body.hasSharedReceiveQueue = number(1) == 1
        body.localGUID = number(63)
        let fields: [String: UInt64] = [
            "mad.attributeid": 0x13, "cm.rep.localqpn": UInt64(body.queuePairNumber),
            "cm.rep.remotecommid": UInt64(body.remoteID), "cm.rep.startpsn": UInt64(body.startingPSN),
            "cm.rep.respres": UInt64(body.responderResources), "cm.rep.initdepth": UInt64(body.initiatorDepth),
            "cm.rep.tgtackdelay": UInt64(body.targetACKDelay), "cm.rep.e2eflowctrl": body.flowControl ? 1 : 0,
            "cm.rep.rnrretrcount": UInt64(body.rnrRetryCount), "cm.rep.srq": body.hasSharedReceiveQueue ? 1 : 0,
            "cm.rep.localcaguid": body.localGUID,
        ]
        return (CMMessage(transactionID: 1, .connectReply(body)), fields)
    }

    private static func ends() -> [(CMMessage, [String: UInt64])] {
        var confirmation = CMConfirmation()
        (confirmation.localID, confirmation.remoteID) = (0x1122_3344, 0x5566_7788)
        var reject = ConnectReject()
        (reject.localID, reject.remoteID) = (0x1122_3344, 0x5566_7788)
        reject.message = .reply
        reject.reason = .staleConnection
        reject.information = [1, 2, 3]
        var disconnect = DisconnectRequest()
        (disconnect.localID, disconnect.remoteID) = (0x1122_3344, 0x5566_7788)
        disconnect.remoteQueuePairNumber = 0xABCDEF
        return [
            (
                CMMessage(transactionID: 2, .readyToUse(confirmation)),
                ["cm.rtu.localcommid": 0x1122_3344, "cm.rtu.remotecommid": 0x5566_7788]
            ),
            (
                CMMessage(transactionID: 3, .connectReject(reject)),
                [
                    "cm.rej.localcommid": 0x1122_3344, "cm.rej.remotecommid": 0x5566_7788, "cm.rej.msgrej": 1,
                    "cm.rej.rejinfolen": 3, "cm.rej.reason": 10,
                ]
            ),
            (
                CMMessage(transactionID: 4, .disconnectRequest(disconnect)),
                [
                    "cm.dreq.localcommid": 0x1122_3344, "cm.dreq.remotecommid": 0x5566_7788,
                    "cm.req.remoteqpneecn": 0xABCDEF,
                ]
            ),
            (
                CMMessage(transactionID: 5, .disconnectReply(confirmation)),
                ["cm.drsp.localcommid": 0x1122_3344, "cm.drsp.remotecommid": 0x5566_7788]
            ),
        ]
    }

    @Test("tshark prints the values that were written, and reports no message as malformed")
    func dissection() throws {
        var random = SplitMix(seed: 3)
        var samples = Self.ends()
        for _ in 0..<10 { samples += [Self.request(&random), Self.reply(&random)] }
        let fields = Set(samples.flatMap { $0.1.keys }).sorted()
        let printed = try Tshark.fields(
            fields.map { "infiniband.\($0)" }, of: PCAP.file(samples.map { Self.packet($0.0) }))
        try #require(printed.count == samples.count)
        for (sample, packet) in zip(samples, printed) {
            for (field, value) in sample.1 {
                let text = packet["infiniband.\(field)"]
                #expect(
                    Tshark.number(field, text) == value, "\(field) of \(sample.0.body.attribute): \(text ?? "nothing")")
            }
            #expect(packet["_ws.malformed"] == "", "\(sample.0.body.attribute)")
        }
    }
}
