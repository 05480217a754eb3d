import CIBVerbs
import CSimulatorABI
import Glibc
import PeerSupport

extension Stream {
    /// Polls with both libraries, and compares the fields that ibv_poll_cq(3) defines.
    func poll(_ index: Int) throws(Difference) {
        let queue = queues[index]
        var most = 1 + random.below(16)
        // A CQE that has data for our library only is polled alone.
        if let special = queue.pending.prefix(most).firstIndex(where: { $0.hasPayload }) { most = max(1, special) }
        operation = "polling \(queue.name) for \(most)"
        // Both libraries copy data from CQEs to the same memory: the vendor's result is saved before ours runs.
        let background: UInt8 = random.any()
        let found = try both { (side) throws(Difference) -> [PolledCompletion] in
            if side == 1 { memcpy(memory.landed.baseAddress!, memory.landing, Memory.landingCount) }
            memset(memory.landing, Int32(background), Memory.landingCount)
            return try queue.isExtended ? pollExtended(side, most) : pollPlain(side, index, most)
        }
        try expectEqual(Twin(found.vendor.count, found.ours.count), "\(operation): how many were there")
        for place in 0..<found.ours.count {
            if found.vendor[place] != found.ours[place] {
                throw Difference(
                    "\(operation): completion \(place): "
                        + found.vendor[place].difference(from: found.ours[place]))
            }
        }
        if queue.pending.count < found.ours.count {
            throw Difference(
                "\(operation): \(found.ours.count) completions, of which \(queue.pending.count) were written")
        }
        try expectLanded(queue.pending.first)
        let retired = Array(queue.pending.prefix(found.ours.count))
        queue.pending.removeFirst(found.ours.count)
        for pending in retired { retire(pending) }
        completed += found.ours.count
        try queue.compare(operation)
        for shared in shared { try shared.compare(operation) }
    }

    /// Compares the data that the libraries have copied from CQEs to the SGEs.
    private func expectLanded(_ first: Pending?) throws(Difference) {
        if case .send(let pair, let number, let payload?)? = first {
            let send = pairs[pair].outstanding[number - pairs[pair].firstSend]
            var done = 0
            for sge in send.landing ?? [] {
                for offset in 0..<min(sge.length, payload.count - done) {
                    memory.landed[sge.offset + offset] = payload[done]
                    done += 1
                }
            }
        }
        let landing = UnsafeMutableRawBufferPointer(start: memory.landing, count: Memory.landingCount)
        try expectEqual(Twin(memory.landed, landing), unit: 1, "\(operation): data that stood in completions")
    }

    private func retire(_ pending: Pending) {
        switch pending {
        case .send(let index, let number, _):
            let pair = pairs[index]
            let count = number + 1 - pair.firstSend
            pair.outstanding.removeFirst(count)
            pair.firstSend += count
            pair.completedSends -= count
        case .receive(let index):
            pairs[index].outstandingReceives.removeFirst()
            pairs[index].completedReceives -= 1
        case .sharedReceive: break
        }
    }

