import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// The defect of the last request of a list.
enum Cxgb4Defect: CaseIterable {
    case opcode, sges, inline

    /// The errno value of ours for that of the vendor's library.
    func ours(_ error: Int32) -> Int32 {
        switch (self, error) {
        case (.opcode, EINVAL): EOPNOTSUPP
        case (.inline, EMSGSIZE): EINVAL
        default: error
        }
    }
}

extension Cxgb4Stream {
    // MARK: - Sends

    func postSends(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let isPair = random.chance(12)
        let count = isPair ? 2 : random.chance(40) ? 1 : 1 + random.below(16)
        // In a full queue the libraries check the defect and the room in another order.
        let defect = !isPair && count <= pair.room && random.chance(6) ? random.pick(Cxgb4Defect.allCases) : nil
        for place in 0..<count { fillSend(place, defect: place == count - 1 ? defect : nil) }
        if isPair { fillPair() }
        // Without a signaled request the queue would stay full.
        if count >= pair.room { requests.sends[0].send_flags |= IBV_SEND_SIGNALED.rawValue }
        requests.linkSends(count)
        operation =
            "posting \(count) sends\(defect.map { ", the last with a wrong \($0)" } ?? "") to queue pair \(index)"
        pair.fillFree(from: pair.slot, random.any())
        // libcxgb4 returns negative errno values; for a defect another one (the provider's README, "Differences").
        let accepted = try postBoth(count, requests.sends, operation) { side, bad in
            let error = abs(ibv_post_send(sides[side].pairs[index], requests.sends, &bad))
            return side == 0 ? defect?.ours(error) ?? error : error
        }
        record(accepted, pair)
        // Ours has begun to write the refused WR into the queue, libcxgb4 on its stack.
        if defect != nil {
            try dropStores()
            pair.fillFree(from: pair.slot, random.any())
        }
        try pair.compareSends(operation)
        posted += accepted
    }

    /// Adds the accepted requests to the model. The size of each is in its header.
    private func record(_ accepted: Int, _ pair: Cxgb4Pair) {
        var last = (slots: 0, bytes: 0)
        var place = 0
        let slots = pair.sendQueue.ours.count / 64
        while place < accepted {
            let offset = pair.slot * 64
            let header = pair.sendQueue.ours.load(fromByteOffset: offset, as: UInt64.self)
            let bytes = Int(header >> 56) * 16
            let isPair = UInt8(truncatingIfNeeded: header) == 0x21
            let isWrite = UInt8(truncatingIfNeeded: header) == 0x14
            let isEmpty = requests.sends[place].num_sge == 0 && requests.sends[place].opcode != IBV_WR_RDMA_READ
            // The bytes that libcxgb4 takes from its stack: 12 ..< 16 of a WRITE; those behind immediate data of length 0
            // without an SGE; in a queue in the adapter's memory, those up to the end of the WR's last slot.
            unwritten = (isWrite ? [12, 4] : []) + (isEmpty ? [40, 8] : [])
            if kind.contains("onchip") { unwritten += [bytes, (bytes + 63) / 64 * 64 - bytes] }
            for range in stride(from: 0, to: unwritten.count, by: 2) {
                for byte in unwritten[range]..<unwritten[range] + unwritten[range + 1] {
                    for side in 0...1 { pair.sendQueue[side][(offset + byte) % pair.sendQueue[side].count] = 0 }
                }
            }
            last = ((bytes + 63) / 64, bytes)
            for half in 0..<(isPair ? 2 : 1) where place + half < accepted {
                let request = requests.sends[place + half]
                let isSignaled = pair.plan.signalsAll || request.send_flags & IBV_SEND_SIGNALED.rawValue != 0
                pair.sends.append(
                    Cxgb4Send(
                        id: request.wr_id, index: pair.next, opcode: request.opcode, isSignaled: isSignaled,
                        slots: half == 0 ? last.slots : 0))
                pair.next = UInt16((Int(pair.next) + 1) % pair.entries)
            }
            pair.slot = (pair.slot + last.slots) % slots
            place += isPair ? 2 : 1
        }
    }

