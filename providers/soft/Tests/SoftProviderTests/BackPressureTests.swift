import CIBVerbs
import CLinux
import Foundation
import RoCETransport
import RoCEWire
import SoftTestSupport
import Testing

@testable import SoftProvider

extension Soft {
    /// A process of this host that makes no room in its packet ring is like a receiver without credits: what is sent to it
    /// waits, and everything else goes on.
    @Suite("Back pressure between processes of one host", .serialized)
    struct BackPressureTests {
        /// A device and a process that it is connected to.
        private final class Connection {
            let device: OpenDevice
            let server: PeerProcess
            let client: Endpoint
            let peer: Address

            init(_ type: String, _ options: Endpoint.Options = Endpoint.Options()) throws {
                var options = options
                options.type = type == "uc" ? IBV_QPT_UC : type == "ud" ? IBV_QPT_UD : IBV_QPT_RC
                device = try OpenDevice()
                server = try PeerProcess("server", ["type=\(type)"])
                client = try Endpoint(device, options)
                let line = try #require(server.line())
                peer = try JSONDecoder().decode(Address.self, from: Data(line.utf8))
                server.writeLine(String(decoding: try JSONEncoder().encode(client.address), as: UTF8.self))
                try client.connect(to: peer)
                _ = try #require(server.line())
                server.writeLine("\"ready\"")
            }

            deinit { kill(server.identifier, SIGCONT) }

            /// Stops the process, and waits until it has stopped.
            func stop() throws {
                kill(server.identifier, SIGSTOP)
                try wait {
                    let text = try String(contentsOfFile: "/proc/\(server.identifier)/stat", encoding: .utf8)
                    return text.split(separator: ")").last?.hasPrefix(" T") ?? false
                }
            }

            /// Lets it go on, and waits until it has made room.
            func resume() throws {
                kill(server.identifier, SIGCONT)
                try wait { guarded { $0.guarded.pointee.peers.fullCount } == 0 }
            }

            private func wait(until condition: () throws -> Bool) throws {
                let end = ContinuousClock.now + .seconds(300)
                while try !condition() {
                    guard ContinuousClock.now < end else { throw Timeout() }
                    usleep(1000)
                }
            }

            /// Sends a message, and receives the answer.
            func exchange(byteCount: Int) throws {
                try client.postReceive([client.sge(0, 256)])
                try client.post(IBV_WR_SEND, id: 1000, [client.sge(256, byteCount)])
                for completion in try client.completions(2) { #expect(completion.status == IBV_WC_SUCCESS) }
            }

            /// Writes 64 KiB of the peer's upper half of memory from the same place here, in request `index` of 8.
            func write(_ index: Int, id: UInt64 = 0) throws {
                let offset = Endpoint.memorySize / 2 + index * 65536
                try client.post(IBV_WR_RDMA_WRITE, id: id, [client.sge(offset, 65536)]) { request in
                    request.wr.rdma.remote_addr = peer.memory + UInt64(offset)
                    request.wr.rdma.rkey = peer.key
                }
            }

            /// Reads the guarded state under the lock.
            func guarded<Value>(_ body: (ContextPointer) -> Value) -> Value {
                let context = device.context.soft
                context.lockForControl()
                defer { context.unlock() }
                return body(context)
            }

            var dropped: UInt64 { guarded { $0.pointee.counters.pointee.ringFull } }
            var slot: Int { Int(peer.queuePair >> 16) }

            /// Polls until the peer has had no room for so long that it is late, and returns the number of completions.
            func pollUntilLate() throws -> Int {
                let end = ContinuousClock.now + .seconds(300)
                var completions = 0
                while !guarded({ $0.guarded.pointee.peers.isLate(slot) }) {
                    guard ContinuousClock.now < end else { throw Timeout() }
                    var wc = ibv_wc()
                    if device.context.pointee.ops.poll_cq(client.queue, 1, &wc) == 1 {
                        #expect(wc.status == IBV_WC_SUCCESS)
                        completions += 1
                    }
                }
                return completions
            }

            /// Other queue pairs of the device exchange messages.
            func exchangeElsewhere() throws {
                let (a, b) = try pair(on: device, and: OpenDevice())
                for round in 0..<20 {
                    try b.postReceive([b.sge(0, 100_000)])
                    a.fill(0, 100_000, seed: UInt8(round))
                    try a.post(IBV_WR_SEND, [a.sge(0, 100_000)])
                    try a.success()
                    try b.success()
                    #expect(a.bytes(0, 100_000) == b.bytes(0, 100_000))
                }
            }
        }

