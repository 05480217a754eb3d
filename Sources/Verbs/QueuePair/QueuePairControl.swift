import CIBVerbs

/// The connection manager's reference to a queue pair, with which it modifies the state; posting stays with the owner.
/// It does not keep the queue pair alive.
package struct QueuePairControl: @unchecked Sendable {
    // Unchecked: the reference never changes, and the provider ABI allows calls from any thread.
    private weak var owner: QueuePair.Owner?

    /// The control of that queue pair.
    package init(_ queuePair: borrowing QueuePair) { owner = queuePair.owner }

    /// Whether the queue pair still exists.
    package var exists: Bool { owner.map { !$0.isDestroyed.withLock { $0 } } ?? false }

    /// Calls `body` unless the queue pair is gone. `QueuePair.close` waits until it returns.
    private func whileAlive(_ body: (QueuePair.Owner) throws(VerbsError) -> Void) throws(VerbsError) {
        guard let owner else { return }
        try owner.isDestroyed.withLock { (isDestroyed: inout Bool) throws(VerbsError) in
            if !isDestroyed { try body(owner) }
        }
    }

    /// Changes attributes, as `QueuePair.modify`; does nothing when the queue pair is gone.
    package func modify(_ attributes: QueuePair.Attributes) throws(VerbsError) {
        try whileAlive { (owner) throws(VerbsError) in try owner.modify(attributes) }
    }

    /// Does the same as `QueuePair.attach`, and nothing when the queue pair is gone.
    package func attach(to group: MulticastGroup) throws(VerbsError) {
        try whileAlive { (owner) throws(VerbsError) in try owner.attach(to: group) }
    }

    /// Does the same as `QueuePair.detach`, and nothing when the queue pair is gone.
    package func detach(from group: MulticastGroup) throws(VerbsError) {
        try whileAlive { (owner) throws(VerbsError) in try owner.detach(from: group) }
    }

    /// Records the state into which the kernel has moved the queue pair, which it does on iWARP. The event of rdma_cm
    /// tells it; a query does not on every kernel: siw of Linux 6.1 leaves the state of ibv_query_qp(3) unwritten.
    package func record(_ state: QueuePair.State) {
        owner?.isDestroyed.withLock { isDestroyed in
            if !isDestroyed { owner?.raw.pointee.state = ibv_qp_state(rawValue: state.rawValue) }
        }
    }

    /// Claims the queue pair for one connection. Returns false when another connection has it.
    package func claim() -> Bool {
        owner?.state.withLock { state in
            if state.isClaimed { return false }
            state.isClaimed = true
            return true
        } ?? false
    }

    /// Releases the queue pair for the next connection.
    package func release() { owner?.state.withLock { $0.isClaimed = false } }
}

extension QueuePair {
    /// Whether it uses a shared receive queue.
    package var hasSharedReceiveQueue: Bool { raw.pointee.srq != nil }
}
