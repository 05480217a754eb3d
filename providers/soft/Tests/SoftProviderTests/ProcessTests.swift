import CIBVerbs
import Foundation
import SoftTestSupport
import Testing

extension Soft {
    @Suite("Several processes on one host")
    struct ProcessTests {
        @Test("Two processes execute every operation", arguments: ["rc", "uc", "ud"], ["0", "1"])
        func operations(type: String, gid: String) throws {
            let (server, client) = try connectedProcesses(["type=\(type)", "gid=\(gid)", "count=200", "size=1000"])
            #expect(client.line() != nil)
            #expect(client.status() == 0)
            #expect(server.status() == 0)
        }

        // RC only: UC and UD do not recover lost packets.
        @Test("Two processes execute every operation over UDP", arguments: ["0", "1"])
        func datagrams(gid: String) throws {
            let (server, client) = try connectedProcesses(
                ["type=rc", "gid=\(gid)", "count=100", "size=1000", "timeout=18"], environment: ["RDMA_SOFT_SHM": "0"])
            #expect(client.line() != nil)
            #expect(client.status() == 0)
            #expect(server.status() == 0)
        }

        @Test("Eight processes use one address at the same time")
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

        @Test("After SIGKILL of the peer process, a SEND completes with RETRY_EXC_ERR")
        func killed() throws {
            let server = try PeerProcess("server", [])
            var options = Endpoint.Options()
            options.timeout = Self.shortTimeout
            options.retries = 1
            let client = try Endpoint(OpenDevice(), options)
            try connect(client, server)
            // The peer echoes a message.
            try client.postReceive([client.sge(0, 64)])
            try client.post(IBV_WR_SEND, [client.sge(64, 8)])
            _ = try client.completions(2)
            server.kill()
            try client.post(IBV_WR_SEND, id: 1, [client.sge(64, 8)])
            #expect(try client.completions()[0].status == IBV_WC_RETRY_EXC_ERR)
        }

        @Test("A peer's access to memory of another process is what ibv_rereg_mr made it, with the same R_Key")
        func reregisters() throws {
            let server = try PeerProcess("server", [])
            let client = try Endpoint(OpenDevice())
            let peer = try connect(client, server)
            func change(_ access: ibv_access_flags...) throws {
                let bits = UInt8(access.reduce(0) { $0 | $1.rawValue })
                client.memory.storeBytes(of: bits, toByteOffset: 64, as: UInt8.self)
                try client.postReceive([client.sge(0, 64)])
                try client.post(IBV_WR_SEND, [client.sge(64, 3)])
                for completion in try client.completions(2) { #expect(completion.status == IBV_WC_SUCCESS) }
                #expect(client.memory.load(as: UInt32.self) == peer.key)
            }
            func request(_ opcode: ibv_wr_opcode) throws -> ibv_wc_status {
                try client.post(opcode, [client.sge(128, 8)]) { request in
                    request.wr.rdma.remote_addr = peer.memory + (1 << 19)
                    request.wr.rdma.rkey = peer.key
                }
                return try client.completions()[0].status
            }
            // The first requests are packets, until the processes know each other.
            func requestUntilDirect(_ opcode: ibv_wr_opcode) throws {
                let before = client.device.counters.directRequests
                for _ in 0..<10_000 where client.device.counters.directRequests == before {
                    #expect(try request(opcode) == IBV_WC_SUCCESS)
                }
                #expect(client.device.counters.directRequests > before)
            }
            try requestUntilDirect(IBV_WR_RDMA_WRITE)
            try change(IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_READ)
            try requestUntilDirect(IBV_WR_RDMA_READ)
            try change(IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_WRITE)
            try requestUntilDirect(IBV_WR_RDMA_WRITE)
            try change(IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_READ)
            #expect(try request(IBV_WR_RDMA_WRITE) == IBV_WC_REM_ACCESS_ERR)
        }

        @Test("A slot whose process was killed is free again, and the next process receives none of its packets")
        func successor() throws {
            var options = Endpoint.Options()
            options.timeout = Self.shortTimeout
            options.retries = 1
            let device = try OpenDevice()
            for _ in 0..<3 {
                let server = try PeerProcess("server", [])
                let client = try Endpoint(device, options)
                try connect(client, server)
                try client.postReceive([client.sge(0, 64)])
                try client.post(IBV_WR_SEND, [client.sge(64, 8)])
                _ = try client.completions(2)
                server.kill()
            }
            let (first, second) = (try OpenDevice(), try OpenDevice())
            let (a, b) = try pair(on: first, and: second)
            try b.postReceive([b.sge(0, 64)])
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            try a.success()
            try b.success()
        }

        /// 4.096 µs × 2^17, about half a second: a peer on a busy machine responds in time, and a killed one is soon given
        /// up.
        private static let shortTimeout: UInt8 = 17

        @discardableResult
        private func connect(_ endpoint: Endpoint, _ process: PeerProcess) throws -> Address {
            let line = try #require(process.line())
            let address = try JSONDecoder().decode(Address.self, from: Data(line.utf8))
            let own = try JSONEncoder().encode(endpoint.address)
            process.writeLine(String(decoding: own, as: UTF8.self))
            try endpoint.connect(to: address)
            _ = try #require(process.line())
            process.writeLine("\"ready\"")
            return address
        }
    }
}