    private func pollPlain(_ side: Int, _ index: Int, _ most: Int) throws(Difference) -> [PolledCompletion] {
        let list = memory.completions
        memset(list, 0x5A, 16 * MemoryLayout<ibv_wc>.size)
        let count = Int(ibv_poll_cq(sides[side].completions[index], Int32(most), list))
        if count < 0 {
            throw Difference("\(operation): \(side == 0 ? "the vendor's" : "our") library answers \(count)")
        }
        return (0..<count).map { PolledCompletion(list[$0]) }
    }

    private func pollExtended(_ side: Int, _ most: Int) throws(Difference) -> [PolledCompletion] {
        let queue = sides[side].extended
        var attributes = ibv_poll_cq_attr()
        var result = ibv_start_poll(queue, &attributes)
        guard result == 0 else { return [] }
        var found: [PolledCompletion] = []
        while result == 0 {
            found.append(PolledCompletion(queue))
            if found.count == most { break }
            result = ibv_next_poll(queue)
        }
        ibv_end_poll(queue)
        return found
    }

    /// Polls until no CQE is pending.
    func drain() throws(Difference) {
        for queue in queues {
            while !queue.pending.isEmpty {
                let before = queue.pending.count
                try poll(queue.index)
                if queue.pending.count == before {
                    throw Difference("\(operation): \(before) completions were written, and none is found")
                }
                try compareStores()
            }
        }
    }

    // MARK: - Events

    /// Arms a completion queue, and gets the completion events.
    func notify(_ index: Int) throws(Difference) {
        operation = "asking \(queues[index].name) for an event"
        let solicitedOnly: Int32 = random.chance(50) ? 1 : 0
        let errors = try both { (side) throws(Difference) -> Int32 in
            ibv_req_notify_cq(sides[side].completions[index], solicitedOnly)
        }
        try expectEqual(errors, "\(operation): errno value")
        try queues[index].compare(operation)
        try compareStores()
        operation = "looking for events"
        let events = try both { (side) throws(Difference) -> [Int] in
            _ = sim?.pointee.step(sides[side].device)
            return readEvents(sides[side])
        }
        try expectEqual(events, "\(operation): whose they are")
    }

    private func readEvents(_ side: Side) -> [Int] {
        var found: [Int] = []
        var waiting = pollfd(fd: side.channel.pointee.fd, events: Int16(POLLIN), revents: 0)
        while Glibc.poll(&waiting, 1, 0) == 1 {
            var queue: Library.Completions?
            equal(side.library.getCompletionEvent(side.channel, &queue), 0, "getting an event")
            guard let queue else { break }
            ibv_ack_cq_events(queue, 1)
            found.append(side.completions.firstIndex(of: queue) ?? -1)
        }
        return found
    }

    // MARK: - Reset and resize

    /// Moves a queue pair to RESET, which removes its CQEs, and back to RTS.
    func reset(_ index: Int) throws(Difference) {
        let pair = pairs[index]
        operation = "resetting \(pair.name)"
        _ = try both { (side) throws(Difference) -> Void in
            var attributes = ibv_qp_attr()
            attributes.qp_state = IBV_QPS_RESET
            sides[side].modify(index, &attributes, [IBV_QP_STATE])
        }
        try expectEqual(pair.record, unit: 8, "\(operation): doorbell record")
        for queue in queues {
            queue.pending.removeAll { $0.pair == index }
            try queue.compare(operation)
        }
        for shared in shared { try shared.compare(operation) }
        pair.outstanding = []
        pair.completedSends = 0
        pair.outstandingReceives = []
        pair.completedReceives = 0
        pair.mustFence = true
        sides.vendor.connect(index)
        sides.ours.connect(index)
    }

    /// Resizes a completion queue.
    func resize(_ index: Int) throws(Difference) {
        let queue = queues[index]
        // libmlx5 updates the consumer index with the next poll, ours at once; an extended poll without a completion
        // does not update it.
        if queue.isExtended && queue.pending.isEmpty { return }
        let entries = Int32(queue.pending.count + 1 + random.below(60))
        operation = "resizing \(queue.name) to \(entries)"
        try sides.resizeCompletions(index, to: entries, operation)
        try poll(index)
    }

    // MARK: - Indexes of 16 bits

    /// Posts and completes until the 16-bit indexes of the largest queues are about to wrap.
    func warmUp() throws(Difference) {
        let pair = pairs[Plan.large]
        let count = Int(pair.limits.max_send_wr)
        while pair.wqebb < 0xFE00 {
            for index in 0..<count {
                requests.sends[index] = ibv_send_wr()
                requests.sends[index].wr_id = UInt64(index)
                requests.sends[index].opcode = IBV_WR_SEND
                requests.landings[index] = nil
            }
            requests.linkSends(count)
            try postChain(count, pair, nil)
            try completeSend(pair, count - 1, mayFail: false)
            try poll(pair.plan.sends)
        }
    }
}

extension Pending {
    var hasPayload: Bool {
        if case .send(_, _, .some) = self { return true }
        return false
    }
}

/// The fields of a completion that ibv_poll_cq(3) defines for its opcode and status; the others are 0.
struct PolledCompletion: Equatable {
    var id: UInt64 = 0
    var status: UInt32 = 0
    var opcode: UInt32 = 0
    var length: UInt32 = 0
    var immediate: UInt32 = 0
    var flags: UInt32 = 0
    var queuePair: UInt32 = 0
    var source: UInt32 = 0
    var vendorError: UInt32 = 0
    var partition: UInt32 = 0
    var lid: UInt32 = 0
    var serviceLevel: UInt32 = 0
    var pathBits: UInt32 = 0
    var time: UInt64 = 0