    private func fillSend(_ index: Int, defect: Cxgb4Defect?) {
        let request = requests.sends + index
        request.initialize(to: ibv_send_wr())
        request.pointee.wr_id = random.any()
        request.pointee.sg_list = requests.list(index)
        for (flag, percent) in [(IBV_SEND_SIGNALED, 60), (IBV_SEND_FENCE, 35), (IBV_SEND_SOLICITED, 35)]
        where random.chance(percent) {
            request.pointee.send_flags |= flag.rawValue
        }
        var opcodes = [IBV_WR_SEND, IBV_WR_SEND_WITH_INV, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ]
        if hasImmediate { opcodes.append(IBV_WR_RDMA_WRITE_WITH_IMM) }
        request.pointee.opcode = random.pick(opcodes)
        if request.pointee.opcode == IBV_WR_SEND_WITH_INV { request.pointee.invalidate_rkey = random.any() }
        if request.pointee.opcode == IBV_WR_RDMA_WRITE_WITH_IMM { request.pointee.imm_data = random.any() }
        request.pointee.wr.rdma.remote_addr = random.any()
        request.pointee.wr.rdma.rkey = random.any()
        let isRead = request.pointee.opcode == IBV_WR_RDMA_READ
        if defect == .inline || (!isRead && random.chance(40)) {
            if isRead { request.pointee.opcode = IBV_WR_SEND }
            fillInline(index, isTooLong: defect == .inline)
        } else {
            request.pointee.num_sge = Int32(random.below(isRead ? 2 : Int(Cxgb4Side.sendSGEs) + 1))
            for place in 0..<Int(request.pointee.num_sge) { requests.list(index)[place] = randomSGE() }
            // libcxgb4 reports the length of the first SGE for a READ of no SGE, too.
            if request.pointee.num_sge == 0 { requests.list(index)[0].length = 0 }
        }
        switch defect {
        case .sges: request.pointee.num_sge = 18 + random.any(Int32.self) & 7
        case .opcode: request.pointee.opcode = random.pick([IBV_WR_SEND_WITH_IMM, IBV_WR_ATOMIC_FETCH_AND_ADD])
        default: break
        }
        // The sum of 17 lengths may not overflow.
        if defect == .sges {
            for place in 0..<Int(request.pointee.num_sge) { requests.list(index)[place] = randomSGE() }
        }
    }

    /// Whether the device has WRITE with immediate data.
    private var hasImmediate: Bool { kind.contains("t6") && !kind.contains("cqe32") }

    private func randomSGE() -> ibv_sge {
        ibv_sge(addr: random.any(), length: random.any(UInt32.self) & 0xFF_FFFF, lkey: random.any())
    }

    private func fillInline(_ index: Int, isTooLong: Bool) {
        let request = requests.sends + index
        request.pointee.send_flags |= IBV_SEND_INLINE.rawValue
        let count = 1 + random.below(Int(Cxgb4Side.sendSGEs))
        var rest = isTooLong ? Int(Cxgb4Side.inline) + 1 + random.below(40) : random.below(Int(Cxgb4Side.inline) + 1)
        request.pointee.num_sge = Int32(count)
        for place in 0..<count {
            let length = place == count - 1 ? rest : random.below(rest + 1)
            rest -= length
            let source = memory.source + random.below(Memory.sourceCount - length)
            requests.list(index)[place] = ibv_sge(
                addr: UInt64(UInt(bitPattern: source)), length: UInt32(length), lkey: random.any())
        }
    }

    /// A WRITE and a SEND of 16 bytes, which an adapter since T5 executes as one WR (WRITE_CMPL). It has neither a fence nor
    /// a solicited event, which libcxgb4 drops.
    private func fillPair() {
        requests.sends[0].opcode = IBV_WR_RDMA_WRITE
        requests.sends[0].send_flags &= ~IBV_SEND_INLINE.rawValue
        requests.sends[0].num_sge = Int32(1 + random.below(5))
        for place in 0..<Int(requests.sends[0].num_sge) { requests.list(0)[place] = randomSGE() }
        requests.list(0)[0].length |= 1
        requests.sends[1].opcode = random.pick([IBV_WR_SEND, IBV_WR_SEND_WITH_INV])
        for place in 0...1 {
            requests.sends[place].send_flags &= ~(IBV_SEND_FENCE.rawValue | IBV_SEND_SOLICITED.rawValue)
        }
        requests.sends[1].invalidate_rkey = random.any()
        requests.sends[1].num_sge = 1
        let source = memory.source + random.below(Memory.sourceCount - 16)
        requests.list(1)[0] = ibv_sge(addr: UInt64(UInt(bitPattern: source)), length: 16, lkey: random.any())
    }

    // MARK: - Receives

