import CIBVerbs
import CProviderABI
import SoftTestSupport
import Testing

/// The devices at the two ends of a connection.
enum Ends: CaseIterable, CustomTestStringConvertible {
    /// One open device.
    case sameDevice
    /// Two open devices of one process, which communicate in the same way as two processes.
    case twoDevices

    var testDescription: String { self == .sameDevice ? "within one open device" : "between two open devices" }

    func open() throws -> (OpenDevice, OpenDevice) {
        let first = try OpenDevice()
        return (first, self == .sameDevice ? first : try OpenDevice())
    }
}

/// The connected service types.
let connectedTypes = [IBV_QPT_RC, IBV_QPT_UC].map(\.rawValue)

extension Soft {
    @Suite("Operations of connected queue pairs, in one process")
    struct OperationTests {
        private func pair(_ ends: Ends, _ change: (inout Endpoint.Options) -> Void = { _ in }) throws -> (
            Endpoint, Endpoint
        ) {
            let (first, second) = try ends.open()
            var options = Endpoint.Options()
            change(&options)
            return try SoftTestSupport.pair(options, on: first, and: second)
        }

        @Test("SEND transfers the data, over IPv4 and IPv6", arguments: Ends.allCases, [0, 1] as [UInt8])
        func sends(ends: Ends, gidIndex: UInt8) throws {
            for type in connectedTypes {
                let (a, b) = try pair(ends) {
                    $0.type = ibv_qp_type(type)
                    $0.gidIndex = gidIndex
                }
                for length in [0, 1, 8, 1023, 1024, 1025, 100_000] {
                    a.fill(0, length, seed: UInt8(length & 0xFF))
                    try b.postReceive(id: 7, [b.sge(0, 1 << 19)])
                    try a.post(IBV_WR_SEND, id: 3, [a.sge(0, length)])
                    #expect(try a.success().wr_id == 3)
                    let received = try b.success()
                    #expect(received.wr_id == 7)
                    #expect(received.opcode == IBV_WC_RECV)
                    #expect(received.byte_len == length)
                    #expect(received.qp_num == b.pair.pointee.qp_num)
                    #expect(b.bytes(0, length) == a.bytes(0, length))
                }
            }
        }

        @Test("SEND gathers and RECV scatters several SGEs; inline data needs no L_Key", arguments: connectedTypes)
        func gathers(type: UInt32) throws {
            let (a, b) = try pair(.twoDevices) { $0.type = ibv_qp_type(type) }
            a.fill(0, 300, seed: 5)
            try b.postReceive([b.sge(1000, 10), b.sge(2000, 250), b.sge(3000, 100)])
            try a.post(IBV_WR_SEND, [a.sge(0, 100), a.sge(100, 0), a.sge(100, 200)])
            try a.success()
            try b.success()
            #expect(b.bytes(1000, 10) + b.bytes(2000, 250) + b.bytes(3000, 40) == a.bytes(0, 300))

            var inline = a.sge(50, 100)
            inline.lkey = 0
            try b.postReceive([b.sge(0, 200)])
            try a.post(IBV_WR_SEND, [inline], flags: IBV_SEND_SIGNALED.rawValue | IBV_SEND_INLINE.rawValue)
            // Inline data is copied to the queue by the post.
            let sent = a.bytes(50, 100)
            a.fill(50, 100, seed: 200)
            try a.success()
            try b.success()
            #expect(b.bytes(0, 100) == sent)
        }

        @Test("The receive completion of SEND and of WRITE has the immediate data", arguments: connectedTypes)
        func bringsImmediate(type: UInt32) throws {
            let (a, b) = try pair(.twoDevices) { $0.type = ibv_qp_type(type) }
            try b.postReceive(id: 1, [b.sge(0, 64)])
            try a.post(IBV_WR_SEND_WITH_IMM, [a.sge(0, 8)]) { $0.imm_data = 0x0403_0201 }
            let sent = try b.success()
            #expect(sent.opcode == IBV_WC_RECV)
            #expect(sent.wc_flags & IBV_WC_WITH_IMM.rawValue != 0)
            #expect(sent.imm_data == 0x0403_0201)

            a.fill(0, 5000, seed: 9)
            try b.postReceive(id: 2, [])
            let target = try b.address
            try a.post(IBV_WR_RDMA_WRITE_WITH_IMM, [a.sge(0, 5000)]) { request in
                request.imm_data = 77
                request.wr.rdma.remote_addr = target.memory + 100
                request.wr.rdma.rkey = target.key
            }
            let written = try b.success()
            #expect(written.wr_id == 2)
            #expect(written.opcode == IBV_WC_RECV_RDMA_WITH_IMM)
            #expect(written.imm_data == 77)
            #expect(written.byte_len == 5000)
            #expect(b.bytes(100, 5000) == a.bytes(0, 5000))
        }

