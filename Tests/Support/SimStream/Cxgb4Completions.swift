import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

/// What is posted to a queue pair of cxgb4.
final class Cxgb4Pair {
    struct Send {
        var index: Int
        var opcode: ibv_wr_opcode
        var isSignaled: Bool
        /// Whether its CQE is written.
        var hasCQE = false
    }

    let entries: Int
    let receiveEntries: Int
    let isSharing: Bool
    let signalsAll: Bool
    let sendQueue: Int
    let receiveQueue: Int
    var index = 0
    var sendSlot = 0
    var receiveSlot = 0
    /// Sends that are not returned, oldest first.
    var outstanding: [Send] = []
    /// The numbers of receives without a CQE.
    var receives = 0

    init(_ limits: ibv_qp_cap, _ plan: Cxgb4Side.Plan) {
        entries = Int(limits.max_send_wr) + 1
        receiveEntries = Int(limits.max_recv_wr) + 1
        isSharing = plan.isSharing
        signalsAll = plan.signalsAll
        sendQueue = plan.sends
        receiveQueue = plan.receives
    }

    var room: Int { entries - 1 - outstanding.count }
}

/// What is posted to the shared receive queue of cxgb4, by the rules of both libraries: while an index is complete and
/// an earlier one is not, new work requests wait.
struct Cxgb4Shared {
    let entries: Int
    var slot = 0
    private var ids: [UInt64?]
    private var producer = 0
    private var consumer = 0
    private var overtaking = 0
    private var waiting: [UInt64] = []
    /// Indices without a CQE, in the order in which connections consume them.
    private(set) var free: [Int] = []

    init(entries: Int) {
        self.entries = entries
        ids = Array(repeating: nil, count: entries)
    }

    mutating func post(_ id: UInt64) {
        if overtaking != 0 || !waiting.isEmpty { waiting.append(id) } else { place(id) }
    }

    private mutating func place(_ id: UInt64) {
        ids[producer] = id
        free.append(producer)
        producer = (producer + 1) % entries
    }

    /// Removes one of the oldest indices, for a CQE.
    mutating func take(_ choice: Int) -> Int { free.remove(at: choice % free.count) }

    /// A completion was returned.
    mutating func retire(_ id: UInt64) {
        guard let index = ids.firstIndex(of: id) else { return }
        ids[index] = nil
        guard index == consumer else { return overtaking += 1 }
        consumer = (consumer + 1) % entries
        while overtaking != 0 && ids[consumer] == nil {
            consumer = (consumer + 1) % entries
            overtaking -= 1
        }
        guard overtaking == 0 else { return }
        let all = waiting
        waiting = []
        for id in all { place(id) }
    }
}

extension Cxgb4Stream {
    /// Writes the CQE of any signaled send, or of the oldest READ that has none.
    func completeSend(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let choices = pair.outstanding.indices.filter { place in
            let send = pair.outstanding[place]
            if send.hasCQE { return false }
            let earlier = pair.outstanding[..<place].filter { $0.opcode == IBV_WR_RDMA_READ && !$0.hasCQE }
            guard send.opcode == IBV_WR_RDMA_READ else {
                // libcxgb4 returns a send before an unsignaled READ that it has overtaken.
                return send.isSignaled && earlier.allSatisfy(\.isSignaled)
            }
            return earlier.isEmpty
        }
        guard !choices.isEmpty else { return }
        let place = choices[random.chance(75) ? 0 : random.below(min(4, choices.count))]
        operation = "the completion of send \(pair.outstanding[place].index) of queue pair \(index)"
        var completion = uverbs_sim_completion()
        completion.tag = UInt64(pair.outstanding[place].index)
        completion.opcode =
            switch pair.outstanding[place].opcode {
            case IBV_WR_RDMA_READ: IBV_WC_RDMA_READ.rawValue
            case IBV_WR_SEND, IBV_WR_SEND_WITH_INV: IBV_WC_SEND.rawValue
            default: IBV_WC_RDMA_WRITE.rawValue
            }
        pair.outstanding[place].hasCQE = true
        try complete(index, &completion)
    }