    func postReceives(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let shared = pair.plan.isSharing ? shared : nil
        let count = random.chance(40) ? 1 : 1 + random.below(12)
        operation = "posting \(count) receives to \(shared == nil ? "queue pair \(index)" : "the shared receive queue")"
        for place in 0..<count {
            let request = requests.receives + place
            request.initialize(to: ibv_recv_wr())
            request.pointee.wr_id = random.any()
            request.pointee.num_sge = Int32(random.below(Int(Cxgb4Side.receiveSGEs) + 1))
            for sge in 0..<Int(request.pointee.num_sge) { requests.list(place)[sge] = randomSGE() }
            request.pointee.sg_list = requests.list(place)
        }
        let room = (shared?.entries ?? pair.receiveQueue.ours.count / 128) - 1 - (shared?.count ?? pair.heldReceives)
        let isDefect = random.chance(6) && count <= room
        if isDefect { requests.receives[count - 1].num_sge = Int32(Cxgb4Side.receiveSGEs) + 1 }
        // libcxgb4 does not set bad_wr when the shared receive queue is full from the start.
        if shared != nil && room == 0 { return }
        requests.linkReceives(count)
        let accepted = try postBoth(count, requests.receives, operation) { side, bad in
            abs(
                shared == nil
                    ? ibv_post_recv(sides[side].pairs[index], requests.receives, &bad)
                    : ibv_post_srq_recv(sides[side].shared!, requests.receives, &bad))
        }
        if isDefect { try dropStores() }
        posted += accepted
        if let shared {
            shared.count += accepted
            try shared.observe(operation)
            try expectEqual(shared.ring, unit: 64, "\(operation): the shared receive queue")
        } else {
            pair.receives += accepted
            pair.heldReceives += accepted
            try expectEqual(pair.receiveQueue, unit: 64, "\(operation): the receive queue")
        }
    }

    // MARK: - Completions

    /// Writes the CQE of a send: of the first that has none, or of the first READ that has none.
    func completeSend(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        guard pending[pair.plan.sends] < Int(Cxgb4Side.entries[pair.plan.sends]) else { return }
        let read = pair.sends.firstIndex { $0.opcode == IBV_WR_RDMA_READ && !$0.isComplete }
        let other = pair.sends.firstIndex { $0.opcode != IBV_WR_RDMA_READ && $0.isSignaled && !$0.isComplete }
        // A CQE retires the unsignaled requests before it, among which no READ may be outstanding.
        let isBlocked = other.map { end in
            pair.sends[..<end].contains { $0.opcode == IBV_WR_RDMA_READ && !$0.isSignaled && !$0.isComplete }
        }
        let candidates = [read, isBlocked == false ? other : nil].compactMap { $0 }
        guard !candidates.isEmpty else { return }
        let place = random.pick(candidates)
        let send = pair.sends[place]
        pair.sends[place].isComplete = true
        operation = "a completion of send \(send.index) of queue pair \(index)"
        var completion = uverbs_sim_completion()
        completion.tag = UInt64(send.index)
        completion.byte_length = random.any()
        switch send.opcode {
        case IBV_WR_RDMA_READ: completion.opcode = IBV_WC_RDMA_READ.rawValue
        case IBV_WR_RDMA_WRITE: completion.opcode = IBV_WC_RDMA_WRITE.rawValue
        case IBV_WR_RDMA_WRITE_WITH_IMM:
            completion.opcode = IBV_WC_RDMA_WRITE.rawValue
            completion.flags = IBV_WC_WITH_IMM.rawValue
        case IBV_WR_SEND_WITH_INV:
            completion.opcode = IBV_WC_SEND.rawValue
            completion.flags = IBV_WC_WITH_INV.rawValue
        default: completion.opcode = IBV_WC_SEND.rawValue
        }
        try write(completion, pair, pair.plan.sends)
    }

    func completeReceive(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        guard pending[pair.plan.receives] < Int(Cxgb4Side.entries[pair.plan.receives]) else { return }
        var completion = uverbs_sim_completion()
        if let shared = pair.plan.isSharing ? shared : nil {
            guard !shared.outstanding.isEmpty else { return }
            let place = random.chance(60) ? 0 : random.below(min(3, shared.outstanding.count))
            completion.tag = 0x40 + UInt64(shared.outstanding.remove(at: place))
        } else {
            guard pair.receives > 0 else { return }
            pair.receives -= 1
        }
        operation = "a completion of a receive of queue pair \(index)"
        completion.byte_length = random.any()
        completion.immediate = random.any()
        let isWrite = hasImmediate && random.chance(25)
        completion.opcode = (isWrite ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV).rawValue
        if isWrite {
            completion.flags = IBV_WC_WITH_IMM.rawValue
        } else if random.chance(40) {
            completion.flags = IBV_WC_WITH_INV.rawValue
        }
        completion.solicited = random.any(UInt8.self) & 1
        try write(completion, pair, pair.plan.receives)
    }

    private func write(_ completion: uverbs_sim_completion, _ pair: Cxgb4Pair, _ queue: Int) throws(Difference) {
        var completion = completion
        let results = try both { (side) throws(Difference) -> Int32 in
            sim!.pointee.complete(sides[side].device, pair.number, &completion)
        }
        try expectEqual(results, "\(operation): whether there is such a queue pair")
        pending[queue] += 1
    }
}
