import CIBVerbs
import RoCETransport
import RoCEWire
import Testing

/// Compares the constants and layouts that are written out in RoCEWire and RoCETransport with verbs.h.
@Suite("Constants and layouts of verbs.h")
struct VerbsHeaderTests {
    @Test("The raw values of QueuePairState are those of enum ibv_qp_state")
    func states() {
        let states: [(QueuePairState, ibv_qp_state)] = [
            (.reset, IBV_QPS_RESET), (.initialized, IBV_QPS_INIT), (.readyToReceive, IBV_QPS_RTR),
            (.readyToSend, IBV_QPS_RTS), (.sendQueueDrained, IBV_QPS_SQD), (.sendQueueError, IBV_QPS_SQE),
            (.error, IBV_QPS_ERR),
        ]
        for (state, code) in states { #expect(UInt32(state.rawValue) == code.rawValue) }
    }

    @Test("Path MTUs are those of enum ibv_mtu, and the largest one is the longest payload of a packet")
    func pathMTU() {
        #expect(Limits.minPathMTU == 256 && Limits.maxPathMTU == 4096)
        #expect(PacketHeaders.maximumPayloadByteCount == 128 << Int(IBV_MTU_4096.rawValue))
        #expect(Engine.packetRoom == 44 + 4096 + 4)
    }

    @Test("WorkCompletion has the offsets of struct ibv_wc")
    func workCompletion() {
        #expect(MemoryLayout<WorkCompletion>.stride == MemoryLayout<ibv_wc>.stride)
        let offsets = [
            (MemoryLayout<WorkCompletion>.offset(of: \.id), MemoryLayout<ibv_wc>.offset(of: \.wr_id)),
            (MemoryLayout<WorkCompletion>.offset(of: \.status), MemoryLayout<ibv_wc>.offset(of: \.status)),
            (MemoryLayout<WorkCompletion>.offset(of: \.opcode), MemoryLayout<ibv_wc>.offset(of: \.opcode)),
            (MemoryLayout<WorkCompletion>.offset(of: \.vendorError), MemoryLayout<ibv_wc>.offset(of: \.vendor_err)),
            (MemoryLayout<WorkCompletion>.offset(of: \.byteCount), MemoryLayout<ibv_wc>.offset(of: \.byte_len)),
            (MemoryLayout<WorkCompletion>.offset(of: \.queuePairNumber), MemoryLayout<ibv_wc>.offset(of: \.qp_num)),
            (
                MemoryLayout<WorkCompletion>.offset(of: \.sourceQueuePairNumber),
                MemoryLayout<ibv_wc>.offset(of: \.src_qp)
            ),
            (MemoryLayout<WorkCompletion>.offset(of: \.flags), MemoryLayout<ibv_wc>.offset(of: \.wc_flags)),
            (MemoryLayout<WorkCompletion>.offset(of: \.pkeyIndex), MemoryLayout<ibv_wc>.offset(of: \.pkey_index)),
            (MemoryLayout<WorkCompletion>.offset(of: \.sourceLID), MemoryLayout<ibv_wc>.offset(of: \.slid)),
            (MemoryLayout<WorkCompletion>.offset(of: \.serviceLevel), MemoryLayout<ibv_wc>.offset(of: \.sl)),
            (
                MemoryLayout<WorkCompletion>.offset(of: \.destinationPathBits),
                MemoryLayout<ibv_wc>.offset(of: \.dlid_path_bits)
            ),
        ]
        for (own, header) in offsets { #expect(own == header) }
    }

    @Test("SGE has the offsets of struct ibv_sge")
    func sge() {
        #expect(MemoryLayout<SGE>.stride == MemoryLayout<ibv_sge>.stride)
        #expect(MemoryLayout<SGE>.offset(of: \.address) == MemoryLayout<ibv_sge>.offset(of: \.addr))
        #expect(MemoryLayout<SGE>.offset(of: \.length) == MemoryLayout<ibv_sge>.offset(of: \.length))
        #expect(MemoryLayout<SGE>.offset(of: \.lkey) == MemoryLayout<ibv_sge>.offset(of: \.lkey))
    }

    @Test("The GRH area of a datagram is as long as struct ibv_grh and the IPv6 header")
    func grh() {
        #expect(MemoryLayout<ibv_grh>.size == 40 && IPv6Header.byteCount == 40)
    }
}
