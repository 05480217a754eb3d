import CIBVerbs
import Glibc
import PeerSupport

extension Stream {
    // MARK: - ibv_post_recv, ibv_post_srq_recv

    func postReceives(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        let count = random.chance(40) ? 1 : 1 + random.below(12)
        // Both libraries return the same error for too many SGEs, and for a full queue.
        let isTooLong = random.chance(6)
        for request in 0..<count {
            fillReceive(request, most: Int(pair.limits.max_recv_sge), withEmpty: true)
        }
        if isTooLong { requests.receives[count - 1].num_sge = Int32(pair.limits.max_recv_sge) + 1 }
        requests.linkReceives(count)
        try postReceiveChain(count, pair)
    }

    func postReceiveChain(_ count: Int, _ pair: PairModel) throws(Difference) {
        guard pair.plan.shared == nil else { return }
        operation = "posting \(count) receives to \(pair.name)"
        let accepted = try postBoth(count, requests.receives, operation) { side, bad in
            ibv_post_recv(sides[side].pairs[pair.index], requests.receives, &bad)
        }
        for request in 0..<accepted {
            pair.outstandingReceives.append(PostedReceive(index: 0, landing: requests.landings[request]))
        }
        posted += accepted
        try pair.compareReceives(operation)
    }

    func postShared(_ index: Int) throws(Difference) {
        let queue = shared[index]
        let count = random.chance(40) ? 1 : 1 + random.below(12)
        operation = "posting \(count) receives to \(queue.name)"
        // No SGEs of length 0, which ours omits and libmlx5 does not. Too many SGEs not in a full queue, for which the
        // errors differ.
        for request in 0..<count { fillReceive(request, most: queue.sges, withEmpty: false) }
        let isFull = queue.outstanding.count + count >= Int(Plan.shared[index].0)
        if random.chance(6) && !isFull { requests.receives[count - 1].num_sge = Int32(queue.sges) + 1 }
        requests.linkReceives(count)
        let accepted = try postBoth(count, requests.receives, operation) { side, bad in
            ibv_post_srq_recv(sides[side].shared[index], requests.receives, &bad)
        }
        for request in 0..<accepted {
            queue.outstanding.append(PostedReceive(index: queue.head, landing: requests.landings[request]))
            queue.head = queue.link(queue.head)
        }
        posted += accepted
        try queue.compare(operation)
    }

    private func fillReceive(_ index: Int, most: Int, withEmpty: Bool) {
        let request = requests.receives + index
        request.initialize(to: ibv_recv_wr())
        request.pointee.wr_id = random.any()
        request.pointee.sg_list = requests.list(index)
        requests.landings[index] = nil
        if most > 0 && random.chance(50) {
            let count = 1 + random.below(most)
            requests.landings[index] = fillLanding(index, count: count, isAtomic: false)
            request.pointee.num_sge = Int32(count)
        } else {
            request.pointee.num_sge = Int32(random.below(most + 1))
            fillSGEs(index, Int(request.pointee.num_sge), withEmpty: withEmpty)
        }
    }
}
