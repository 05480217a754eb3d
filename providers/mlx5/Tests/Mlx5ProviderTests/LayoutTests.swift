import CIBVerbs
import CMlx5DV
import Foundation
import ProviderKit
import TestSupport
import Testing

@testable import Mlx5Provider

/// Returns the bytes of zeroed memory that `fill` has written to.
private func bytes(_ count: Int, _ fill: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
    var memory = [UInt8](repeating: 0, count: count)
    memory.withUnsafeMutableBytes { fill($0.baseAddress!) }
    return memory
}

@Suite("mlx5: the layouts are those of mlx5dv.h")
struct LayoutTests {
    @Test("The control segment is that of mlx5dv_set_ctrl_seg, for random values", arguments: 0..<4)
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
            let expected = bytes(16) {
                mlx5dv_set_ctrl_seg(
                    $0.assumingMemoryBound(to: mlx5_wqe_ctrl_seg.self), index, opcode, 0, pair,
                    UInt8(fence << 5 | completion << 2 | solicited << 1), segments, 0, immediate.bigEndian)
            }
            let written = bytes(16) {
                $0.put(
                    Filled(ControlSegment.index, UInt32(index)), Filled(ControlSegment.opcode, UInt32(opcode)))
                $0.put(Filled(ControlSegment.queuePair, pair), Filled(ControlSegment.segments, UInt32(segments)))
                $0.put(
                    Filled(ControlSegment.fence, fence), Filled(ControlSegment.completion, completion),
                    Filled(ControlSegment.solicited, solicited))
                ControlSegment.immediate.put(immediate, in: $0)
            }
            #expect(written == expected)
        }
    }

    @Test("A data segment is that of mlx5dv_set_data_seg, an address vector that of mlx5dv_set_dgram_seg")
    func sges() {
        var random = SplitMix(seed: 9)
        for _ in 0..<200 {
            let (length, key, address): (UInt32, UInt32, UInt64) = (random.any(), random.any(), random.any())
            #expect(
                bytes(16) { $0.putSGE(length, key, address) }
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
            let written = bytes(48) {
                $0.putAddress(
                    UnsafeMutableRawPointer(handle).assumingMemoryBound(to: ibv_ah.self), queuePair: number, key: key)
            }
            var macBytes = isEthernet ? (0..<6).map { mac[$0] } : [UInt8](repeating: 0, count: 6)
            let grh = (isEthernet ? 0 : 1 << 30) | UInt32(attributes.grh.sgid_index) << 20 | attributes.grh.flow_label
            let expected = bytes(48) {
                mlx5dv_set_dgram_seg(
                    $0.assumingMemoryBound(to: mlx5_wqe_datagram_seg.self), UInt64(key) << 32, number, 1,
                    isEthernet ? (attributes.sl & 7) << 1 : attributes.sl,
                    isEthernet ? 0 : attributes.src_path_bits, isEthernet ? port : attributes.dlid, &macBytes,
                    attributes.grh.traffic_class, attributes.grh.hop_limit, grh, &attributes.grh.dgid.raw.0)
            }
            #expect(written == expected)
        }
    }

    @Test("Each field has the offset of its field in mlx5dv.h")
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
        typealias UMRControl = mlx5_wqe_umr_ctrl_seg
        #expect(UMRControlSegment.isInline.offset == at(\UMRControl.flags, UInt8.self))
        #expect(UMRControlSegment.klmOctowords.offset == at(\UMRControl.klm_octowords, UInt16.self))
        #expect(UMRControlSegment.mask.offset == at(\UMRControl.mkey_mask, UInt64.self))
        #expect(MemoryLayout<UMRControl>.size == UMRControlSegment.byteCount)
        // The flags are the first byte of a 32-bit word.
        #expect(1 << (UMRControlSegment.isInline.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_INLINE)
        #expect(1 << (UMRControlSegment.checksFree.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_CHECK_FREE)
        #expect(1 << (UMRControlSegment.hasTranslationOffset.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_TRNSLATION_OFFSET)
        #expect(1 << (UMRControlSegment.checksQueuePair.low - 24) == MLX5_WQE_UMR_CTRL_FLAG_CHECK_QPN)
        typealias MKeyContext = mlx5_wqe_mkey_context_seg
        #expect(MKeyContextSegment.isFree.offset == at(\MKeyContext.free, UInt8.self))
        #expect(1 << MKeyContextSegment.isFree.low == MLX5_WQE_MKEY_CONTEXT_FREE)
        #expect(MKeyContextSegment.access.offset == at(\MKeyContext.access_flags, UInt8.self))
        #expect(1 << MKeyContextSegment.access.low == MLX5_WQE_MKEY_CONTEXT_ACCESS_FLAGS_LOCAL_READ)
        #expect(MKeyContextSegment.queuePair.offset == at(\MKeyContext.qpn_mkey, UInt32.self))
        #expect(MKeyContextSegment.key.offset == at(\MKeyContext.qpn_mkey, UInt32.self))
        #expect(MKeyContextSegment.address.offset == at(\MKeyContext.start_addr, UInt64.self))
        #expect(MKeyContextSegment.length.offset == at(\MKeyContext.len, UInt64.self))
        #expect(MemoryLayout<MKeyContext>.size == MKeyContextSegment.byteCount)
        typealias KLM = mlx5_wqe_umr_klm_seg
        #expect(KLMSegment.length.offset == at(\KLM.byte_count, UInt32.self))
        #expect(KLMSegment.key.offset == at(\KLM.mkey, UInt32.self))
        #expect(KLMSegment.address.offset == at(\KLM.address, UInt64.self))
        #expect(NextSegment.next.offset == at(\mlx5_wqe_srq_next_seg.next_wqe_index, UInt16.self))
        #expect(MemoryLayout<mlx5_wqe_srq_next_seg>.size == NextSegment.byteCount)
        typealias Error = mlx5_err_cqe
        #expect(CQE.vendorError.offset == at(\Error.vendor_err_synd, UInt8.self))
        #expect(CQE.syndrome.offset == at(\Error.syndrome, UInt8.self))
        #expect(CQE.userIndex.offset == at(\Error.srqn, UInt32.self))
        #expect(MemoryLayout<mlx5_cqe64>.size == CQE.byteCount)
    }

    @Test("The opcodes, flags and masks are those of mlx5dv.h")
    func numbers() {
        #expect(Opcode.send == UInt32(MLX5_OPCODE_SEND) && Opcode.sendImmediate == UInt32(MLX5_OPCODE_SEND_IMM))
        #expect(
            Opcode.sendInvalidate == UInt32(MLX5_OPCODE_SEND_INVAL) && Opcode.write == UInt32(MLX5_OPCODE_RDMA_WRITE))
        #expect(
            Opcode.writeImmediate == UInt32(MLX5_OPCODE_RDMA_WRITE_IMM) && Opcode.read == UInt32(MLX5_OPCODE_RDMA_READ))
        #expect(Opcode.compareSwap == UInt32(MLX5_OPCODE_ATOMIC_CS) && Opcode.fetchAdd == UInt32(MLX5_OPCODE_ATOMIC_FA))
        #expect(Opcode.umr == UInt32(MLX5_OPCODE_UMR))
        #expect(
            Control.fence << 5 == UInt32(MLX5_WQE_CTRL_FENCE)
                && Control.signaled << 2 == UInt32(MLX5_WQE_CTRL_CQ_UPDATE))
        #expect(Control.smallFence << 5 == UInt32(MLX5_WQE_CTRL_INITIATOR_SMALL_FENCE))
        #expect(
            invalidLKey == UInt32(MLX5_INVALID_LKEY) && CompletionQueueDoorbell.request.offset == Int(MLX5_CQ_DOORBELL))
        #expect(
            MKeyMask.length == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_LEN)
                && MKeyMask.key == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_MKEY))
        #expect(MKeyMask.address == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_START_ADDR))
        #expect(MKeyMask.queuePair == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_QPN))
        #expect(MKeyMask.isFree == UInt64(MLX5_WQE_UMR_CTRL_MKEY_MASK_FREE))
        let access =
            MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_LOCAL_WRITE | MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_REMOTE_READ
            | MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_REMOTE_WRITE | MLX5_WQE_UMR_CTRL_MKEY_MASK_ACCESS_ATOMIC
        #expect(MKeyMask.access == UInt64(access))
        let opcodes: [(CQEOpcode, Int)] = [
            (.request, MLX5_CQE_REQ), (.writeImmediate, MLX5_CQE_RESP_WR_IMM), (.send, MLX5_CQE_RESP_SEND),
            (.sendImmediate, MLX5_CQE_RESP_SEND_IMM), (.sendInvalidate, MLX5_CQE_RESP_SEND_INV),
            (.resize, MLX5_CQE_RESIZE_CQ), (.requestError, MLX5_CQE_REQ_ERR), (.responseError, MLX5_CQE_RESP_ERR),
            (.invalid, MLX5_CQE_INVALID),
        ]
        for (opcode, value) in opcodes { #expect(Int(opcode.rawValue) == value) }
    }

    @Test("The fields are numbered consecutively from 0")
    func numbering() throws {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../Sources/Layouts.swift")
        let text = try String(contentsOf: file, encoding: .utf8)
        let numbers = text.matches(of: /Field\(([0-9]+),/).map { Int($0.1)! }
        #expect(numbers == Array(0..<fieldCount))
    }

    @Test("The UDP source port is that of libibverbs, for each bit of the flow label")
    func ports() {
        for bit in 0..<20 {
            #expect(udpPort(flowLabel: 1 << bit) == ibv_flow_label_to_udp_sport(1 << bit))
        }
        #expect(udpPort(flowLabel: 0xABCDE) == ibv_flow_label_to_udp_sport(0xABCDE))
    }
}