    private static let dataFlags = IBV_WC_WITH_IMM.rawValue | IBV_WC_WITH_INV.rawValue

    init(_ completion: ibv_wc) {
        id = completion.wr_id
        status = completion.status.rawValue
        queuePair = completion.qp_num
        guard completion.status == IBV_WC_SUCCESS else {
            // When the SGEs have too little room for the data of a CQE, the library and not the device reports the
            // error.
            vendorError = completion.status == IBV_WC_LOC_LEN_ERR ? 0 : completion.vendor_err
            return
        }
        opcode = completion.opcode.rawValue
        flags = completion.wc_flags
        guard opcode & IBV_WC_RECV.rawValue != 0 else {
            if PolledCompletion.fetches(completion.opcode) { length = completion.byte_len }
            return
        }
        length = completion.byte_len
        if flags & PolledCompletion.dataFlags != 0 { immediate = completion.imm_data }
        source = completion.src_qp
        partition = UInt32(completion.pkey_index)
        lid = UInt32(completion.slid)
        serviceLevel = UInt32(completion.sl)
        pathBits = UInt32(completion.dlid_path_bits)
    }

    init(_ queue: UnsafeMutablePointer<ibv_cq_ex>) {
        id = queue.pointee.wr_id
        status = queue.pointee.status.rawValue
        queuePair = ibv_wc_read_qp_num(queue)
        guard queue.pointee.status == IBV_WC_SUCCESS else {
            vendorError = queue.pointee.status == IBV_WC_LOC_LEN_ERR ? 0 : ibv_wc_read_vendor_err(queue)
            return
        }
        let kind = ibv_wc_read_opcode(queue)
        opcode = kind.rawValue
        time = ibv_wc_read_completion_ts(queue)
        guard opcode & IBV_WC_RECV.rawValue != 0 else {
            if PolledCompletion.fetches(kind) { length = ibv_wc_read_byte_len(queue) }
            return
        }
        length = ibv_wc_read_byte_len(queue)
        flags = ibv_wc_read_wc_flags(queue)
        if flags & PolledCompletion.dataFlags != 0 { immediate = ibv_wc_read_imm_data(queue) }
        source = ibv_wc_read_src_qp(queue)
        lid = ibv_wc_read_slid(queue)
        serviceLevel = UInt32(ibv_wc_read_sl(queue))
        pathBits = UInt32(ibv_wc_read_dlid_path_bits(queue))
    }

    private static func fetches(_ opcode: ibv_wc_opcode) -> Bool {
        opcode == IBV_WC_RDMA_READ || opcode == IBV_WC_COMP_SWAP || opcode == IBV_WC_FETCH_ADD
    }

    func difference(from ours: PolledCompletion) -> String {
        let (vendor, other) = (Mirror(reflecting: self).children, Mirror(reflecting: ours).children)
        return zip(vendor, other).compactMap { theirs, own in
            let (value, ownValue) = ("\(theirs.value)", "\(own.value)")
            if value == ownValue { return nil }
            return "\(theirs.label ?? ""): the vendor's library says \(value), ours \(ownValue)"
        }.joined(separator: "; ")
    }
}
