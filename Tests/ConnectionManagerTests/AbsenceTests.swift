import Foundation
import SystemPackage
import Testing
import Verbs

@testable import ConnectionManager

/// Suites that create event channels, serialized, because the fake librdmacm replaces it for the whole process.
@Suite(.serialized)
enum ChannelTests {}

extension ChannelTests {
    @Suite(
        "A kernel without rdma_cm", .enabled(if: !FileManager.default.fileExists(atPath: "/dev/infiniband/rdma_cm"))
    )
    struct AbsenceTests {
        private func expectMessage(_ error: ConnectionError?) {
            guard let error else {
                Issue.record("no error was thrown")
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

        @Test("EventChannel, Listener and Connector fail with a one-line message and a hint")
        func everyEntry() async {
            for _ in 0..<3 {
                expectMessage(#expect(throws: ConnectionError.self) { _ = try EventChannel() })
                expectMessage(#expect(throws: ConnectionError.self) { _ = try Listener(port: 7471) })
                let address = ConnectionAddress("127.0.0.1:7471")!
                expectMessage(
                    await #expect(throws: ConnectionError.self) { _ = try await Connector.resolve(address) })
                expectMessage(
                    await #expect(throws: ConnectionError.self) {
                        _ = try await Connector.resolve("127.0.0.1", port: 7471, portSpace: .udp)
                    })
            }
        }
    }
}
