import CIBVerbs
import CLinux
import CProviderABI
import CSoftExtension
import Foundation
import Glibc
import RoCETransport
import SoftTestSupport
import Synchronization
import TestSupport
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("One-sided requests between devices of one host, without packets")
    struct DirectAccessTests {
        private func memory(_ device: OpenDevice) throws -> UnsafePointer<rdma_soft_memory> {
            let found = device.table.query_extension(device.context, "soft-memory", 1)
            return try #require(found).assumingMemoryBound(to: rdma_soft_memory.self)
        }

        /// The counters of the engine.
        private func counters(_ device: OpenDevice) -> RoCETransport.Counters {
            let context = device.context.soft
            context.lockForControl()
            defer { context.unlock() }
            return context.pointee.engine.counters
        }

        /// Two connected devices that have exchanged a message, after which they know each other's tables.
        private func acquainted(_ change: (inout Endpoint.Options) -> Void = { _ in }) throws -> (Endpoint, Endpoint) {
            var options = Endpoint.Options()
            change(&options)
            let (a, b) = try SoftTestSupport.pair(options, on: OpenDevice(), and: OpenDevice())
            for _ in 0..<10_000 where counters(a.device).directRequests == 0 { try write(a, b) }
            try #require(counters(a.device).directRequests > 0)
            return (a, b)
        }

        private func write(_ a: Endpoint, _ b: Endpoint, key: UInt32? = nil) throws {
            let target = try b.address
            try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { request in
                request.wr.rdma.remote_addr = target.memory + 64
                request.wr.rdma.rkey = key ?? target.key
            }
            try a.success()
        }

        @Test("READ, WRITE and atomics need no packet and nothing of the target, whose lock another thread may hold")
        func withoutTarget() throws {
            let (a, b) = try acquainted()
            let context = b.device.context.soft
            let packets = counters(b.device).receivedPackets
            let target = try b.address
            a.fill(0, 8, seed: 3)
            context.lockForControl()
            defer { context.unlock() }
            for opcode in [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ] {
                try a.post(opcode, [a.sge(0, 8)]) { request in
                    request.wr.rdma.remote_addr = target.memory + 64
                    request.wr.rdma.rkey = target.key
                }
                try a.success()
            }
            try a.post(IBV_WR_ATOMIC_FETCH_AND_ADD, [a.sge(8, 8)]) { request in
                request.wr.atomic.remote_addr = target.memory + 64
                request.wr.atomic.rkey = target.key
                request.wr.atomic.compare_add = 1
            }
            try a.success()
            #expect(a.bytes(8, 8) == a.bytes(0, 8))
            #expect(b.bytes(65, 7) == a.bytes(1, 7) && b.bytes(64, 1)[0] == a.bytes(0, 1)[0] &+ 1)
            #expect(context.pointee.engine.counters.receivedPackets == packets)
        }

        @Test("A long SEND is copied once, by its receiver, from any memory; with RDMA_SOFT_FAULTS, packets carry it")
        func longSends() throws {
            let (a, b) = try acquainted()
            // The receiver knows the sender's memory after a message of its own.
            for _ in 0..<10_000 where counters(b.device).directRequests == 0 { try write(b, a) }
            let before = counters(b.device)
            for round in UInt8(1)...4 {
                a.fill(0, 32_768, seed: round)
                try b.postReceive([b.sge(0, 32_768)])
                try a.post(IBV_WR_SEND, [a.sge(0, 32_768)]) { _ in }
                try a.success()
                try b.success()
                #expect(a.bytes(0, 32_768) == b.bytes(0, 32_768))
            }
            let after = counters(b.device)
            #expect(after.directRequests == before.directRequests + 4)
            #expect(after.directBytes == before.directBytes + 4 * 32_768)
            #expect(after.receivedBytes == before.receivedBytes)
        }

        @Test("After deregistration and after RESET of the target, a WRITE is a packet, which fails")
        func ended() throws {
            for resets in [false, true] {
                let (a, b) = try acquainted { options in
                    options.timeout = 17
                    options.retries = 1
                }
                let target = try b.address
                if resets {
                    try b.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RESET }
                } else {
                    let region = try created(
                        b.device.table.reg_mr(b.domain, b.memory, 128, target.memory, 7))
                    let key = region.pointee.rkey
                    try write(a, b, key: key)
                    try check(b.device.table.dereg_mr(region))
                    let direct = counters(a.device).directRequests
                    try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { request in
                        request.wr.rdma.remote_addr = target.memory
                        request.wr.rdma.rkey = key
                    }
                    #expect(try a.completions()[0].status == IBV_WC_REM_ACCESS_ERR)
                    #expect(counters(a.device).directRequests == direct)
                    continue
                }
                try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, 8)]) { request in
                    request.wr.rdma.remote_addr = target.memory
                    request.wr.rdma.rkey = target.key
                }
                #expect(try a.completions()[0].status == IBV_WC_RETRY_EXC_ERR)
            }
        }

        /// A requester that is written here: a connection to the slot of a device, and its ring.
        private func withRequester(
            of device: OpenDevice, _ body: (UnsafeMutablePointer<Atomic<UInt64>>, Int32) throws -> Void
        ) throws {
            let connection = Slot.connect(device.context.soft.pointee.slot.number)
            try #require(connection >= 0)
            defer { linux_close(connection) }
            var descriptor: Int32 = -1
            var ring: UnsafeMutableRawPointer?
            try #require(linux_make_shared_memory("ring", PacketRing.strideByteCount, &descriptor, &ring) == 0)
            defer {
                linux_close(descriptor)
                linux_unmap(ring, PacketRing.strideByteCount)
            }
            try #require(LocalMessage.send(.ring, on: connection, descriptor: descriptor) == 0)
            // The device answers with the descriptor of its table.
            var message = (UInt64(0), UInt64(0))
            var table: Int32 = -1
            while linux_local_receive(connection, &message, 16, &table) == -EAGAIN { usleep(1000) }
            #expect(table >= 0 && message.1 == 0)
            defer { linux_close(table) }
            try body(PacketRing.hazard(ring!), table)
        }

        @Test("Deregistration waits for a requester inside an access; EBUSY when it stays there, not when it ends")
        func stoppedRequester() throws {
            let device = try OpenDevice()
            let endpoint = try Endpoint(device)
            try withRequester(of: device) { hazard, _ in
                func region() throws -> UnsafeMutablePointer<ibv_mr> {
                    try created(device.table.reg_mr(endpoint.domain, endpoint.memory, 64, 0, 7))
                }
                let first = try region()
                hazard.pointee.store(UInt64(first.pointee.rkey), ordering: .sequentiallyConsistent)
                #expect(device.table.dereg_mr(first) == EBUSY)
                // Another key is not concerned.
                let second = try region()
                #expect(device.table.dereg_mr(second) == 0)
                #expect(
                    device.table.rereg_mr(
                        first, Int32(IBV_REREG_MR_CHANGE_ACCESS.rawValue), nil, nil, 0,
                        Int32(IBV_ACCESS_LOCAL_WRITE.rawValue)) == EINVAL)
                hazard.pointee.store(0, ordering: .sequentiallyConsistent)
                #expect(device.table.dereg_mr(first) == 0)
            }
            let third = try created(device.table.reg_mr(endpoint.domain, endpoint.memory, 64, 0, 7))
            try withRequester(of: device) { hazard, _ in
                hazard.pointee.store(UInt64(third.pointee.rkey), ordering: .sequentiallyConsistent)
            }
            // The requester has ended in the middle of its access.
            #expect(device.table.dereg_mr(third) == 0)
        }

        @Test("Deregistration does not wait for a requester that was killed inside an access, whose child lives on")
        func killedRequester() throws {
            let device = try OpenDevice()
            let endpoint = try Endpoint(device)
            var descriptor: Int32 = -1
            var ring: UnsafeMutableRawPointer?
            try #require(linux_make_shared_memory("ring", PacketRing.strideByteCount, &descriptor, &ring) == 0)
            defer {
                linux_close(descriptor)
                linux_unmap(ring, PacketRing.strideByteCount)
            }
            let slot = device.context.soft.pointee.slot.number
            let requester = Process()
            let (input, output) = (Pipe(), Pipe())
            requester.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            requester.arguments = [
                "python3", "-c",
                """
                import array, os, signal, socket, struct, sys
                ring = os.open("/proc/\(getpid())/fd/\(descriptor)", os.O_RDWR)
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                connection.connect("\\0swift-rdma-soft-\(geteuid())-\(slot)")
                connection.sendmsg([struct.pack("=II", \(LocalMessage.layout), \(LocalMessage.Kind.ring.rawValue))],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ring]))])
                if os.fork() == 0:
                    # Holds the connection until the test closes the pipe.
                    sys.stdin.buffer.read()
                    os._exit(0)
                # The answer: the descriptor of the table.
                connection.recvmsg(16, 64)
                print("connected", flush=True)
                signal.pause()
                """,
            ]
            requester.standardInput = input
            requester.standardOutput = output
            try requester.run()
            let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
            #expect(line.hasPrefix("connected"), "\(line)")
            let region = try created(device.table.reg_mr(endpoint.domain, endpoint.memory, 64, 0, 7))
            PacketRing.hazard(ring!).pointee.store(UInt64(region.pointee.rkey), ordering: .sequentiallyConsistent)
            #expect(device.table.dereg_mr(region) == EBUSY)
            kill(requester.processIdentifier, SIGKILL)
            // The signal takes its time; each refusal waits.
            var error = EBUSY
            for _ in 0..<20 where error == EBUSY { error = device.table.dereg_mr(region) }
            #expect(error == 0)
            try input.fileHandleForWriting.close()
            // The child has what Process waits for, too.
            requester.waitUntilExit()
        }

        @Test("The counters that verbs top shows count direct requests")
        func counterReport() throws {
            let (a, _) = try acquainted()
            var report = CounterReport()
            let counters = counters(a.device)
            report.add(counters)
            let lines = String(decoding: report.text, as: UTF8.self).split(separator: "\n")
            #expect(lines.contains("direct_requests \(counters.directRequests)"))
            #expect(lines.contains("direct_bytes \(counters.directBytes)") && counters.directBytes > 0)
        }

        @Test("The table of another process can be read, and not written")
        func readOnly() throws {
            let device = try OpenDevice()
            try withRequester(of: device) { _, table in
                #expect(mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, table, 0) == MAP_FAILED)
                var size = 0
                var address: UnsafeMutableRawPointer?
                #expect(linux_map_table(table, &size, &address) == 0 && size == OwnAccessTable.byteCount)
                #expect(Neighbor(table: address!, byteCount: size, hazard: nil, reach: .none, mappings: nil) != nil)
                linux_unmap(address, size)
                #expect(ftruncate(table, 0) == -1)
            }
        }

        // MARK: - Memory of the extension

        @Test("Memory of the extension is zeroed, separate, and free again afterwards", arguments: 0..<4)
        func arena(seed: UInt64) throws {
            let device = try OpenDevice()
            let functions = try memory(device)
            var random = SplitMix(seed: seed)
            var parts: [(address: UnsafeMutableRawPointer, length: Int)] = []
            for _ in 0..<400 {
                if random.next() % 5 < 2, let index = parts.indices.randomElement(using: &random) {
                    let part = parts.remove(at: index)
                    #expect(part.address.load(as: UInt64.self) == UInt64(UInt(bitPattern: part.address)))
                    functions.pointee.free(device.context, part.address, part.length)
                    continue
                }
                let length = Int(random.next() % 4 == 0 ? random.next() % (8 << 20) : random.next() % 20_000) + 1
                let made = try #require(functions.pointee.alloc(device.context, length))
                #expect(UInt(bitPattern: made) % 4096 == 0)
                #expect(made.load(as: UInt64.self) == 0)
                for part in parts { #expect(made + length <= part.address || part.address + part.length <= made) }
                // A short part has no room for the word that tells parts apart.
                guard length >= 8 else {
                    functions.pointee.free(device.context, made, length)
                    continue
                }
                made.storeBytes(of: UInt64(UInt(bitPattern: made)), as: UInt64.self)
                parts.append((made, length))
            }
            for part in parts { functions.pointee.free(device.context, part.address, part.length) }
            // All is one part again: the longest memory can be taken four times from one arena.
            let context = device.context.soft
            let arenas = context.guarded.pointee.sharedMemory.count
            let longest = (0..<4 * arenas).map { _ in functions.pointee.alloc(device.context, SharedMemory.longest) }
            #expect(longest.allSatisfy { $0 != nil } && context.guarded.pointee.sharedMemory.count == arenas)
            for part in longest { functions.pointee.free(device.context, part, SharedMemory.longest) }
        }

        @Test("The extension refuses what other memory serves, and no other name or version is found")
        func refusals() throws {
            let device = try OpenDevice()
            let functions = try memory(device)
            #expect(functions.pointee.alloc(device.context, SharedMemory.longest + 1) == nil && errno == EOPNOTSUPP)
            #expect(functions.pointee.alloc(device.context, 0) == nil && errno == EINVAL)
            #expect(device.table.query_extension(device.context, "soft-memory", 2) == nil)
            #expect(device.table.query_extension(device.context, "soft-memor", 1) == nil)
            #expect(device.table.query_extension(device.context, "soft-memory2", 1) == nil)
            functions.pointee.free(device.context, nil, 8)
        }

        @Test("A region in memory of the extension has its place in the arena; one that extends beyond it has none")
        func places() throws {
            let device = try OpenDevice()
            let functions = try memory(device)
            let made = try #require(functions.pointee.alloc(device.context, 10_000))
            defer { functions.pointee.free(device.context, made, 10_000) }
            let context = device.context.soft
            let place = context.guarded.pointee.sharedMemory.place(of: made + 100, byteCount: 50)
            let start = context.guarded.pointee.sharedMemory.place(of: made, byteCount: 1)
            #expect(place.number == 1 && place.offset == start.offset + 100)
            let far = context.guarded.pointee.sharedMemory.place(of: made, byteCount: Arena.byteCount + 1)
            #expect(far.number == 0)
            var local = 0
            let other = context.guarded.pointee.sharedMemory.place(of: &local, byteCount: 8)
            #expect(other.number == 0)
        }
    }
}
