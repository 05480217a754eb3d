import CIBVerbs
import RoCETransport
import SoftTestSupport
import Testing

@testable import SoftProvider

extension Endpoint {
    /// The next completion, which must be a success.
    @discardableResult
    func success(sourceLocation: SourceLocation = #_sourceLocation) throws -> ibv_wc {
        let completion = try completions()[0]
        #expect(completion.status == IBV_WC_SUCCESS, sourceLocation: sourceLocation)
        return completion
    }

    /// Polls until the engine has counted what is waited for.
    func poll(_ condition: (Counters) -> Bool, sourceLocation: SourceLocation = #_sourceLocation) {
        let end = ContinuousClock.now + .seconds(20)
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
    /// What the engine has counted.
    var counters: Counters {
        let soft = context.soft
        soft.lockForControl()
        defer { soft.unlock() }
        return soft.pointee.engine.counters
    }

    /// What the links have counted.
    var linkCounters: LinkCounters {
        let soft = context.soft
        soft.lockForControl()
        defer { soft.unlock() }
        return soft.pointee.counters.pointee
    }

    /// Has all packets go over UDP, to this host too, for queue pairs that are connected from now on; from and to a port
    /// of its own, where no other test's packets come.
    func useDatagrams(port: UInt16) {
        let soft = context.soft
        soft.lockForControl()
        soft.guarded.pointee.link.usesSharedMemory = false
        soft.guarded.pointee.sockets = Sockets(ifindex: soft.pointee.interface.index, port: port)
        soft.refreshAddresses()
        soft.unlock()
    }
}
