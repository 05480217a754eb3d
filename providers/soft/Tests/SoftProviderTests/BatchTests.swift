import CIBVerbs
import CProviderABI
import Foundation
import SoftTestSupport
import Synchronization
import Testing

/// An extended completion queue, and two queue pairs in ERR that complete to it. Each posted receive is flushed
/// (IBV_WC_WR_FLUSH_ERR), so that a test determines the order of the completions.
private final class Batch {
    let device: OpenDevice
    let queue: UnsafeMutablePointer<ibv_cq_ex>
    private let channel: UnsafeMutablePointer<ibv_comp_channel>
    var pairs: [Endpoint?] = []
    var posted: UInt64 = 0
    var attr = ibv_poll_cq_attr()

    init(isSingleThreaded: Bool, capacity: UInt32 = 8, on device: OpenDevice? = nil) throws {
        self.device = try device ?? OpenDevice()
        var attr = ibv_cq_init_attr_ex()
        attr.cqe = capacity
        channel = try created(self.device.table.create_comp_channel(self.device.context))
        attr.channel = channel
        attr.wc_flags = UInt64(IBV_WC_STANDARD_FLAGS)
        if isSingleThreaded {
            attr.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS.rawValue
            attr.flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED.rawValue
        }
        queue = try created(self.device.table.create_cq_ex(self.device.context, &attr))
        var options = Endpoint.Options()
        options.queue = plain
        // All receives that the queue has room for fit in a queue pair: a batch may hold up their completion.
        options.receives = max(options.receives, capacity)
        for _ in 0..<2 {
            let pair = try Endpoint(self.device, options)
            try pair.modifyToInit()
            try pair.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_ERR }
            pairs.append(pair)
        }
    }

    deinit {
        pairs = []
        #expect(device.table.destroy_cq(plain) == 0)
        #expect(device.table.destroy_comp_channel(channel) == 0)
    }

    var plain: UnsafeMutablePointer<ibv_cq> { UnsafeMutableRawPointer(queue).assumingMemoryBound(to: ibv_cq.self) }

    /// Posts a receive. Returns its wr_id.
    @discardableResult
    func post(_ pair: Int) throws -> UInt64 {
        let id = posted
        posted += 1
        try pairs[pair]!.postReceive(id: id, [])
        return id
    }

    /// Posts a receive, and waits until it has completed. Returns its wr_id.
    @discardableResult
    func complete(_ pair: Int) throws -> UInt64 {
        try check(ibv_req_notify_cq(plain, 0))
        let id = try post(pair)
        var cq: UnsafeMutablePointer<ibv_cq>?
        try check(device.table.get_cq_event(channel, &cq))
        ibv_ack_cq_events(cq, 1)
        return id
    }

    func start() -> Int32 { ibv_start_poll(queue, &attr) }

    /// Whether the current completion is the flushed receive `id` of the queue pair with this QPN.
    func isCurrent(_ id: UInt64, of number: UInt32) -> Bool {
        queue.pointee.wr_id == id && queue.pointee.status == IBV_WC_WR_FLUSH_ERR
            && ibv_wc_read_qp_num(queue) == number && ibv_wc_read_opcode(queue) == IBV_WC_RECV
            && ibv_wc_read_vendor_err(queue) == 0
    }

    /// Polls all completions, in one batch.
    func pollAll() -> [UInt64] {
        guard start() == 0 else { return [] }
        var ids = [queue.pointee.wr_id]
        while ibv_next_poll(queue) == 0 { ids.append(queue.pointee.wr_id) }
        ibv_end_poll(queue)
        return ids
    }
}

extension Soft {
    @Suite("Inside a batch of extended polling")
    struct BatchTests {
        enum Removal: CaseIterable {
            case destroy, reset
        }

        /// The queue pairs of the completions in the queue. Only the last pattern fills it.
        private static let patterns = [[0], [0, 0, 1], [1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0, 0, 1]]

        @Test(
            "Destroying or resetting a queue pair removes its completions except the current one, and no others",
            arguments: Removal.allCases, [false, true])
        func removal(by removal: Removal, isSingleThreaded: Bool) throws {
            let device = try OpenDevice()
            // Starts at several indices of the ring, so that the completions wrap around its end.
            for pattern in Self.patterns {
                for current in pattern.indices {
                    for rotation in [0, 5] {
                        let batch = try Batch(isSingleThreaded: isSingleThreaded, on: device)
                        for _ in 0..<rotation { try batch.complete(1) }
                        #expect(batch.pollAll().count == rotation)
                        try remove(pattern, at: current, removal, batch)
                    }
                }
            }
        }