        @Test("WRITE and READ transfer data without a completion at the peer", arguments: Ends.allCases)
        func writesAndReads(ends: Ends) throws {
            let (a, b) = try pair(ends)
            let target = try b.address
            for length in [0, 1, 1024, 300_000] {
                a.fill(0, length, seed: UInt8(length & 0xFF))
                try a.post(IBV_WR_RDMA_WRITE, [a.sge(0, length)]) { request in
                    request.wr.rdma.remote_addr = target.memory
                    request.wr.rdma.rkey = target.key
                }
                #expect(try a.success().opcode == IBV_WC_RDMA_WRITE)
                #expect(b.bytes(0, length) == a.bytes(0, length))
                try a.post(IBV_WR_RDMA_READ, [a.sge(1 << 19, length)]) { request in
                    request.wr.rdma.remote_addr = target.memory
                    request.wr.rdma.rkey = target.key
                }
                let read = try a.success()
                #expect(read.opcode == IBV_WC_RDMA_READ)
                #expect(read.byte_len == length)
                #expect(a.bytes(1 << 19, length) == b.bytes(0, length))
            }
            var none = ibv_wc()
            #expect(b.device.context.pointee.ops.poll_cq(b.queue, 1, &none) == 0)
        }

        @Test("Atomics change the peer's memory once and return the original value", arguments: Ends.allCases)
        func atomics(ends: Ends) throws {
            let (a, b) = try pair(ends)
            let target = try b.address
            b.memory.storeBytes(of: 40, as: UInt64.self)
            func atomic(_ opcode: ibv_wr_opcode, _ compareAdd: UInt64, _ swap: UInt64) throws -> UInt64 {
                try a.post(opcode, [a.sge(64, 8)]) { request in
                    request.wr.atomic.remote_addr = target.memory
                    request.wr.atomic.rkey = target.key
                    request.wr.atomic.compare_add = compareAdd
                    request.wr.atomic.swap = swap
                }
                #expect(try a.success().byte_len == 8)
                return a.memory.load(fromByteOffset: 64, as: UInt64.self)
            }
            #expect(try atomic(IBV_WR_ATOMIC_FETCH_AND_ADD, 2, 0) == 40)
            #expect(try atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 41, 7) == 42)
            #expect(try atomic(IBV_WR_ATOMIC_CMP_AND_SWP, 42, 7) == 42)
            #expect(b.memory.load(as: UInt64.self) == 7)
        }

        @Test("ATOMIC WRITE writes 8 bytes, by ibv_post_send and by ibv_wr_atomic_write", arguments: Ends.allCases)
        func atomicWrites(ends: Ends) throws {
            let (a, b) = try pair(ends) {
                $0.operations = UInt64(IBV_QP_EX_WITH_ATOMIC_WRITE.rawValue)
                $0.inlineData = 0
            }
            let target = try b.address
            a.memory.storeBytes(of: 0x0102_0304_0506_0708, as: UInt64.self)
            for flags in [0, IBV_SEND_INLINE.rawValue] {
                try a.post(IBV_WR_ATOMIC_WRITE, [a.sge(0, 8)], flags: IBV_SEND_SIGNALED.rawValue | flags) { request in
                    request.wr.rdma.remote_addr = target.memory + 64
                    request.wr.rdma.rkey = target.key
                }
                #expect(try a.success().opcode == IBV_WC_ATOMIC_WRITE)
                #expect(b.memory.load(fromByteOffset: 64, as: UInt64.self) == a.memory.load(as: UInt64.self))
                a.memory.storeBytes(of: 77, as: UInt64.self)
            }
            let extended = try #require(a.device.table.qp_to_qp_ex(a.pair))
            var value: UInt64 = 0x1112_1314_1516_1718
            ibv_wr_start(extended)
            extended.pointee.wr_id = 4
            extended.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
            ibv_wr_atomic_write(extended, target.key, target.memory + 72, &value)
            value = 0
            #expect(ibv_wr_complete(extended) == 0)
            #expect(try a.success().wr_id == 4)
            #expect(b.memory.load(fromByteOffset: 72, as: UInt64.self) == 0x1112_1314_1516_1718)
        }