    func completeReceive(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        var completion = uverbs_sim_completion()
        completion.byte_length = random.any(UInt32.self) >> 4
        completion.opcode = IBV_WC_RECV.rawValue
        completion.immediate = random.any()
        if random.chance(30) {
            completion.flags = IBV_WC_WITH_INV.rawValue
        } else if hasImmediate && random.chance(30) {
            completion.opcode = IBV_WC_RECV_RDMA_WITH_IMM.rawValue
            completion.flags = IBV_WC_WITH_IMM.rawValue
        }
        if pair.isSharing {
            guard !shared.free.isEmpty else { return }
            // The indices of the first shared receive queue in the adapter's table begin at 0x40.
            completion.tag = UInt64(0x40 + shared.take(random.chance(60) ? 0 : random.below(3)))
        } else {
            guard pair.receives > 0 else { return }
            pair.receives -= 1
        }
        operation = "the completion of a receive of queue pair \(index)"
        try complete(index, &completion)
    }

    private func complete(_ index: Int, _ completion: inout uverbs_sim_completion) throws(Difference) {
        let results = try both { (side) throws(Difference) -> Int32 in
            sim!.pointee.complete(sides[side].device, sides[side].number(index), &completion)
        }
        try expectEqual(results, "\(operation): whether there is such a queue pair")
    }

    /// Polls, and compares the fields that verbs.h defines. Returns the number of completions.
    func poll(_ index: Int) throws(Difference) -> Int {
        let most = 1 + random.below(16)
        operation = "polling completion queue \(index) for \(most)"
        let found = try both { (side) throws(Difference) -> [String] in
            let count = Int(ibv_poll_cq(sides[side].completions[index], Int32(most), memory.completions))
            if count < 0 { throw Difference("\(operation): \(side == 0 ? "the vendor's" : "our") library: \(count)") }
            return (0..<count).map { text(memory.completions[$0]) }
        }
        try expectEqual(found, "\(operation): completions")
        for place in 0..<found.ours.count { returned(memory.completions[place]) }
        completed += found.ours.count
        // Receives that waited may have been posted.
        try compareShared()
        return found.ours.count
    }

    private func text(_ wc: ibv_wc) -> String {
        var text = "\(wc.wr_id) of \(wc.qp_num): \(wc.status.rawValue) \(wc.vendor_err) \(wc.opcode.rawValue)"
        guard wc.status == IBV_WC_SUCCESS else { return text }
        // libcxgb4 sets the length of READs and receives only; and IBV_WC_WITH_INV also in completions of sends, which
        // have no invalidated key.
        let isReceive = wc.opcode.rawValue & IBV_WC_RECV.rawValue != 0
        if isReceive || wc.opcode == IBV_WC_RDMA_READ { text += " \(wc.byte_len)" }
        if isReceive { text += " \(wc.wc_flags)" }
        if isReceive && wc.wc_flags != 0 { text += " \(wc.imm_data)" }
        return text
    }

    private func returned(_ wc: ibv_wc) {
        if wc.opcode.rawValue & IBV_WC_RECV.rawValue != 0 { return shared.retire(wc.wr_id) }
        guard let pair = pairs.indices.first(where: { sides.ours.number($0) == wc.qp_num }).map({ pairs[$0] }) else {
            return
        }
        // The sends before it were not signaled. Flushed ones are returned one by one.
        let isFlushed = wc.status != IBV_WC_SUCCESS
        guard let place = pair.outstanding.firstIndex(where: { isFlushed || $0.isSignaled && $0.hasCQE }) else {
            return
        }
        pair.outstanding.removeFirst(place + 1)
    }

    /// Ends the connection of a queue pair, compares what both libraries flush, and replaces it. The CQEs that are there
    /// are polled before: libcxgb4 44, when it flushes, takes all of them for the first (corrected in later versions).
    func disconnect(_ index: Int) throws(Difference) {
        for queue in 0...1 { while try poll(queue) != 0 {} }
        for side in 0...1 {
            let result = sim!.pointee.disconnect(
                sides[side].device, sides[side].number(index), Int32(UVERBS_SIM_ABORT.rawValue))
            if result != 0 { throw Difference("the end of a connection: \(result)") }
        }
        for queue in [pairs[index].receiveQueue, pairs[index].sendQueue] { while try poll(queue) != 0 {} }
        operation = "replacing queue pair \(index)"
        for side in 0...1 { sides[side].replace(index) }
        try expectEqual(Twin(sides.vendor.number(index), sides.ours.number(index)), "\(operation): its number")
        pairs[index] = Cxgb4Pair(sides.ours.limits[index], sides.ours.plans[index])
    }
}
