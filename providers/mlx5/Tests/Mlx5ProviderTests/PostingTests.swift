import CAllocationCounter
import CIBVerbs
import Glibc
import TestSupport
import Testing

@testable import Mlx5Provider

@Suite("mlx5: work requests as the device reads them")
struct PostingTests {
    private let signaled = IBV_SEND_SIGNALED.rawValue

    @Test("A SEND of 16 inline bytes is byte for byte what libmlx5 writes; it goes whole to the register")
    func vector() {
        let fake = FakePair()
        #expect(fake.post([payload(16).send(IBV_WR_SEND, flags: signaled | IBV_SEND_INLINE.rawValue)]).error == 0)
        let head: [UInt8] = [0, 0, 0, 0x0A, 0, 1, 1, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0x80, 0, 0, 0x10]
        #expect(fake.sends.bytes(0..<36) == head + (1...16).map { UInt8($0) })
        // The pad is whatever was there.
        #expect(fake.sends.bytes(36..<64).allSatisfy { $0 == 0xA5 })
        #expect(fake.register.bytes(0..<64) == fake.sends.bytes(0..<64))
        #expect(fake.register.bytes(64..<512).allSatisfy { $0 == 0 })
        #expect(fake.record.bytes(0..<8) == [0, 0, 0, 0, 0, 0, 0, 1])
    }

