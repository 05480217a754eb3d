import Foundation
import TestSupport
import Testing
import Verbs

@Suite("The code of the manual compiles and runs")
struct ManualTests {
    @Test("getting started")
    func gettingStarted() throws {
        let device = try Bench.open("soft0")
        do {
            let context = device
            let domain = try context.makeProtectionDomain()
            let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite, .remoteRead])
            try region.copyBytes(from: Array("hello".utf8).span.bytes)

            var completions = try context.makeCompletionQueue(capacity: 128)
            var pair = try domain.makeQueuePair(.reliableConnection, completions: completions)

            let endpoint = try pair.endpoint(memory: region.remote)
            let peer = try #require(Endpoint(endpoint.description))
            try pair.connect(to: peer)

            try pair.postReceive(try region.sge(1024..<2048), id: 1)
            try pair.postSend(.send, try region.sge(0..<5), id: 2)
            for _ in 0..<2 {
                let completion = try completions.poll(timeout: .seconds(5))
                try completion.check()
                if completion.opcode == .receive { print("received \(completion.byteCount) bytes") }
            }

            let remote = try #require(peer.memory)
            try pair.postSend(.write(to: remote.subrange(2048...)), try region.sge(0..<5), id: 3)
            try completions.poll(timeout: .seconds(5)).check()
            for offset in [1024, 2048] {
                #expect(try region.copyBytes(offset..<offset + 5) == Array("hello".utf8))
            }
        }
    }

    /// The first step of the article, on the devices of this host.
    @Test("every host has a device with an active port")
    func first() throws {
        let context = try Device.openFirst()
        #expect(try context.firstActivePort() != nil)
    }

    @Test("completions and events in tasks")
    func asynchronous() async throws {
        let context = try Bench.open("soft0")
        let domain = try context.makeProtectionDomain()
        let region = try domain.makeMemoryRegion(byteCount: 4096, access: [.localWrite, .remoteWrite])
        let channel = try context.makeCompletionChannel()
        let queue = try context.makeCompletionQueue(capacity: 128, channel: channel)
        var pair = try domain.makeQueuePair(.reliableConnection, completions: queue)
        let batches = try queue.batches(of: 16)
        try pair.connect(to: try pair.endpoint())

        let watcher = Task {
            for try await event in context.events { print(event) }
        }
        for _ in 0..<3 { try pair.postSend(.write(to: region.remote), try region.sge(0..<8)) }
        var left = 3
        for try await batch in batches {
            for completion in batch { try completion.check() }
            left -= batch.count
            if left == 0 { break }
        }
        #expect(left == 0)
        watcher.cancel()
        try await watcher.value
    }

    @Test("every block of code in the manual is in this file", arguments: ["GettingStarted", "Asynchronous"])
    func blocks(article: String) throws {
        let root = Compiler.packageRoot
        let text = try String(contentsOfFile: "\(root)/Sources/Verbs/Verbs.docc/\(article).md", encoding: .utf8)
        let code = try lines(String(contentsOfFile: #filePath, encoding: .utf8)).joined(separator: "\n")
        let blocks = text.components(separatedBy: "```swift\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
        #expect(!blocks.isEmpty)
        for block in blocks {
            let block = lines(block).joined(separator: "\n")
            #expect(code.contains(block), "\(block)")
        }
    }

    /// Lines without their indentation, and without empty ones.
    private func lines(_ text: String) -> [String] {
        text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
    }
}
