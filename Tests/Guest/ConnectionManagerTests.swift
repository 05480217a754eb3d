import ConnectionManager
import Foundation
import Testing
import Verbs

private let address = ConnectionAddress("10.9.0.1:7471")!

/// Connects two parties over rxe0, one of which listens.
private func connectPair(
    to address: ConnectionAddress = address, request: [UInt8] = [], answer: [UInt8] = [],
    parameters: ConnectionParameters = .init()
) async throws -> (left: (Party, Connection), right: (Party, Connection), request: ConnectionRequest) {
    let listener = try Listener(port: address.port)
    let connector = try await Connector.resolve(address)
    let left = try Party(on: connector.openDevice())
    try left.prepare(for: connector)
    try left.receive(0..<4096, count: 4)
    async let active = left.connect(connector, parameters: parameters, privateData: request)
    let incoming = try #require(try await listener.next())
    let right = try Party(on: incoming.openDevice())
    try right.prepare(for: incoming)
    try right.receive(0..<4096, count: 4)
    let passive = try await right.accept(incoming, privateData: answer)
    return ((left, try await active), (right, passive), incoming)
}

extension Guest {
    @Suite("rdma_cm over the kernel's rxe")
    struct ConnectionManagerTests {
        @Test("two sides connect over IPv4 and IPv6, exchange private data of every length, and move data")
        func connects() async throws {
            try await Bench.run { _ in
                await #expect(processExitsWith: .success) {
                    try await ConnectionBench.run {
                        for address in ["10.9.0.1:7471", "[fd09::1]:7471"].compactMap(ConnectionAddress.init) {
                            for (asked, answered) in [(0, 0), (1, 1), (56, 196)] {
                                let request = (0..<asked).map { UInt8($0 + 1) }
                                let answer = (0..<answered).map { UInt8(255 - $0) }
                                let (left, right, incoming) = try await connectPair(
                                    to: address, request: request, answer: answer)
                                #expect(incoming.privateData.isPadded(request))
                                #expect(left.1.privateData.isPadded(answer))
                                #expect(incoming.peerAddress?.host == address.host && left.1.isConnected)
                                try left.0.write(Array("to the right".utf8), at: 8192)
                                try left.0.pair.post(.send, left.0.memory.slice(8192..<8205))
                                try left.0.completion()
                                #expect(try right.0.completion().opcode == .receive)
                                #expect(try right.0.text(0..<64) == "to the right")
                                let limit = try left.0.pair.query()
                                #expect(limit.minRNRTimer == 12 && limit.state == .readyToSend)
                                try await left.1.disconnect()
                                try await right.1.waitUntilDisconnected(timeout: .seconds(20))
                                #expect(right.0.pair.lastKnownState == .error)
                            }
                        }
                    }
                }
            }
        }
    }
}
