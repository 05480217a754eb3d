import CAllocationCounter
import CIBVerbs
import Glibc
import TestSupport
import Testing

@testable import Mlx5Provider

@Suite("mlx5: posting writes WQEs and doorbells")
struct PostingTests {
    private let signaled = IBV_SEND_SIGNALED.rawValue

    @Test("The WQE of a SEND with 16 bytes of inline data is libmlx5's, byte for byte, and is written by BlueFlame")
    func vector() {
        let fake = FakeQueuePair()
        #expect(fake.post([payload(16).send(IBV_WR_SEND, flags: signaled | IBV_SEND_INLINE.rawValue)]).error == 0)
        let head: [UInt8] = [0, 0, 0, 0x0A, 0, 1, 1, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0x80, 0, 0, 0x10]
        #expect(fake.sends.bytes(0..<36) == head + (1...16).map { UInt8($0) })
        // The padding is not written.
        #expect(fake.sends.bytes(36..<64).allSatisfy { $0 == 0xA5 })
        #expect(fake.register.bytes(0..<64) == fake.sends.bytes(0..<64))
        #expect(fake.register.bytes(64..<512).allSatisfy { $0 == 0 })
        #expect(fake.doorbellRecord.bytes(0..<8) == [0, 0, 0, 0, 0, 0, 0, 1])
    }

