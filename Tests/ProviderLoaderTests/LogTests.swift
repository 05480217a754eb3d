import CProviderABI
import Foundation
import Locking
import TestSupport
import Testing

@testable import ProviderLoader

@Suite("Messages of providers")
struct LogTests {
    @Test("A provider's message reaches the handler as one line, and a warning is kept for the survey")
    func message() throws {
        let bench = try Workbench()
        try bench.mlx5()
        let marker = UUID().uuidString
        try bench.driver("mlx5", "driver mlx5\n")
        try bench.library("mlx5.so", ["name": "mlx5", "logs": "\(marker) \u{1b}[31m red"])
        let seen = Locked<[LogMessage]>([])
        let handler: @Sendable (LogMessage) -> Void = { message in
            if message.text.contains(marker) { seen.withLock { $0.append(message) } }
        }
        bench.configuration.logHandler = handler
        let survey = bench.loader.survey()
        let expected = LogMessage(level: .warning, provider: "logger", text: "\(marker)  [31m red")
        #expect(seen.withLock { $0 } == [expected])
        #expect(survey.messages.filter { $0.text.contains(marker) } == [expected])
    }

    @Test("A message below a warning reaches the handler but is not kept; an unknown level is preserved")
    func levels() throws {
        let log = ProcessLog()
        let seen = Locked<[UInt32]>([])
        let owner = Workbench.Token()
        log.add(ObjectIdentifier(owner)) { message in seen.withLock { $0.append(message.level.rawValue) } }
        for level in [0, 1, 2, 3, 77] as [UInt32] {
            log.record(LogMessage(level: .init(rawValue: level), provider: "p", text: "t"))
        }
        #expect(log.kept.map(\.level) == [.error, .warning])
        #expect(seen.withLock { $0 } == [0, 1, 2, 3, 77])
        log.remove(ObjectIdentifier(owner))
        log.record(LogMessage(level: .error, provider: "p", text: "t"))
        #expect(seen.withLock { $0.count } == 5)
        #expect(LogMessage.Level(rawValue: 77).name == "77" && LogMessage.Level.debug.name == "debug")
    }

    @Test("A message that is repeated is kept once, as the latest")
    func repeated() {
        let log = ProcessLog()
        for text in ["first", "second", "first", "third", "first"] {
            log.record(LogMessage(level: .warning, provider: "p", text: text))
        }
        #expect(log.kept.map(\.text) == ["second", "third", "first"])
    }

    @Test("Only the latest messages are kept")
    func bounded() {
        let log = ProcessLog()
        for number in 0..<(ProcessLog.capacity + 10) {
            log.record(LogMessage(level: .error, provider: "p", text: "\(number)"))
        }
        #expect(log.kept.count == ProcessLog.capacity)
        #expect(log.kept.first?.text == "10")
    }

    @Test("RDMA_LOG with an unknown level is a problem; without it nothing is printed")
    func setting() throws {
        let bench = try Workbench()
        bench.configuration.environment["RDMA_LOG"] = "loud"
        #expect(bench.loader.survey().problems.map(\.message) == ["RDMA_LOG cannot be `loud`"])
        #expect(LoaderConfiguration().logHandler == nil)
    }
}

extension Workbench {
    /// An object with an identity.
    final class Token: Sendable {}
}