        @Test("UC loses nothing to a process that is stopped, and other connections go on")
        func unreliableConnection() throws {
            let test = try Connection("uc")
            try test.stop()
            test.client.fill(Endpoint.memorySize / 2, Endpoint.memorySize / 2, seed: 1)
            // As much as the ring holds, and as much again: one loss in the second half leaves other bytes.
            for index in 0..<8 { try test.write(index) }
            let early = try test.pollUntilLate()
            #expect(early < 8)
            for index in 0..<8 { try test.write(index) }
            try test.exchangeElsewhere()
            #expect(test.dropped == 0)
            try test.resume()
            _ = try test.client.completions(16 - early)
            try test.exchange(byteCount: 2)
            let sum = test.client.memory.load(as: UInt64.self)
            #expect(sum == test.client.upperHalfSum && test.dropped == 0)
            try test.exchange(byteCount: 1 + 8)
        }

        @Test("UC loses no packet of a 65th pair of addresses")
        func manyAddresses() throws {
            let test = try Connection("uc")
            try test.stop()
            // Packets of other addresses, which the process does not take, fill the ring's table of address pairs.
            let written = test.guarded { context in
                let (slot, own) = (test.slot, context.pointee.slot.number)
                let peer = context.guarded.pointee.peers.peer(
                    slot, own: own, &context.guarded.pointee.senders, now: linux_monotonic_ns())
                let packet = UnsafeMutableRawPointer.allocate(byteCount: PacketRing.firstLine, alignment: 8)
                defer { packet.deallocate() }
                packet.initializeMemory(as: UInt8.self, repeating: 0, count: PacketRing.firstLine)
                return (1...PacketRing.pairCount).count { number in
                    let envelope = PacketEnvelope(
                        source: GID(ipv4: UInt32(number)), destination: GID(ipv4: 9), trafficClass: 0, hopLimit: 1,
                        flowLabel: 0)
                    return peer?.pointee.writer?.write(packet, byteCount: 20, envelope) == .written
                }
            }
            #expect(written == PacketRing.pairCount)
            test.client.fill(Endpoint.memorySize / 2, Endpoint.memorySize / 2, seed: 7)
            for index in 0..<8 { try test.write(index) }
            let early = try test.pollUntilLate()
            #expect(early < 8 && test.dropped == 0)
            try test.resume()
            _ = try test.client.completions(8 - early)
            try test.exchange(byteCount: 2)
            #expect(test.client.memory.load(as: UInt64.self) == test.client.upperHalfSum && test.dropped == 0)
        }

        @Test("No datagram to a process that is late overtakes the packet of a 65th pair of addresses")
        func overtaking() throws {
            let test = try Connection("ud")
            var attr = test.client.ahAttr(to: test.peer)
            let handle = try created(test.device.table.create_ah(test.client.domain, &attr))
            defer { _ = test.device.table.destroy_ah(handle) }
            func send() throws {
                try test.client.post(IBV_WR_SEND, [test.client.sge(0, 8)]) { $0.setDestination(test.peer, handle) }
                _ = try test.client.completions()
            }
            try test.stop()
            // The addresses of the queue pair are in the table.
            try send()
            let empty = UnsafeMutableRawPointer.allocate(byteCount: Engine.packetRoom, alignment: 8)
            defer { empty.deallocate() }
            empty.initializeMemory(as: UInt8.self, repeating: 0, count: Engine.packetRoom)
            test.guarded { context in
                guard let peer = context.guarded.pointee.peers.openPeer(test.slot) else { return }
                let envelope = PacketEnvelope(
                    source: GID(ipv4: 1), destination: GID(ipv4: 9), trafficClass: 0, hopLimit: 1, flowLabel: 0)
                context.guarded.pointee.peers.noteFull(test.slot, peer, now: linux_monotonic_ns())
                context.pointee.engine.suspend(receiver: UInt32(test.slot))
                context.guarded.pointee.peers.hold(test.slot, peer, empty, byteCount: 20, envelope)
            }
            _ = try test.pollUntilLate()
            #expect(test.dropped == 0)
            try send()
            #expect(test.dropped == 1)
            try test.resume()
            let isHeld = test.guarded { $0.guarded.pointee.peers.openPeer(test.slot)?.pointee.holds }
            #expect(isHeld == false)
        }