    @Test("The WQE of each operation has its opcode and its segments")
    func operations() {
        let fake = FakeQueuePair(wqebbs: 64, posts: 32)
        let list = threeSGEs()
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
        var wqebb: UInt32 = 0
        for index in requests.indices {
            let offset = 64 * Int(wqebb)
            #expect(fake.sends.word(offset) == wqebb << 8 | codes[index])
            #expect(fake.sends.word(offset + 4) == FakeQueuePair.number << 8 | sizes[index])
            #expect(fake.sends.word(offset + 8) == 0 && fake.sends.word(offset + 12) == immediates[index])
            var data = offset + 16
            if index >= 3 {
                #expect(fake.sends.word(data) == 0x7777 && fake.sends.word(data + 4) == 0x0000_1234)
                #expect(fake.sends.word(data + 8) == 0x99AA && fake.sends.word(data + 12) == 0)
                data += 16
            }
            if index == 6 {
                #expect(fake.sends.bytes(data..<data + 16) == (0xD0...0xD7).map { $0 } + (0xC0...0xC7).map { $0 })
                data += 16
            } else if index == 7 {
                // Fetch-add leaves the compare field unwritten.
                #expect(
                    fake.sends.bytes(data..<data + 16) == (0xC0...0xC7).map { $0 } + [UInt8](repeating: 0xA5, count: 8))
                data += 16
            }
            for sge in 0..<(index >= 6 ? 1 : 3) {
                #expect(fake.sends.word(data) == (index >= 6 ? 8 : UInt32(10 * (sge + 1))))
                #expect(fake.sends.word(data + 4) == UInt32(0x101 + sge))
                #expect(fake.sends.word(data + 8) == 0 && fake.sends.word(data + 12) == UInt32(0x1000 * (sge + 1)))
                data += 16
            }
            wqebb += (sizes[index] + 3) / 4
        }
        #expect(fake.wqebb == wqebb && fake.doorbellRecord.word(4) == wqebb)
        // One doorbell for the chain: the first 8 bytes of the last WQE.
        #expect(fake.register.bytes(0..<8) == fake.sends.bytes(64 * Int(wqebb - 1)..<64 * Int(wqebb - 1) + 8))
        #expect(fake.register.bytes(8..<512).allSatisfy { $0 == 0 })
    }

    @Test("The control segment has the signaled, solicited and fence flags; sq_sig_all makes every WQE signaled")
    func flags() {
        for (flags, all, expected) in [
            (0, false, 0), (signaled, false, 8), (IBV_SEND_SOLICITED.rawValue, false, 2),
            (IBV_SEND_FENCE.rawValue | signaled, false, 0x88), (0, true, 8), (IBV_SEND_FENCE.rawValue, true, 0x88),
        ] as [(UInt32, Bool, UInt32)] {
            let fake = FakeQueuePair(signalsAll: all)
            #expect(fake.post([threeSGEs().send(IBV_WR_SEND, flags: flags)]).error == 0)
            #expect(fake.sends.word(8) == expected)
        }
    }

    @Test("SGEs of length 0 are omitted; a WQE without data is only a control segment")
    func emptySGEs() {
        let fake = FakeQueuePair()
        let list = SGEList([
            ibv_sge(addr: 1, length: 0, lkey: 1), ibv_sge(addr: 2, length: 5, lkey: 2),
            ibv_sge(addr: 3, length: 0, lkey: 3),
        ])
        #expect(fake.post([list.send(IBV_WR_SEND), SGEList([]).send(IBV_WR_SEND)]).error == 0)
        #expect(fake.sends.word(4) & 0xFF == 2 && fake.sends.word(16) == 5 && fake.sends.word(20) == 2)
        #expect(fake.sends.word(64 + 4) & 0xFF == 1)
        let inline = FakeQueuePair()
        #expect(inline.post([payload(0).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)]).error == 0)
        #expect(inline.sends.word(4) & 0xFF == 1)
        // The doorbell of a WQE of one segment has 8 bytes.
        #expect(inline.register.bytes(8..<16).allSatisfy { $0 == 0 })
    }

    @Test(
        "A WQE wraps from the end of the ring to its start, wherever it begins",
        arguments: [60, 61, 62, 63, 0xFFFF, 0xFFFFF] as [UInt32])
    func wraps(wqebb: UInt32) {
        for count in [13, 60, 61, 77, 124] {
            let fake = FakeQueuePair(wqebbs: 4)
            fake.wqebb = wqebb
            #expect(fake.post([payload(count).send(IBV_WR_RDMA_WRITE, flags: IBV_SEND_INLINE.rawValue)]).error == 0)
            let start = 64 * Int(wqebb % 4)
            let whole = (0..<256).map { fake.sends.bytes((start + $0) % 256..<(start + $0) % 256 + 1)[0] }
            #expect(whole[1] == UInt8(truncatingIfNeeded: wqebb >> 8) && whole[2] == UInt8(truncatingIfNeeded: wqebb))
            #expect(whole[7] == UInt8(2 + (count + 4 + 15) / 16))
            #expect(Array(whole[32..<36]) == [0x80, 0, 0, UInt8(count)])
            #expect(Array(whole[36..<36 + count]) == (1...count).map { UInt8($0) })
            #expect(whole[(36 + count)...].allSatisfy { $0 == 0xA5 })
            // BlueFlame writes the wrapped WQE in order.
            let wqebbs = (Int(whole[7]) + 3) / 4
            #expect(fake.register.bytes(0..<64 * wqebbs) == Array(whole[..<(64 * wqebbs)]))
        }
        let fake = FakeQueuePair(wqebbs: 2)
        fake.wqebb = wqebb
        let list = SGEList((1...4).map { ibv_sge(addr: $0, length: 1, lkey: UInt32($0)) })
        #expect(fake.post([list.send(IBV_WR_RDMA_WRITE)]).error == 0)
        let start = 64 * Int(wqebb % 2)
        #expect((0..<4).map { fake.sends.word((start + 32 + 16 * $0) % 128 + 4) } == [1, 2, 3, 4])
    }

    @Test("The buffers of a BlueFlame register alternate; the doorbell of several WQEs has 8 bytes")
    func blueFlameBuffers() {
        for allowsBlueFlame in [true, false] {
            let fake = FakeQueuePair(wqebbs: 64, posts: 40, allowsBlueFlame: allowsBlueFlame)
            let one = payload(4).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)
            for turn in 0..<4 {
                memset(fake.register.memory, 0, 512)
                #expect(fake.post(turn == 2 ? [one, one] : [one]).error == 0)
                let buffer = turn % 2 * 256
                let isWhole = allowsBlueFlame && turn != 2
                #expect(fake.register.bytes(buffer + 8..<buffer + 64).contains { $0 != 0 } == isWhole)
                #expect(
                    fake.register.bytes(buffer..<buffer + 8)
                        == fake.sends.bytes(64 * Int(fake.wqebb - 1)..<64 * Int(fake.wqebb - 1) + 8))
                #expect(fake.register.bytes(256 - buffer..<512 - buffer).allSatisfy { $0 == 0 })
                fake.retire()
            }
        }
    }

    @Test("The send queue is full with max_send_wr WQEs, and accepts as many again when they are retired")
    func full() {
        let fake = FakeQueuePair(posts: 4)
        let request = payload(1).send(IBV_WR_SEND)
        for _ in 0..<40 {
            #expect(fake.post([request, request, request, request, request]) == (ENOMEM, 4))
            #expect(fake.post([request]) == (ENOMEM, 0))
            fake.retire()
        }
    }

    @Test("bad_wr is the work request with the fault; the doorbell is rung for those before it")
    func badRequests() {
        let faults: [(Int32, (inout ibv_send_wr) -> Void)] = [
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
        for (index, (error, fault)) in faults.enumerated() {
            let fake = FakeQueuePair()
            var bad = threeSGEs().send(IBV_WR_SEND)
            fault(&bad)
            let good = threeSGEs().send(IBV_WR_SEND)
            #expect(fake.post([good, bad, good]) == (error, 1), "fault \(index)")
            #expect(fake.wqebb == 1 && fake.doorbellRecord.word(4) == 1, "fault \(index)")
            #expect(fake.post([bad]) == (error, 0) && fake.doorbellRecord.word(4) == 1)
        }
        for state in [IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR] {
            let fake = FakeQueuePair()
            fake.pair.pointee.base.qp_base.state = state
            #expect(fake.post([threeSGEs().send(IBV_WR_SEND)]) == (EINVAL, 0) && fake.doorbellRecord.word(4) == 0)
        }
        #expect(FakeQueuePair(IBV_QPT_UC).post([threeSGEs().send(IBV_WR_RDMA_READ)]) == (EINVAL, 0))
        #expect(FakeQueuePair(IBV_QPT_UD).post([threeSGEs().send(IBV_WR_SEND)]) == (EINVAL, 0))
    }

    @Test("A UD send has a 48-byte address vector after the control segment, and its data in the next WQEBB")
    func datagrams() {
        let handle = AddressHandlePointer.allocate()
        defer { UnsafeMutableRawPointer(handle).deallocate() }
        var attributes = ibv_ah_attr()
        attributes.dlid = 0x1234
        attributes.sl = 5
        handle.vector.putAddressVector(attributes, .infiniband)
        for wqebb: UInt32 in [0, 3] {
            let fake = FakeQueuePair(IBV_QPT_UD, wqebbs: 4)
            fake.wqebb = wqebb
            var request = threeSGEs().send(IBV_WR_SEND_WITH_IMM)
            request.imm_data = UInt32(0x42).bigEndian
            request.wr.ud.ah = UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self)
            request.wr.ud.remote_qpn = 0x77
            request.wr.ud.remote_qkey = 0x8001_0000
            #expect(fake.post([request]).error == 0)
            let offset = 64 * Int(wqebb)
            #expect(
                fake.sends.word(offset + 4) == FakeQueuePair.number << 8 | 7 && fake.sends.word(offset + 12) == 0x42)
            #expect(fake.sends.word(offset + 16) == 0x8001_0000 && fake.sends.word(offset + 20) == 0)
            #expect(fake.sends.word(offset + 24) == 0x8000_0077 && fake.sends.word(offset + 28) == 0x0500_1234)
            let data = 64 * Int((wqebb + 1) % 4)
            #expect((0..<3).map { fake.sends.word(data + 16 * $0) } == [10, 20, 30])
        }
    }

    @Test("Bind and local invalidate of a memory window are UMRs, and the WQE after them has the small fence")
    func windows() {
        var region = ibv_mr()
        region.lkey = 0x3131
        withUnsafeMutablePointer(to: &region) { region in
            for type in [IBV_MW_TYPE_1, IBV_MW_TYPE_2] {
                var window = ibv_mw()
                window.rkey = 0x15500
                window.type = type
                withUnsafeMutablePointer(to: &window) { window in
                    let fake = FakeQueuePair(wqebbs: 8)
                    var bind = SGEList([]).send(IBV_WR_BIND_MW, flags: 0)
                    bind.bind_mw.mw = window
                    bind.bind_mw.rkey = 0x15577
                    bind.bind_mw.bind_info = ibv_mw_bind_info(
                        mr: region, addr: 0x9000, length: 64,
                        mw_access_flags: IBV_ACCESS_REMOTE_WRITE.rawValue | IBV_ACCESS_REMOTE_READ.rawValue)
                    var invalidate = SGEList([]).send(IBV_WR_LOCAL_INV, flags: 0)
                    invalidate.invalidate_rkey = 0x15577
                    let plain = SGEList([]).send(IBV_WR_SEND, flags: 0)
                    #expect(fake.post([bind, invalidate, plain, plain]).error == 0)
                    let isType2 = type == IBV_MW_TYPE_2
                    #expect(fake.sends.word(0) == 0x25 && fake.sends.word(4) & 0xFF == 12)
                    #expect(fake.sends.word(8) == 0 && fake.sends.word(12) == 0x15500)
                    #expect(fake.sends.word(16) == (isType2 ? 0xB000_0000 : 0x9000_0000))
                    #expect(fake.sends.word(20) == 4 << 16 && fake.sends.word(24) == 0)
                    #expect(fake.sends.word(28) == (isType2 ? 0x203C_6041 : 0x203C_2041))
                    #expect(fake.sends.bytes(32..<64).allSatisfy { $0 == 0 })
                    #expect(fake.sends.bytes(64..<67)[0] == 0 && fake.sends.bytes(66..<67)[0] == 0x30)
                    #expect(fake.sends.word(68) == (isType2 ? FakeQueuePair.number << 8 : 0xFFFF_FF00) | 0x77)
                    #expect(fake.sends.word(84) == 0x9000 && fake.sends.word(92) == 64)
                    #expect(
                        fake.sends.word(128) == 64 && fake.sends.word(132) == 0x3131 && fake.sends.word(140) == 0x9000)
                    #expect(fake.sends.bytes(144..<192).allSatisfy { $0 == 0 })
                    // The local invalidate.
                    #expect(fake.sends.word(192) == 3 << 8 | 0x25 && fake.sends.word(196) & 0xFF == 8)
                    #expect(fake.sends.word(200) == 0x20 && fake.sends.word(204) == 0x15577)
                    #expect(fake.sends.word(208) == 0x9800_0000 && fake.sends.word(212) == 0)
                    #expect(fake.sends.word(220) == 0x2000_6000)
                    #expect(fake.sends.bytes(256..<257) == [0x40] && fake.sends.word(260) == 0xFFFF_FF00)
                    // The WQE after the UMRs has the small fence, the one after that has none.
                    #expect(fake.sends.word(320 + 8) == 0x20 && fake.sends.word(384 + 8) == 0)
                    fake.retire()
                    bind.bind_mw.bind_info.length = 1 << 31 + 1
                    #expect(fake.post([bind]) == (EOPNOTSUPP, 0))
                }
            }
        }
    }

    @Test("A receive WQE has its SGEs, and MLX5_INVALID_LKEY after them if it has room for more")
    func receives() {
        let fake = FakeQueuePair(receives: 4)
        let four = SGEList((1...4).map { ibv_sge(addr: $0, length: 1, lkey: UInt32($0)) })
        #expect(fake.postReceives([threeSGEs().receive(), four.receive(), SGEList([]).receive()]).error == 0)
        #expect((0..<4).map { fake.receives.word(16 * $0) } == [10, 20, 30, 0])
        #expect((0..<4).map { fake.receives.word(16 * $0 + 4) } == [0x101, 0x102, 0x103, 0x100])
        #expect((0..<4).map { fake.receives.word(64 + 16 * $0 + 4) } == [1, 2, 3, 4])
        #expect(fake.receives.word(128) == 0 && fake.receives.word(132) == 0x100)
        #expect(fake.doorbellRecord.word(0) == 3 && fake.doorbellRecord.word(4) == 0)
        #expect(fake.postReceives([four.receive(), four.receive()]) == (ENOMEM, 1))
        fake.retired[1] = 4
        var long = four.receive()
        long.num_sge = 5
        #expect(fake.postReceives([four.receive(), long]) == (EINVAL, 1) && fake.doorbellRecord.word(0) == 5)
        fake.pair.pointee.base.qp_base.state = IBV_QPS_RESET
        #expect(fake.postReceives([four.receive()]) == (EINVAL, 0))
    }

    @Test("The wr_ functions write the WQEs and doorbells of ibv_post_send, for random work requests", arguments: 0..<8)
    func builders(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let built = FakeQueuePair(wqebbs: 32, posts: 8)
        let posted = FakeQueuePair(wqebbs: 32, posts: 8)
        for _ in 0..<200 {
            var requests: [ibv_send_wr] = []
            let qp = built.extended
            ibv_wr_start(qp)
            for _ in 0..<random.within(1...3) {
                let isInline = random.chance(30)
                let list = isInline ? payload(random.below(125)) : threeSGEs()
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
            #expect(built.doorbellRecord.bytes(0..<8) == posted.doorbellRecord.bytes(0..<8))
            #expect(built.register.bytes(0..<512) == posted.register.bytes(0..<512))
            built.retire()
            posted.retire()
        }
    }

    @Test("After an error in a wr_ function, wr_complete posts nothing and restores the state before wr_start")
    func builderErrors() {
        let faults: [(Int32, (UnsafeMutablePointer<ibv_qp_ex>) -> Void)] = [
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
        for (index, (error, fault)) in faults.enumerated() {
            let fake = FakeQueuePair()
            ibv_wr_start(fake.extended)
            fault(fake.extended)
            #expect(ibv_wr_complete(fake.extended) == error, "fault \(index)")
            #expect(fake.wqebb == 0 && fake.doorbellRecord.word(4) == 0 && fake.register.word(0) == 0)
            ibv_wr_start(fake.extended)
            ibv_wr_local_inv(fake.extended, 1)
            ibv_wr_abort(fake.extended)
            ibv_wr_start(fake.extended)
            #expect(ibv_wr_complete(fake.extended) == 0 && fake.wqebb == 0)
            ibv_wr_start(fake.extended)
            ibv_wr_send(fake.extended)
            #expect(ibv_wr_complete(fake.extended) == 0 && fake.wqebb == 1 && fake.sends.word(8) & 0x20 == 0)
        }
    }

    @Test("Any work request is posted or refused, and nothing beyond the queue is accessed", arguments: 0..<4)
    func randomRequests(seed: UInt64) {
        var random = SplitMix(seed: seed)
        let fake = FakeQueuePair(random.pick([IBV_QPT_RC, IBV_QPT_UC]), wqebbs: 8, posts: 2)
        let data = GuardedMemory(300)
        for _ in 0..<2000 {
            let list = SGEList(
                (0..<5).map { _ in
                    ibv_sge(
                        addr: UInt64(UInt(bitPattern: data.memory)),
                        length: random.chance(90) ? random.any() % 60 : random.any(), lkey: random.any())
                })
            var request = list.send(
                ibv_wr_opcode(UInt32(random.pick([0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]))),
                flags: UInt32(random.below(16)) | (random.any() & 8))
            request.num_sge = Int32(random.within(-1...6))
            let before = fake.wqebb
            let result = fake.post([request])
            #expect(result.error == 0 || result.error == EINVAL || result.error == EOPNOTSUPP)
            #expect(fake.wqebb &- before <= 8 && (result.error == 0) == (fake.wqebb != before))
            fake.retire()
        }
    }

    @Test(
        "Posting allocates nothing",
        .enabled(if: !allocation_count_is_blind(), "a sanitizer replaces malloc"))
    func allocations() {
        let fake = FakeQueuePair()
        var request = threeSGEs().send(IBV_WR_RDMA_WRITE)
        var inline = payload(60).send(IBV_WR_SEND, flags: IBV_SEND_INLINE.rawValue)
        var receive = threeSGEs().receive()
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
