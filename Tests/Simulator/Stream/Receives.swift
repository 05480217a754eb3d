import CIBVerbs
import Glibc
import PeerSupport

extension Stream {
    // MARK: - ibv_post_recv, ibv_post_srq_recv

    func postReceives(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let count = random.chance(40) ? 1 : 1 + random.below(12)
        // A queue pair with a shared receive queue, or one that is full, says so alike; so does one that is asked for
        // more elements than it has.
        let isTooLong = random.chance(6)
        for request in 0..<count {
            fillReceive(request, most: Int(pair.limits.max_recv_sge), withEmpty: true, mayLand: true)
        }
        if isTooLong { requests.receives[count - 1].num_sge = Int32(pair.limits.max_recv_sge) + 1 }
        requests.linkReceives(count)
        try postReceiveChain(count, pair)
    }

    func postReceiveChain(_ count: Int, _ pair: PairModel) throws(Difference) {
        guard pair.plan.shared == nil else { return }
        operation = "posting \(count) receives to \(pair.name)"
        let taken = try post(count) { side, bad in ibv_post_recv(sides[side].pairs[pair.index], requests.receives, &bad)
        }
        for request in 0..<taken {
            pair.outstandingReceives.append(PostedReceive(index: 0, landing: requests.landings[request]))
        }
        posted += taken
        try pair.compareReceives(operation)
    }

    func postShared(_ index: Int) throws(Difference) {
        let queue = shared[index]
        let count = random.chance(40) ? 1 : 1 + random.below(12)
        operation = "posting \(count) receives to \(queue.name)"
        // Elements without a byte are left out by ours, and not by libmlx5; too many in a full queue are another error.
        for request in 0..<count { fillReceive(request, most: queue.elements, withEmpty: false, mayLand: true) }
        let isFull = queue.outstanding.count + count >= Int(Plan.shared[index].0)
        if random.chance(6) && !isFull { requests.receives[count - 1].num_sge = Int32(queue.elements) + 1 }
        requests.linkReceives(count)
        let taken = try post(count) { side, bad in
            ibv_post_srq_recv(sides[side].shared[index], requests.receives, &bad)
        }
        for request in 0..<taken {
            queue.outstanding.append(PostedReceive(index: queue.head, landing: requests.landings[request]))
            queue.head = queue.link(queue.head)
        }
        posted += taken
        try queue.compare(operation)
    }

    /// How many were taken, which is the same.
    private func post(
        _ count: Int, _ body: (Int, inout UnsafeMutablePointer<ibv_recv_wr>?) -> Int32
    ) throws(Difference) -> Int {
        let answers = try both { (side) throws(Difference) -> (errno: Int32, taken: Int) in
            var bad: UnsafeMutablePointer<ibv_recv_wr>?
            let answer = body(side, &bad)
            return (answer, answer == 0 ? count : bad.map { $0 - requests.receives } ?? -1)
        }
        try expectEqual(Twin(answers.vendor.errno, answers.ours.errno), "\(operation): errno value")
        try expectEqual(Twin(answers.vendor.taken, answers.ours.taken), "\(operation): how many were taken")
        return answers.ours.taken
    }

    private func fillReceive(_ index: Int, most: Int, withEmpty: Bool, mayLand: Bool) {
        let request = requests.receives + index
        request.initialize(to: ibv_recv_wr())
        request.pointee.wr_id = random.any()
        request.pointee.sg_list = requests.list(index)
        requests.landings[index] = nil
        if most > 0 && mayLand && random.chance(50) {
            let count = 1 + random.below(most)
            requests.landings[index] = fillLanding(index, count: count, isAtomic: false)
            request.pointee.num_sge = Int32(count)
        } else {
            request.pointee.num_sge = Int32(random.below(most + 1))
            fillElements(index, Int(request.pointee.num_sge), withEmpty: withEmpty)
        }
    }
}