        private func remove(_ pattern: [Int], at current: Int, _ removal: Removal, _ batch: Batch) throws {
            let numbers = batch.pairs.map { $0!.pair.pointee.qp_num }
            let ids = try pattern.map { try batch.complete($0) }
            try #require(batch.start() == 0)
            for _ in 0..<current { try #require(ibv_next_poll(batch.queue) == 0) }
            let number = numbers[pattern[current]]
            #expect(batch.isCurrent(ids[current], of: number))
            switch removal {
            case .destroy: batch.pairs[0] = nil
            case .reset: try batch.pairs[0]!.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RESET }
            }
            #expect(batch.isCurrent(ids[current], of: number))
            for index in pattern.indices.dropFirst(current + 1) where pattern[index] == 1 {
                #expect(ibv_next_poll(batch.queue) == 0)
                #expect(batch.isCurrent(ids[index], of: numbers[1]))
            }
            #expect(ibv_next_poll(batch.queue) == ENOENT && ibv_next_poll(batch.queue) == ENOENT)
            // The batch and the queue continue to work, and no slot was lost.
            let next = try batch.complete(1)
            #expect(ibv_next_poll(batch.queue) == 0 && batch.queue.pointee.wr_id == next)
            ibv_end_poll(batch.queue)
            #expect(batch.pollAll().isEmpty)
            let full = try (0..<8).map { _ in try batch.complete(1) }
            #expect(batch.pollAll() == full)
        }

        @Test("A queue pair goes to ERR: its flushed requests complete in the same batch", arguments: [false, true])
        func flush(isSingleThreaded: Bool) throws {
            let batch = try Batch(isSingleThreaded: isSingleThreaded)
            let pair = batch.pairs[0]!
            try pair.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_RESET }
            try pair.modifyToInit()
            let waiting = try (0..<2).map { _ in try batch.post(0) }
            let first = try batch.complete(1)
            #expect(batch.start() == 0 && batch.queue.pointee.wr_id == first)
            try pair.modify([IBV_QP_STATE]) { $0.qp_state = IBV_QPS_ERR }
            #expect(batch.isCurrent(first, of: batch.pairs[1]!.pair.pointee.qp_num))
            for id in waiting {
                #expect(ibv_next_poll(batch.queue) == 0 && batch.isCurrent(id, of: pair.pair.pointee.qp_num))
            }
            #expect(ibv_next_poll(batch.queue) == ENOENT)
            ibv_end_poll(batch.queue)
        }

        @Test("A resized completion queue keeps the current completion and the others", arguments: [false, true])
        func resize(isSingleThreaded: Bool) throws {
            let table = try OpenDevice().table
            for rotation in [0, 6] {
                let batch = try Batch(isSingleThreaded: isSingleThreaded)
                for _ in 0..<rotation { try batch.complete(1) }
                _ = batch.pollAll()
                let ids = try (0..<4).map { try batch.complete($0 & 1) }
                #expect(batch.start() == 0 && ibv_next_poll(batch.queue) == 0)
                // The current completion occupies a slot, too.
                #expect(table.resize_cq(batch.plain, 2) == EINVAL)
                #expect(table.resize_cq(batch.plain, 3) == 0)
                #expect(batch.isCurrent(ids[1], of: batch.pairs[1]!.pair.pointee.qp_num))
                #expect(table.resize_cq(batch.plain, 100) == 0)
                #expect(batch.isCurrent(ids[1], of: batch.pairs[1]!.pair.pointee.qp_num))
                batch.pairs[0] = nil
                #expect(ibv_next_poll(batch.queue) == 0 && batch.queue.pointee.wr_id == ids[3])
                #expect(ibv_next_poll(batch.queue) == ENOENT)
                #expect(table.resize_cq(batch.plain, 8) == 0 && ibv_next_poll(batch.queue) == ENOENT)
                ibv_end_poll(batch.queue)
                let full = try (0..<8).map { _ in try batch.complete(1) }
                #expect(batch.pollAll() == full)
            }
        }

