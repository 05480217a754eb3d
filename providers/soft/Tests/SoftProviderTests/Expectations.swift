import CIBVerbs
import RoCETransport
import SoftTestSupport
import Testing

@testable import SoftProvider

extension Endpoint {
    /// The next completion, whose status must be IBV_WC_SUCCESS.
    @discardableResult
    func success(sourceLocation: SourceLocation = #_sourceLocation) throws -> ibv_wc {
        let completion = try completions()[0]
        #expect(completion.status == IBV_WC_SUCCESS, sourceLocation: sourceLocation)
        return completion
    }

    /// Polls until the engine's counters fulfil the condition.
    func poll(_ condition: (Counters) -> Bool, sourceLocation: SourceLocation = #_sourceLocation) {
        let end = ContinuousClock.now + .seconds(300)
        while !condition(device.counters) {
            var none = ibv_wc()
            _ = device.context.pointee.ops.poll_cq(queue, 1, &none)
            if ContinuousClock.now > end {
                Issue.record("waited in vain", sourceLocation: sourceLocation)
                return
            }
        }
    }
}

extension OpenDevice {
    /// The counters of the engine.
    var counters: Counters {
        let soft = context.soft
        soft.lockForControl()
        defer { soft.unlock() }
        return soft.pointee.engine.counters
    }

    /// The counters of the sockets and rings.
    var linkCounters: LinkCounters {
        let soft = context.soft
        soft.lockForControl()
        defer { soft.unlock() }
        return soft.pointee.counters.pointee
    }

    /// Sends all packets over UDP, to this host too, for queue pairs that are connected from now on. The port is not
    /// used by other tests.
    func useDatagrams(port: UInt16) {
        let soft = context.soft
        soft.lockForControl()
        soft.guarded.pointee.link.usesSharedMemory = false
        soft.guarded.pointee.sockets = Sockets(port: port)
        soft.followInterface()
        soft.unlock()
    }
}