    @Test("Each operation: its opcode, its segments, and what stands in them")
    func operations() {
        let fake = FakePair(blocks: 64, posts: 32)
        let list = threePieces()
        var requests = [
            IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM,
            IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD,
        ].map { list.send($0, flags: 0) }
        for index in requests.indices {
            requests[index].imm_data = UInt32(0x1122_3344).bigEndian
            if index == 2 { requests[index].invalidate_rkey = 0x5566 }
            requests[index].wr.rdma.remote_addr = 0x7777_0000_1234
            requests[index].wr.rdma.rkey = 0x99AA
            guard index >= 6 else { continue }
            requests[index].num_sge = 1
            requests[index].wr.atomic.compare_add = 0xC0C1_C2C3_C4C5_C6C7
            requests[index].wr.atomic.swap = 0xD0D1_D2D3_D4D5_D6D7
            requests[index].wr.atomic.rkey = 0x99AA
        }
        #expect(fake.post(requests).error == 0)
        let codes: [UInt32] = [0x0A, 0x0B, 0x01, 0x08, 0x09, 0x10, 0x11, 0x12]
        let sizes: [UInt32] = [4, 4, 4, 5, 5, 5, 4, 4]
        let immediates: [UInt32] = [0, 0x1122_3344, 0x5566, 0, 0x1122_3344, 0, 0, 0]
        var block: UInt32 = 0
        for index in requests.indices {
            let place = 64 * Int(block)
            #expect(fake.sends.word(place) == block << 8 | codes[index])
            #expect(fake.sends.word(place + 4) == FakePair.number << 8 | sizes[index])
            #expect(fake.sends.word(place + 8) == 0 && fake.sends.word(place + 12) == immediates[index])
            var data = place + 16
            if index >= 3 {
                #expect(fake.sends.word(data) == 0x7777 && fake.sends.word(data + 4) == 0x0000_1234)
                #expect(fake.sends.word(data + 8) == 0x99AA && fake.sends.word(data + 12) == 0)
                data += 16
            }
            if index == 6 {
                #expect(fake.sends.bytes(data..<data + 16) == (0xD0...0xD7).map { $0 } + (0xC0...0xC7).map { $0 })
                data += 16
            } else if index == 7 {
                // Nothing is compared: that word is left alone.
                #expect(
                    fake.sends.bytes(data..<data + 16) == (0xC0...0xC7).map { $0 } + [UInt8](repeating: 0xA5, count: 8))
                data += 16
            }
            for piece in 0..<(index >= 6 ? 1 : 3) {
                #expect(fake.sends.word(data) == (index >= 6 ? 8 : UInt32(10 * (piece + 1))))
                #expect(fake.sends.word(data + 4) == UInt32(0x101 + piece))
                #expect(fake.sends.word(data + 8) == 0 && fake.sends.word(data + 12) == UInt32(0x1000 * (piece + 1)))
                data += 16
            }
            block += (sizes[index] + 3) / 4
        }
        #expect(fake.block == block && fake.record.word(4) == block)
        // One doorbell for the chain: the first bytes of the last request.
        #expect(fake.register.bytes(0..<8) == fake.sends.bytes(64 * Int(block - 1)..<64 * Int(block - 1) + 8))
        #expect(fake.register.bytes(8..<512).allSatisfy { $0 == 0 })
    }

    @Test("Flags: signaled, solicited, fence; and every request signaled where the queue pair is made so")
    func flags() {
        for (flags, all, expected) in [
            (0, false, 0), (signaled, false, 8), (IBV_SEND_SOLICITED.rawValue, false, 2),
            (IBV_SEND_FENCE.rawValue | signaled, false, 0x88), (0, true, 8), (IBV_SEND_FENCE.rawValue, true, 0x88),
        ] as [(UInt32, Bool, UInt32)] {
            let fake = FakePair(signalsAll: all)
            #expect(fake.post([threePieces().send(IBV_WR_SEND, flags: flags)]).error == 0)
            #expect(fake.sends.word(8) == expected)
        }
    }

    @Test("Pieces without a byte are left out; a request without data is its first segment alone")
    func emptyPieces() {
        let fake = FakePair()
        let list = List([
            ibv_sge(addr: 1, length: 0, lkey: 1), ibv_sge(addr: 2, length: 5, lkey: 2),
            ibv_sge(addr: 3, length: 0, lkey: 3),
        ])
        #expect(fake.post([list.send(IBV_WR_SEND), List([]).send(IBV_WR_SEND)]).error == 0)
        #expect(fake.sends.word(4) & 0xFF == 2 && fake.sends.word(16) == 5 && fake.sends.word(20) == 2)
        #expect(fake.sends.word(64 + 4) & 0xFF == 1)
        let inline = FakePair()
        #expect(inline.post([payload(0).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)]).error == 0)
        #expect(inline.sends.word(4) & 0xFF == 1)
        // Too short to go whole.
        #expect(inline.register.bytes(8..<16).allSatisfy { $0 == 0 })
    }

    @Test(
        "A request goes on at the beginning behind the end, wherever it begins",
        arguments: [60, 61, 62, 63, 0xFFFF, 0xFFFFF] as [UInt32])
    func wraps(block: UInt32) {
        for count in [13, 60, 61, 77, 124] {
            let fake = FakePair(blocks: 4)
            fake.block = block
            #expect(fake.post([payload(count).send(IBV_WR_RDMA_WRITE, flags: IBV_SEND_INLINE.rawValue)]).error == 0)
            let start = 64 * Int(block % 4)
            let whole = (0..<256).map { fake.sends.bytes((start + $0) % 256..<(start + $0) % 256 + 1)[0] }
            #expect(whole[1] == UInt8(truncatingIfNeeded: block >> 8) && whole[2] == UInt8(truncatingIfNeeded: block))
            #expect(whole[7] == UInt8(2 + (count + 4 + 15) / 16))
            #expect(Array(whole[32..<36]) == [0x80, 0, 0, UInt8(count)])
            #expect(Array(whole[36..<36 + count]) == (1...count).map { UInt8($0) })
            #expect(whole[(36 + count)...].allSatisfy { $0 == 0xA5 })
            // It goes whole to the register all the same, in order.
            let blocks = (Int(whole[7]) + 3) / 4
            #expect(fake.register.bytes(0..<64 * blocks) == Array(whole[..<(64 * blocks)]))
        }
        let fake = FakePair(blocks: 2)
        fake.block = block
        let list = List((1...4).map { ibv_sge(addr: $0, length: 1, lkey: UInt32($0)) })
        #expect(fake.post([list.send(IBV_WR_RDMA_WRITE)]).error == 0)
        let start = 64 * Int(block % 2)
        #expect((0..<4).map { fake.sends.word((start + 32 + 16 * $0) % 128 + 4) } == [1, 2, 3, 4])
    }

    @Test("The halves of the register take turns; several requests, or a long one, ring with 8 bytes")
    func registerHalves() {
        for takesRequests in [true, false] {
            let fake = FakePair(blocks: 64, posts: 40, takesRequests: takesRequests)
            let one = payload(4).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)
            for turn in 0..<4 {
                memset(fake.register.memory, 0, 512)
                #expect(fake.post(turn == 2 ? [one, one] : [one]).error == 0)
                let half = turn % 2 * 256
                let isWhole = takesRequests && turn != 2
                #expect(fake.register.bytes(half + 8..<half + 64).contains { $0 != 0 } == isWhole)
                #expect(
                    fake.register.bytes(half..<half + 8)
                        == fake.sends.bytes(64 * Int(fake.block - 1)..<64 * Int(fake.block - 1) + 8))
                #expect(fake.register.bytes(256 - half..<512 - half).allSatisfy { $0 == 0 })
                fake.retire()
            }
        }
    }

    @Test("Full with as many requests as were granted, and free again when they have completed")
    func full() {
        let fake = FakePair(posts: 4)
        let request = payload(1).send(IBV_WR_SEND)
        for _ in 0..<40 {
            #expect(fake.post([request, request, request, request, request]) == (ENOMEM, 4))
            #expect(fake.post([request]) == (ENOMEM, 0))
            fake.retire()
        }
    }

    @Test("What is wrong with a request is said of that request; those before it are rung for")
    func badRequests() {
        let mistakes: [(Int32, (inout ibv_send_wr) -> Void)] = [
            (EINVAL, { $0.opcode = ibv_wr_opcode(31) }), (EINVAL, { $0.opcode = ibv_wr_opcode(UInt32.max) }),
            (EINVAL, { $0.num_sge = 5 }), (EINVAL, { $0.num_sge = -1 }), (EINVAL, { $0.sg_list = nil }),
            (EOPNOTSUPP, { $0.send_flags |= IBV_SEND_IP_CSUM.rawValue }), (EOPNOTSUPP, { $0.send_flags |= 1 << 30 }),
            (
                EINVAL,
                {
                    $0.opcode = IBV_WR_RDMA_READ
                    $0.send_flags |= IBV_SEND_INLINE.rawValue
                }
            ),
            (
                EINVAL,
                {
                    $0 = payload(125).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)
                    $0.next = nil
                }
            ),
            (
                EINVAL,
                {
                    $0.opcode = IBV_WR_BIND_MW
                    $0.num_sge = 0
                }
            ),
            (EINVAL, { $0.opcode = IBV_WR_LOCAL_INV }),
        ]
        for (index, (error, mistake)) in mistakes.enumerated() {
            let fake = FakePair()
            var bad = threePieces().send(IBV_WR_SEND)
            mistake(&bad)
            let good = threePieces().send(IBV_WR_SEND)
            #expect(fake.post([good, bad, good]) == (error, 1), "mistake \(index)")
            #expect(fake.block == 1 && fake.record.word(4) == 1, "mistake \(index)")
            #expect(fake.post([bad]) == (error, 0) && fake.record.word(4) == 1)
        }
        for state in [IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR] {
            let fake = FakePair()
            fake.pair.pointee.base.qp_base.state = state
            #expect(fake.post([threePieces().send(IBV_WR_SEND)]) == (EINVAL, 0) && fake.record.word(4) == 0)
        }
        #expect(FakePair(IBV_QPT_UC).post([threePieces().send(IBV_WR_RDMA_READ)]) == (EINVAL, 0))
        #expect(FakePair(IBV_QPT_UD).post([threePieces().send(IBV_WR_SEND)]) == (EINVAL, 0))
    }

    @Test("A datagram: 48 bytes of address behind the first segment, and its data in the next block, also over the end")
    func datagrams() {
        let handle = AddressHandlePointer.allocate()
        defer { UnsafeMutableRawPointer(handle).deallocate() }
        var attributes = ibv_ah_attr()
        attributes.dlid = 0x1234
        attributes.sl = 5
        handle.vector.putAddressVector(attributes, .infiniband)
        for block: UInt32 in [0, 3] {
            let fake = FakePair(IBV_QPT_UD, blocks: 4)
            fake.block = block
            var request = threePieces().send(IBV_WR_SEND_WITH_IMM)
            request.imm_data = UInt32(0x42).bigEndian
            request.wr.ud.ah = UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
            request.wr.ud.remote_qpn = 0x77
            request.wr.ud.remote_qkey = 0x8001_0000
            #expect(fake.post([request]).error == 0)
            let place = 64 * Int(block)
            #expect(fake.sends.word(place + 4) == FakePair.number << 8 | 7 && fake.sends.word(place + 12) == 0x42)
            #expect(fake.sends.word(place + 16) == 0x8001_0000 && fake.sends.word(place + 20) == 0)
            #expect(fake.sends.word(place + 24) == 0x8000_0077 && fake.sends.word(place + 28) == 0x0500_1234)
            let data = 64 * Int((block + 1) % 4)
            #expect((0..<3).map { fake.sends.word(data + 16 * $0) } == [10, 20, 30])
        }
    }

    @Test("Binding and invalidating a window, and the fence of the request behind it")
    func windows() {
        var region = ibv_mr()
        region.lkey = 0x3131
        withUnsafeMutablePointer(to: &region) { region in
            for type in [IBV_MW_TYPE_1, IBV_MW_TYPE_2] {
                var window = ibv_mw()
                window.rkey = 0x15500
                window.type = type
                withUnsafeMutablePointer(to: &window) { window in
                    let fake = FakePair(blocks: 8)
                    var bind = List([]).send(IBV_WR_BIND_MW, flags: 0)
                    bind.bind_mw.mw = window
                    bind.bind_mw.rkey = 0x15577
                    bind.bind_mw.bind_info = ibv_mw_bind_info(
                        mr: region, addr: 0x9000, length: 64,
                        mw_access_flags: IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue)
                    var invalidate = List([]).send(IBV_WR_LOCAL_INV, flags: 0)
                    invalidate.invalidate_rkey = 0x15577
                    let plain = List([]).send(IBV_WR_SEND, flags: 0)
                    #expect(fake.post([bind, invalidate, plain, plain]).error == 0)
                    let isOwned = type == IBV_MW_TYPE_2
                    #expect(fake.sends.word(0) == 0x25 && fake.sends.word(4) & 0xFF == 12)
                    #expect(fake.sends.word(8) == 0 && fake.sends.word(12) == 0x15500)
                    #expect(fake.sends.word(16) == (isOwned ? 0xB000_0000 : 0x9000_0000))
                    #expect(fake.sends.word(20) == 4 << 16 && fake.sends.word(24) == 0)
                    #expect(fake.sends.word(28) == (isOwned ? 0x203C_6041 : 0x203C_2041))
                    #expect(fake.sends.bytes(32..<64).allSatisfy { $0 == 0 })
                    #expect(fake.sends.bytes(64..<67)[0] == 0 && fake.sends.bytes(66..<67)[0] == 0x30)
                    #expect(fake.sends.word(68) == (isOwned ? FakePair.number << 8 : 0xFFFF_FF00) | 0x77)
                    #expect(fake.sends.word(84) == 0x9000 && fake.sends.word(92) == 64)
                    #expect(
                        fake.sends.word(128) == 64 && fake.sends.word(132) == 0x3131 && fake.sends.word(140) == 0x9000)
                    #expect(fake.sends.bytes(144..<192).allSatisfy { $0 == 0 })
                    // The invalidation.
                    #expect(fake.sends.word(192) == 3 << 8 | 0x25 && fake.sends.word(196) & 0xFF == 8)
                    #expect(fake.sends.word(200) == 0x20 && fake.sends.word(204) == 0x15577)
                    #expect(fake.sends.word(208) == 0x9800_0000 && fake.sends.word(212) == 0)
                    #expect(fake.sends.word(220) == 0x2000_6000)
                    #expect(fake.sends.bytes(256..<257) == [0x40] && fake.sends.word(260) == 0xFFFF_FF00)
                    // One request waits for it, the next does not.
                    #expect(fake.sends.word(320 + 8) == 0x20 && fake.sends.word(384 + 8) == 0)
                    fake.retire()
                    bind.bind_mw.bind_info.length = 1 << 31 + 1
                    #expect(fake.post([bind]) == (EOPNOTSUPP, 0))
                }
            }
        }
    }

    @Test("A receive: its pieces, and the key that ends the list where there is room for more")
    func receives() {
        let fake = FakePair(receives: 4)
        let four = List((1...4).map { ibv_sge(addr: $0, length: 1, lkey: UInt32($0)) })
        #expect(fake.postReceives([threePieces().receive(), four.receive(), List([]).receive()]).error == 0)
        #expect((0..<4).map { fake.receives.word(16 * $0) } == [10, 20, 30, 0])
        #expect((0..<4).map { fake.receives.word(16 * $0 + 4) } == [0x101, 0x102, 0x103, 0x100])
        #expect((0..<4).map { fake.receives.word(64 + 16 * $0 + 4) } == [1, 2, 3, 4])
        #expect(fake.receives.word(128) == 0 && fake.receives.word(132) == 0x100)
        #expect(fake.record.word(0) == 3 && fake.record.word(4) == 0)
        #expect(fake.postReceives([four.receive(), four.receive()]) == (ENOMEM, 1))
        fake.retired[1] = 4
        var long = four.receive()
        long.num_sge = 5
        #expect(fake.postReceives([four.receive(), long]) == (EINVAL, 1) && fake.record.word(0) == 5)
        fake.pair.pointee.base.qp_base.state = IBV_QPS_RESET
        #expect(fake.postReceives([four.receive()]) == (EINVAL, 0))
    }

    @Test("Builders write the bytes that post_send writes, for any requests", arguments: 0..<8)
    func builders(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let built = FakePair(blocks: 32, posts: 8)
        let posted = FakePair(blocks: 32, posts: 8)
        for _ in 0..<200 {
            var requests: [ibv_send_wr] = []
            let qp = built.extended
            ibv_wr_start(qp)
            for _ in 0..<random.within(1...3) {
                let isInline = random.chance(30)
                let list = isInline ? payload(random.below(125)) : threePieces()
                let opcode = random.pick([
                    IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_WRITE,
                    IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_LOCAL_INV,
                ])
                var request = list.send(opcode, id: random.any(), flags: UInt32(random.below(8)) & ~UInt32(8))
                request.imm_data = random.any()
                request.wr.rdma.remote_addr = random.any()
                request.wr.rdma.rkey = random.any()
                if opcode == IBV_WR_LOCAL_INV {
                    request.num_sge = 0
                } else if isInline {
                    request.send_flags |= IBV_SEND_INLINE.rawValue
                }
                requests.append(request)
                qp.pointee.wr_id = request.wr_id
                qp.pointee.wr_flags = request.send_flags
                switch opcode {
                case IBV_WR_SEND: ibv_wr_send(qp)
                case IBV_WR_SEND_WITH_IMM: ibv_wr_send_imm(qp, request.imm_data)
                case IBV_WR_SEND_WITH_INV: ibv_wr_send_inv(qp, request.invalidate_rkey)
                case IBV_WR_RDMA_WRITE: ibv_wr_rdma_write(qp, request.wr.rdma.rkey, request.wr.rdma.remote_addr)
                case IBV_WR_LOCAL_INV: ibv_wr_local_inv(qp, request.invalidate_rkey)
                default:
                    ibv_wr_rdma_write_imm(qp, request.wr.rdma.rkey, request.wr.rdma.remote_addr, request.imm_data)
                }
                guard opcode != IBV_WR_LOCAL_INV else { continue }
                if isInline {
                    let sge = list.sges[0]
                    ibv_wr_set_inline_data(qp, UnsafeMutableRawPointer(bitPattern: UInt(sge.addr)), Int(sge.length))
                } else {
                    ibv_wr_set_sge_list(qp, 3, list.sges.baseAddress)
                }
            }
            #expect(ibv_wr_complete(qp) == 0)
            #expect(posted.post(requests).error == 0)
            #expect(built.sends.bytes(0..<2048) == posted.sends.bytes(0..<2048))
            #expect(built.record.bytes(0..<8) == posted.record.bytes(0..<8))
            #expect(built.register.bytes(0..<512) == posted.register.bytes(0..<512))
            built.retire()
            posted.retire()
        }
    }

    @Test("An error spoils the whole of what was built, and everything is as it was")
    func builderErrors() {
        let mistakes: [(Int32, (UnsafeMutablePointer<ibv_qp_ex>) -> Void)] = [
            (EINVAL, { ibv_wr_set_sge($0, 1, 1, 1) }),
            (
                EINVAL,
                {
                    ibv_wr_send($0)
                    ibv_wr_set_inline_data($0, $0, 125)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0)
                    ibv_wr_set_inline_data($0, nil, 1)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_rdma_read($0, 1, 1)
                    ibv_wr_set_inline_data($0, $0, 1)
                }
            ),
            (
                EINVAL,
                {
                    ibv_wr_send($0)
                    ibv_wr_set_sge_list($0, 5, nil)
                }
            ),
            (EINVAL, { ibv_wr_bind_mw($0, nil, 1, nil) }), (ENOMEM, { for _ in 0..<9 { ibv_wr_send($0) } }),
        ]
        for (index, (error, mistake)) in mistakes.enumerated() {
            let fake = FakePair()
            ibv_wr_start(fake.extended)
            mistake(fake.extended)
            #expect(ibv_wr_complete(fake.extended) == error, "mistake \(index)")
            #expect(fake.block == 0 && fake.record.word(4) == 0 && fake.register.word(0) == 0)
            ibv_wr_start(fake.extended)
            ibv_wr_local_inv(fake.extended, 1)
            ibv_wr_abort(fake.extended)
            ibv_wr_start(fake.extended)
            #expect(ibv_wr_complete(fake.extended) == 0 && fake.block == 0)
            ibv_wr_start(fake.extended)
            ibv_wr_send(fake.extended)
            #expect(ibv_wr_complete(fake.extended) == 0 && fake.block == 1 && fake.sends.word(8) & 0x20 == 0)
        }
    }

    @Test("Any work request is taken or refused, and nothing behind the queue is touched", arguments: 0..<4)
    func anyRequest(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let fake = FakePair(random.pick([IBV_QPT_RC, IBV_QPT_UC]), blocks: 8, posts: 2)
        let data = Guarded(300)
        for _ in 0..<2000 {
            let list = List(
                (0..<5).map { _ in
                    ibv_sge(
                        addr: UInt64(UInt(bitPattern: data.memory)),
                        length: random.chance(90) ? random.any() % 60 : random.any(), lkey: random.any())
                })
            var request = list.send(
                ibv_wr_opcode(UInt32(random.pick([0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]))),
                flags: UInt32(random.below(16)) | (random.any() & 8))
            request.num_sge = Int32(random.within(-1...6))
            let before = fake.block
            let answer = fake.post([request])
            #expect(answer.error == 0 || answer.error == EINVAL || answer.error == EOPNOTSUPP)
            #expect(fake.block &- before <= 8 && (answer.error == 0) == (fake.block != before))
            fake.retire()
        }
    }

    @Test(
        "Posting allocates nothing",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer stands in front of malloc"))
    func allocations() {
        let fake = FakePair()
        var request = threePieces().send(IBV_WR_RDMA_WRITE)
        var inline = payload(60).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)
        var receive = threePieces().receive()
        var before: UInt64 = 0
        var failures: Int32 = 0
        for round in 0..<200 {
            if round == 100 { before = allocation_count() }
            failures += postSend(qp: fake.pair.verbs, first: &request, bad: nil)
            failures += postSend(qp: fake.pair.verbs, first: &inline, bad: nil)
            failures += postReceive(qp: fake.pair.verbs, first: &receive, bad: nil)
            ibv_wr_start(fake.extended)
            ibv_wr_rdma_write(fake.extended, 1, 2)
            ibv_wr_set_sge(fake.extended, 1, 2, 3)
            failures += ibv_wr_complete(fake.extended)
            fake.retire()
            fake.retired[1] &+= 1
        }
        #expect(allocation_count() == before && failures == 0)
    }
}
