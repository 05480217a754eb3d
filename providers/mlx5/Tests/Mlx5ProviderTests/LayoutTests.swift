import CIBVerbs
import CMlx5DV
import Foundation
import TestSupport
import Testing

@testable import Mlx5Provider

/// Memory for one structure.
private func bytes(_ count: Int, _ fill: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
    var memory = [UInt8](repeating: 0, count: count)
    memory.withUnsafeMutableBytes { fill($0.baseAddress!) }
    return memory
}

@Suite("mlx5: the layouts against those of mlx5dv.h")
struct LayoutTests {
    @Test("The first segment is what mlx5dv_set_ctrl_seg writes, for any values", arguments: 0..<4)
    func control(seed: UInt64) {
        var random = SplitMix(seed: seed)
        for _ in 0..<200 {
            let (index, opcode): (UInt16, UInt8) = (random.any(), random.any())
            let (pair, segments, immediate) = (
                random.any(UInt32.self) & 0xFFFFFF, random.any(UInt8.self), random.any(UInt32.self)
            )
            let (fence, completion, solicited) = (
                UInt32(random.below(8)), UInt32(random.below(4)), UInt32(random.below(2))
            )
            let theirs = bytes(16) {
                mlx5dv_set_ctrl_seg(
                    $0.assumingMemoryBound(to: mlx5_wqe_ctrl_seg.self), index, opcode, 0, pair,
                    UInt8(fence << 5 | completion << 2 | solicited << 1), segments, 0, immediate.bigEndian)
            }
            let ours = bytes(16) {
                $0.put(
                    Filled(ControlSegment.index, UInt32(index)), Filled(ControlSegment.opcode, UInt32(opcode)))
                $0.put(Filled(ControlSegment.queuePair, pair), Filled(ControlSegment.segments, UInt32(segments)))
                $0.put(
                    Filled(ControlSegment.fence, fence), Filled(ControlSegment.completion, completion),
                    Filled(ControlSegment.solicited, solicited))
                ControlSegment.immediate.put(immediate, in: $0)
            }
            #expect(ours == theirs)
        }
    }