        @Test("Polling and destroying the same queue return EBUSY; it can be armed", arguments: [false, true])
        func refusals(isSingleThreaded: Bool) throws {
            let batch = try Batch(isSingleThreaded: isSingleThreaded)
            let ids = try (0..<2).map { _ in try batch.complete(0) }
            var wc = ibv_wc()
            #expect(batch.start() == 0)
            #expect(batch.start() == EBUSY && ibv_poll_cq(batch.plain, 1, &wc) == -EBUSY)
            #expect(batch.device.table.destroy_cq(batch.plain) == EBUSY)
            #expect(ibv_req_notify_cq(batch.plain, 0) == 0)
            #expect(batch.queue.pointee.wr_id == ids[0])
            #expect(ibv_next_poll(batch.queue) == 0 && batch.queue.pointee.wr_id == ids[1])
            ibv_end_poll(batch.queue)
            #expect(batch.pollAll().isEmpty && ibv_poll_cq(batch.plain, 1, &wc) == 0)
        }

        @Test("Without a batch, next_poll returns EINVAL and end_poll does nothing", arguments: [false, true])
        func withoutBatch(isSingleThreaded: Bool) throws {
            let batch = try Batch(isSingleThreaded: isSingleThreaded)
            let ids = try (0..<3).map { _ in try batch.complete(0) }
            ibv_end_poll(batch.queue)
            #expect(ibv_next_poll(batch.queue) == EINVAL)
            #expect(batch.start() == 0 && batch.queue.pointee.wr_id == ids[0])
            ibv_end_poll(batch.queue)
            ibv_end_poll(batch.queue)
            #expect(ibv_next_poll(batch.queue) == EINVAL)
            #expect(batch.pollAll() == Array(ids[1...]))
        }

        @Test("Two threads, each inside a batch, destroy a queue pair of the other's queue", .timeLimit(.minutes(1)))
        func crosswise() throws {
            let device = try OpenDevice()
            for _ in 0..<20 {
                nonisolated(unsafe) let batches = try (0..<2).map { _ in
                    try Batch(isSingleThreaded: false, on: device)
                }
                for batch in batches { for pair in [0, 1, 0, 1] { try batch.complete(pair) } }
                let open = Atomic(0)
                // Separate allocations: an array would be one variable that two threads access.
                nonisolated(unsafe) let seen = UnsafeMutablePointer<[UInt64]>.allocate(capacity: 2)
                seen.initialize(repeating: [], count: 2)
                defer { seen.deinitialize(count: 2).deallocate() }
                let ended = DispatchGroup()
                for index in 0..<2 {
                    ended.enter()
                    Thread.detachNewThread {
                        let batch = batches[index]
                        var ids: [UInt64] = []
                        if batch.start() == 0 {
                            open.add(1, ordering: .sequentiallyConsistent)
                            while open.load(ordering: .sequentiallyConsistent) < 2 { sched_yield() }
                            batches[1 - index].pairs[0] = nil
                            repeat { ids.append(batch.queue.pointee.wr_id) } while ibv_next_poll(batch.queue) == 0
                            ibv_end_poll(batch.queue)
                        }
                        seen[index] = ids
                        ended.leave()
                    }
                }
                ended.wait()
                // The current completion, and those of the remaining queue pair. Completion 2 of the destroyed queue
                // pair may have been polled before it was removed.
                for index in 0..<2 { #expect([[0, 1, 3], [0, 1, 2, 3]].contains(seen[index])) }
            }
        }

        @Test("A thread posts inside a batch to a queue pair that another thread modifies", .timeLimit(.minutes(1)))
        func postWhileModified() throws {
            let batch = try Batch(isSingleThreaded: false, capacity: 4096)
            try batch.complete(1)
            let ended = DispatchGroup()
            let isModifying = Atomic(false)
            // The thread retains no endpoint: it may end after the queue pair and its completion queue are destroyed.
            nonisolated(unsafe) let pair = batch.pairs[0]!.pair
            let modify = batch.device.table.modify_qp!
            ended.enter()
            #expect(batch.start() == 0)
            Thread.detachNewThread {
                isModifying.store(true, ordering: .sequentiallyConsistent)
                var attr = ibv_qp_attr()
                attr.qp_state = IBV_QPS_ERR
                _ = modify(pair, &attr, Int32(IBV_QP_STATE.rawValue))
                ended.leave()
            }
            while !isModifying.load(ordering: .sequentiallyConsistent) { sched_yield() }
            for _ in 0..<1000 {
                try batch.post(0)
                sched_yield()
            }
            ibv_end_poll(batch.queue)
            ended.wait()
            // The engine flushes the receives that were posted after ERR, in its next round.
            var polled = 0
            while polled < 1000 { polled += batch.pollAll().count }
            #expect(polled == 1000)
        }
    }
}
