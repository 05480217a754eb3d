import CIBVerbs
import Foundation
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Several processes on one host")
    struct ProcessTests {
        @Test("Two processes carry out every operation", arguments: ["rc", "uc", "ud"], ["0", "1"])
        func operations(type: String, gid: String) throws {
            let (server, client) = try connectedProcesses(["type=\(type)", "gid=\(gid)", "count=200", "size=1000"])
            #expect(client.line() != nil)
            #expect(client.status() == 0)
            #expect(server.status() == 0)
        }

        // Only RC: of what others lose, nothing else knows.
        @Test("Two processes over UDP carry out every operation", arguments: ["0", "1"])
        func datagrams(gid: String) throws {
            let (server, client) = try connectedProcesses(
                ["type=rc", "gid=\(gid)", "count=100", "size=1000", "timeout=18"], environment: ["RDMA_SOFT_SHM": "0"])
            #expect(client.line() != nil)
            #expect(client.status() == 0)
            #expect(server.status() == 0)
        }

        @Test("Eight processes at once on one address")
        func eight() throws {
            let pairs = try (0..<4).map { index in
                try connectedProcesses(["type=\(["rc", "uc", "ud", "rc"][index])", "count=200", "size=500"])
            }
            for (server, client) in pairs {
                #expect(client.line() != nil)
                #expect(client.status() == 0)
                #expect(server.status() == 0)
            }
        }

        @Test("kill -9 leaves the other side with RETRY_EXC_ERR")
        func killed() throws {
            let server = try PeerProcess("server", ["timeout=10"])
            var options = Endpoint.Options()
            options.timeout = 10
            options.retries = 3
            let client = try Endpoint(OpenDevice(), options)
            try connect(client, server)
            // It echoes, so it was alive.
            try client.postReceive([client.piece(0, 64)])
            try client.post(IBV_WR_SEND, [client.piece(64, 8)])
            _ = try client.completions(2)
            server.kill()
            try client.post(IBV_WR_SEND, id: 1, [client.piece(64, 8)])
            #expect(try client.completions()[0].status == IBV_WC_RETRY_EXC_ERR)
        }

        @Test("A slot whose holder was killed is free again, and its successor gets nothing of what was meant for it")
        func successor() throws {
            var options = Endpoint.Options()
            options.timeout = 10
            options.retries = 1
            let device = try OpenDevice()
            for _ in 0..<3 {
                let server = try PeerProcess("server", ["timeout=10"])
                let client = try Endpoint(device, options)
                try connect(client, server)
                try client.postReceive([client.piece(0, 64)])
                try client.post(IBV_WR_SEND, [client.piece(64, 8)])
                _ = try client.completions(2)
                server.kill()
            }
            let (first, second) = (try OpenDevice(), try OpenDevice())
            let (a, b) = try pair(on: first, and: second)
            try b.postReceive([b.piece(0, 64)])
            try a.post(IBV_WR_SEND, [a.piece(0, 8)])
            try a.success()
            try b.success()
        }

        private func connect(_ endpoint: Endpoint, _ process: PeerProcess) throws {
            let line = try #require(process.line())
            let address = try JSONDecoder().decode(Address.self, from: Data(line.utf8))
            let own = try JSONEncoder().encode(endpoint.address)
            process.say(String(decoding: own, as: UTF8.self))
            try endpoint.connect(to: address)
            _ = try #require(process.line())
            process.say("\"ready\"")
        }
    }
}