    @Test("A piece of memory is what mlx5dv_set_data_seg writes, an address what mlx5dv_set_dgram_seg writes")
    func pieces() {
        var random = SplitMix(seed: 9)
        for _ in 0..<200 {
            let (length, key, address): (UInt32, UInt32, UInt64) = (random.any(), random.any(), random.any())
            #expect(
                bytes(16) { $0.putPiece(length, key, address) }
                    == bytes(16) {
                        mlx5dv_set_data_seg(
                            $0.assumingMemoryBound(to: mlx5_wqe_data_seg.self), length, key, UInt(address))
                    })

            var attributes = ibv_ah_attr()
            attributes.is_global = 1
            attributes.sl = random.any() & 15
            attributes.src_path_bits = random.any() & 127
            attributes.dlid = random.any()
            attributes.grh.traffic_class = random.any()
            attributes.grh.hop_limit = random.any()
            attributes.grh.sgid_index = random.any()
            attributes.grh.flow_label = random.any() & 0xFFFFF
            attributes.grh.dgid.global.subnet_prefix = random.any()
            attributes.grh.dgid.global.interface_id = random.any()
            let number: UInt32 = random.any() & 0xFFFFFF
            let isEthernet = random.chance(50)
            var mac = InlineArray<6, UInt8>(repeating: 0)
            for index in 0..<6 { mac[index] = random.any() }
            let port: UInt16 = random.any()
            let handle = AddressHandlePointer.allocate()
            defer { UnsafeMutableRawPointer(handle).deallocate() }
            handle.vector.putAddressVector(attributes, isEthernet ? .ethernet(mac: mac, udpPort: port) : .infiniband)
            let ours = bytes(48) {
                $0.putAddress(
                    UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self), queuePair: number, key: key)
            }
            var macBytes = isEthernet ? (0..<6).map { mac[$0] } : [UInt8](repeating: 0, count: 6)
            let grh = (isEthernet ? 0 : 1 << 30) | UInt32(attributes.grh.sgid_index) << 20 | attributes.grh.flow_label
            let theirs = bytes(48) {
                mlx5dv_set_dgram_seg(
                    $0.assumingMemoryBound(to: mlx5_wqe_datagram_seg.self), UInt64(key) << 32, number, 1,
                    isEthernet ? (attributes.sl & 7) << 1 : attributes.sl,
                    isEthernet ? 0 : attributes.src_path_bits, isEthernet ? port : attributes.dlid, &macBytes,
                    attributes.grh.traffic_class, attributes.grh.hop_limit, grh, &attributes.grh.dgid.raw.0)
            }
            #expect(ours == theirs)
        }
    }

    @Test("Each field lies where mlx5dv.h has it")
    func places() {
        func at<Root, Value>(_ path: PartialKeyPath<Root>, _ type: Value.Type = Value.self) -> Int {
            MemoryLayout<Root>.offset(of: path)!
        }
        typealias Remote = mlx5_wqe_raddr_seg
        #expect(RemoteAddressSegment.address.offset == at(\Remote.raddr, UInt64.self))
        #expect(RemoteAddressSegment.key.offset == at(\Remote.rkey, UInt32.self))
        #expect(MemoryLayout<Remote>.size == RemoteAddressSegment.byteCount)
        typealias Atomic = mlx5_wqe_atomic_seg
        #expect(AtomicSegment.swapOrAdd.offset == at(\Atomic.swap_add, UInt64.self))
        #expect(AtomicSegment.compare.offset == at(\Atomic.compare, UInt64.self))
        typealias Change = mlx5_wqe_umr_ctrl_seg
        #expect(KeyControlSegment.isInline.offset == at(\Change.flags, UInt8.self))
        #expect(KeyControlSegment.translations.offset == at(\Change.klm_octowords, UInt16.self))
        #expect(KeyControlSegment.mask.offset == at(\Change.mkey_mask, UInt64.self))
        #expect(MemoryLayout<Change>.size == KeyControlSegment.byteCount)
        // Of a byte at the beginning of a word of 32 bits.
        #expect(1 << (KeyControlSegment.isInline.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_INLINE)
        #expect(1 << (KeyControlSegment.checksFree.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_CHECK_FREE)
        #expect(1 << (KeyControlSegment.hasTranslationOffset.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_TRNSLATION_OFFSET)
        #expect(1 << (KeyControlSegment.checksQueuePair.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_CHECK_QPN)
        typealias Key = mlx5_wqe_mkey_context_seg
        #expect(KeyContextSegment.isFree.offset == at(\Key.free, UInt8.self))
        #expect(1 << KeyContextSegment.isFree.low == MLX5_WQE_MKEY_CONTEXT_FREE)
        #expect(KeyContextSegment.access.offset == at(\Key.access_flags, UInt8.self))
        #expect(1 << KeyContextSegment.access.low == MLX5_WQE_MKEY_CONTEXT_ACCESS_FLAGS_LOCAL_READ)
        #expect(KeyContextSegment.queuePair.offset == at(\Key.qpn_mkey, UInt32.self))
        #expect(KeyContextSegment.key.offset == at(\Key.qpn_mkey, UInt32.self))
        #expect(KeyContextSegment.address.offset == at(\Key.start_addr, UInt64.self))
        #expect(KeyContextSegment.length.offset == at(\Key.len, UInt64.self))
        #expect(MemoryLayout<Key>.size == KeyContextSegment.byteCount)
        typealias Translation = mlx5_wqe_umr_klm_seg
        #expect(TranslationSegment.length.offset == at(\Translation.byte_count, UInt32.self))
        #expect(TranslationSegment.key.offset == at(\Translation.mkey, UInt32.self))
        #expect(TranslationSegment.address.offset == at(\Translation.address, UInt64.self))
        #expect(NextSegment.next.offset == at(\mlx5_wqe_srq_next_seg.next_wqe_index, UInt16.self))
        #expect(MemoryLayout<mlx5_wqe_srq_next_seg>.size == NextSegment.byteCount)
        typealias Error = mlx5_err_cqe
        #expect(CompletionEntry.vendorError.offset == at(\Error.vendor_err_synd, UInt8.self))
        #expect(CompletionEntry.syndrome.offset == at(\Error.syndrome, UInt8.self))
        #expect(CompletionEntry.userIndex.offset == at(\Error.srqn, UInt32.self))
        #expect(MemoryLayout<mlx5_cqe64>.size == CompletionEntry.byteCount)
    }

    @Test("The numbers are those of mlx5dv.h")
    func numbers() {
        #expect(Opcode.send == UInt32(MLX5_OPCODE_SEND) && Opcode.sendImmediate == UInt32(MLX5_OPCODE_SEND_IMM))
        #expect(
            Opcode.sendInvalidate == UInt32(MLX5_OPCODE_SEND_INVAL) && Opcode.write == UInt32(MLX5_OPCODE_RDMA_WRITE))
        #expect(
            Opcode.writeImmediate == UInt32(MLX5_OPCODE_RDMA_WRITE_IMM) && Opcode.read == UInt32(MLX5_OPCODE_RDMA_READ))
        #expect(Opcode.compareSwap == UInt32(MLX5_OPCODE_ATOMIC_CS) && Opcode.fetchAdd == UInt32(MLX5_OPCODE_ATOMIC_FA))
        #expect(Opcode.changeKey == UInt32(MLX5_OPCODE_UMR))
        #expect(
            Control.fence << 5 == UInt32(MLX5_WQE_CTRL_FENCE)
                && Control.signaled << 2 == UInt32(MLX5_WQE_CTRL_CQ_UPDATE))
        #expect(Control.keyFence << 5 == UInt32(MLX5_WQE_CTRL_INITIATOR_SMALL_FENCE))
        #expect(endOfListKey == UInt32(MLX5_INVALID_LKEY) && CompletionDoorbell.request.offset == Int(MLX5_CQ_DOORBELL))
        #expect(
            KeyMask.length == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_LEN)
                && KeyMask.key == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_MKEY))
        #expect(KeyMask.address == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_START_ADDR))
        #expect(KeyMask.queuePair == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_QPN))
        #expect(KeyMask.isFree == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_FREE))
        let access =
            MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_LOCAL_WRITE | MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_REMOTE_READ
            | MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_REMOTE_WRITE | MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_ATOMIC
        #expect(KeyMask.access == UInt64(access))
        let kinds: [(CompletionKind, Int)] = [
            (.request, MLX5_CQE_REQ), (.writeImmediate, MLX5_CQE_RESP_WR_IMM), (.send, MLX5_CQE_RESP_SEND),
            (.sendImmediate, MLX5_CQE_RESP_SEND_IMM), (.sendInvalidate, MLX5_CQE_RESP_SEND_INV),
            (.resize, MLX5_CQE_RESIZE_CQ), (.requestError, MLX5_CQE_REQ_ERR), (.responseError, MLX5_CQE_RESP_ERR),
            (.none, MLX5_CQE_INVALID),
        ]
        for (kind, value) in kinds { #expect(Int(kind.rawValue) == value) }
    }

    @Test("The fields are numbered from 0 on, each once")
    func numbering() throws {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../Sources/Layouts.swift")
        let text = try String(contentsOf: file, encoding: .utf8)
        let numbers = text.matches(of: /Field\(([0-9]+),/).map { Int($0.1)! }
        #expect(numbers == Array(0..<fieldCount))
    }

    @Test("The UDP port is that of libibverbs, for every bit of a flow label")
    func ports() {
        for bit in 0..<20 {
            #expect(udpPort(flowLabel: 1 << bit) == ibv_flow_label_to_udp_sport(1 << bit))
        }
        #expect(udpPort(flowLabel: 0xABCDE) == ibv_flow_label_to_udp_sport(0xABCDE))
    }
}