        @Test(
            "FLUSH after a WRITE completes, by packets and directly; ibv_post_send refuses it", arguments: Ends.allCases
        )
        func flushes(ends: Ends) throws {
            let (a, b) = try pair(ends) {
                $0.operations = UInt64(RDMA_QP_EX_WITH_FLUSH) | UInt64(IBV_QP_EX_WITH_RDMA_WRITE.rawValue)
                // IBV_ACCESS_FLUSH_GLOBAL
                $0.access |= 1 << 8
                $0.pairAccess |= 1 << 8
            }
            let target = try b.address
            let extended = try #require(a.device.table.qp_to_qp_ex(a.pair))
            let flush = try #require(rdma_wr_flush_place(extended).pointee)
            a.memory.storeBytes(of: 0x0102_0304, as: UInt64.self)
            for level in [0, 1] as [UInt8] {
                ibv_wr_start(extended)
                extended.pointee.wr_flags = 0
                ibv_wr_rdma_write(extended, target.key, target.memory + 64)
                let source = a.sge(0, 8)
                ibv_wr_set_sge(extended, source.lkey, source.addr, source.length)
                extended.pointee.wr_id = 4 + UInt64(level)
                extended.pointee.wr_flags = IBV_SEND_SIGNALED.rawValue
                flush(extended, target.key, target.memory + 64, 8, 1, level)
                #expect(ibv_wr_complete(extended) == 0)
                let completion = try a.success()
                #expect(completion.wr_id == 4 + UInt64(level) && completion.opcode.rawValue == 8)
                #expect(b.memory.load(fromByteOffset: 64, as: UInt64.self) == 0x0102_0304)
            }
            let wrong: [(Int, UInt8, UInt8)] = [(1 << 31 + 1, 1, 0), (8, 0, 0), (8, 4, 0), (8, 1, 2)]
            for (length, placement, level) in wrong {
                ibv_wr_start(extended)
                flush(extended, target.key, target.memory, length, placement, level)
                #expect(ibv_wr_complete(extended) == EINVAL)
            }
            #expect(throws: (any Error).self) { try a.post(ibv_wr_opcode(14), []) }
        }

        @Test("Messages in flight arrive in order and complete in order", arguments: Ends.allCases)
        func keepsOrder(ends: Ends) throws {
            let (a, b) = try pair(ends)
            for index in 0..<64 { try b.postReceive(id: UInt64(index), [b.sge(index * 4096, 4096)]) }
            for index in 0..<64 {
                a.fill(index * 4096, 3000 + index, seed: UInt8(index))
                try a.post(IBV_WR_SEND, id: UInt64(index), [a.sge(index * 4096, 3000 + index)])
            }
            let sent = try a.completions(64)
            let received = ends == .sameDevice && a.queue == b.queue ? [] : try b.completions(64)
            #expect(sent.map(\.wr_id) == Array(0..<64))
            #expect(received.map(\.wr_id) == Array(0..<64))
            #expect(received.map(\.byte_len) == (0..<64).map { UInt32(3000 + $0) })
            for index in 0..<64 { #expect(b.bytes(index * 4096, 3000) == a.bytes(index * 4096, 3000)) }
        }

        @Test("A SEND without a posted receive at the peer is sent again after an RNR NAK")
        func waitsForReceive() throws {
            let (a, b) = try pair(.twoDevices)
            a.fill(0, 100, seed: 1)
            try a.post(IBV_WR_SEND, [a.sge(0, 100)])
            var none = ibv_wc()
            for _ in 0..<1000 { #expect(a.device.context.pointee.ops.poll_cq(a.queue, 1, &none) == 0) }
            try b.postReceive([b.sge(0, 100)])
            try a.success()
            try b.success()
            #expect(b.bytes(0, 100) == a.bytes(0, 100))
        }

        @Test("Unsignaled sends complete without a CQE")
        func unsignalled() throws {
            let (a, b) = try pair(.twoDevices)
            for _ in 0..<8 { try b.postReceive([b.sge(0, 64)]) }
            for index in 0..<8 {
                try a.post(
                    IBV_WR_SEND, id: UInt64(index), [a.sge(0, 8)], flags: index == 7 ? IBV_SEND_SIGNALED.rawValue : 0)
            }
            #expect(try a.success().wr_id == 7)
            _ = try b.completions(8)
        }

        @Test("ERR flushes all posted work requests with WR_FLUSH_ERR, and those posted afterwards")
        func flushes() throws {
            let (a, b) = try pair(.twoDevices)
            for index in 0..<3 { try b.postReceive(id: UInt64(index), [b.sge(0, 64)]) }
            try b.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_ERR }
            #expect(b.pair.pointee.state == IBV_QPS_ERR)
            let flushed = try b.completions(3)
            #expect(flushed.map(\.wr_id) == [0, 1, 2])
            #expect(flushed.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR })
            try b.postReceive(id: 9, [b.sge(0, 64)])
            try b.post(IBV_WR_SEND, id: 10, [b.sge(0, 8)])
            let late = try b.completions(2)
            #expect(Set(late.map(\.wr_id)) == [9, 10])
            #expect(late.allSatisfy { $0.status == IBV_WC_WR_FLUSH_ERR })
            _ = a
        }

        @Test("RESET empties the queues, and the queue pair can be connected again")
        func resets() throws {
            let (a, b) = try pair(.twoDevices)
            try b.postReceive(id: 1, [b.sge(0, 64)])
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            try a.success()
            for endpoint in [a, b] { try endpoint.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RESET } }
            var none = ibv_wc()
            #expect(b.device.context.pointee.ops.poll_cq(b.queue, 1, &none) == 0)
            try a.connect(to: b.address)
            try b.connect(to: a.address)
            try b.postReceive(id: 2, [b.sge(0, 64)])
            try a.post(IBV_WR_SEND, [a.sge(0, 8)])
            #expect(try b.success().wr_id == 2)
        }
    }
}