        @Test("RC to a process that is stopped ends with its retries, and other connections go on")
        func reliableConnection() throws {
            var options = Endpoint.Options()
            // 4.096 µs × 2^16: 268 ms each.
            options.timeout = 16
            options.retries = 2
            let test = try Connection("rc", options)
            try test.exchange(byteCount: 8)
            try test.stop()
            let (a, b) = try pair(on: test.device, and: OpenDevice())
            // Memory without a direct way: WRITE with immediate data is packets.
            for index in 0..<16 {
                let offset = Endpoint.memorySize / 2 + index % 8 * 65536
                try test.client.post(IBV_WR_RDMA_WRITE_WITH_IMM, [test.client.sge(offset, 65536)]) { request in
                    request.wr.rdma.remote_addr = test.peer.memory + UInt64(offset)
                    request.wr.rdma.rkey = test.peer.key
                }
            }
            #expect(try test.client.completions()[0].status == IBV_WC_RETRY_EXC_ERR)
            let rest = try test.client.completions(15)
            #expect(rest.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR })
            try b.postReceive([b.sge(0, 8)])
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            try a.success()
            try b.success()
            try test.resume()
        }

        @Test("A datagram to a process that is stopped is dropped, and the next one of its queue pair is sent")
        func datagrams() throws {
            let test = try Connection("ud")
            var attr = test.client.ahAttr(to: test.peer)
            let handle = try created(test.device.table.create_ah(test.client.domain, &attr))
            defer { _ = test.device.table.destroy_ah(handle) }
            func send(_ endpoint: Address, byteCount: Int = 4096) throws {
                try test.client.post(IBV_WR_SEND, [test.client.sge(0, byteCount)]) {
                    $0.setDestination(endpoint, handle)
                }
            }
            try test.stop()
            // More than the ring holds: they wait at first, and are dropped when the process is late.
            for _ in 0..<256 {
                try send(test.peer)
                _ = try test.client.completions()
            }
            #expect(test.dropped > 0)
            let other = try Endpoint(OpenDevice(), test.client.options)
            try other.connect(to: test.peer)
            try other.postReceive([other.sge(0, 40 + 4096)])
            try send(other.address)
            _ = try test.client.completions()
            #expect(try other.completions()[0].status == IBV_WC_SUCCESS)
            try test.resume()
            // It answers a datagram that fits into its receive.
            try test.client.postReceive([test.client.sge(0, 40 + 64)])
            try send(test.peer, byteCount: 8)
            for completion in try test.client.completions(2) { #expect(completion.status == IBV_WC_SUCCESS) }
        }

        @Test("Queue pairs and devices are destroyed while their packets wait for a process that is stopped")
        func destruction() throws {
            for _ in 0..<3 {
                let test = try Connection("uc")
                try test.stop()
                for index in 0..<16 { try test.write(index % 8) }
                #expect(try test.pollUntilLate() < 16)
                let isFull = test.guarded { $0.guarded.pointee.peers.isFull(test.slot) }
                #expect(isFull)
                test.server.kill()
            }
        }

        @Test("A process that is killed while packets wait for it is not waited for")
        func killed() throws {
            let test = try Connection("uc")
            try test.stop()
            for index in 0..<16 { try test.write(index % 8) }
            let early = try test.pollUntilLate()
            test.server.kill()
            // As in a network, the packets of a connection whose receiver is gone are sent, and reach nobody.
            for completion in try test.client.completions(16 - early) { #expect(completion.status == IBV_WC_SUCCESS) }
            try test.exchangeElsewhere()
        }
    }
}
