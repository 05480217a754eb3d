import CIBVerbs
import Glibc
import SoftTestSupport
import Synchronization
import Testing

@testable import SoftProvider

extension Soft {
    @Suite("An acknowledgement that waits for the next call")
    struct SentAcknowledgementTests {
        enum Call: CaseIterable {
            case none, post, arm, control
        }

        @Test("It leaves after every kind of call, and without one", arguments: Call.allCases, [false, true])
        func leaves(before call: Call, inSharedMemory: Bool) throws {
            let (first, second) = (try OpenDevice(), try OpenDevice())
            if !inSharedMemory { for device in [first, second] { device.useDatagrams(port: 47_916) } }
            // Without a timeout, nothing is sent again: a lost acknowledgement would leave the SEND incomplete.
            var options = Endpoint.Options()
            options.timeout = 0
            let a = try Endpoint(first, options)
            // Arming has no effect without a channel.
            let channel = try created(second.table.create_comp_channel(second.context))
            defer { _ = second.table.destroy_comp_channel(channel) }
            options.channel = channel
            let b = try Endpoint(second, options)
            try a.connect(to: b.address)
            try b.connect(to: a.address)
            try exchangeUntilHeld(a, b)
            switch call {
            case .none: break
            case .post:
                try a.postReceive([a.sge(64, 8)])
                try b.post(IBV_WR_SEND, id: 7, [b.sge(0, 8)])
            case .arm: try check(second.context.pointee.ops.req_notify_cq(b.queue, 0))
            case .control: _ = try b.address
            }
            let completions = try a.completions(call == .post ? 2 : 1)
            #expect(completions.allSatisfy { $0.status == IBV_WC_SUCCESS })
            #expect(completions.contains { $0.wr_id == 1 })
            guard call == .post else { return }
            // The first device may hold the acknowledgement of this message.
            let sent = try b.completions()[0]
            #expect(sent.status == IBV_WC_SUCCESS && sent.wr_id == 7)
        }

        /// Sends messages from `a` to `b`, until the device of `b` holds the acknowledgement of the last one.
        private func exchangeUntilHeld(_ a: Endpoint, _ b: Endpoint) throws {
            let end = ContinuousClock.now + .seconds(300)
            while ContinuousClock.now < end {
                try b.postReceive(id: 2, [b.sge(0, 8)])
                enterForeground(b.device)
                try a.post(IBV_WR_SEND, id: 1, [a.sge(0, 8)])
                #expect(try b.completions()[0].status == IBV_WC_SUCCESS)
                if holds(b.device) { return }
                #expect(try a.completions()[0].status == IBV_WC_SUCCESS)
            }
            throw Timeout()
        }

        /// A busy machine may never let a thread poll long enough for it.
        private func enterForeground(_ device: OpenDevice) {
            let soft = device.context.soft
            soft.pointee.progressThread.isForeground.store(true, ordering: .relaxed)
            soft.pointee.progressThread.wake()
        }

        private func holds(_ device: OpenDevice) -> Bool {
            let soft = device.context.soft
            soft.pointee.lock.lock()
            defer { soft.pointee.lock.unlock() }
            return soft.guarded.pointee.link.held.since != 0
        }
    }
}
