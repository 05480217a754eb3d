import CIBVerbs

/// A queue pair as the connection manager has it: it moves the queue pair through its states while somebody else owns
/// it and posts. It does not keep the queue pair alive.
package struct QueuePairControl: @unchecked Sendable {
    // Unchecked: the reference never changes, and the waist allows calls from any thread.
    private weak var owner: QueuePair.Owner?

    /// The control of that queue pair.
    package init(_ queuePair: borrowing QueuePair) { owner = queuePair.owner }

    /// Whether the queue pair still exists.
    package var exists: Bool { owner != nil }

    /// Changes attributes, as `QueuePair.modify`; does nothing when the queue pair is gone.
    package func modify(_ attributes: QueuePair.Attributes) throws(VerbsError) { try owner?.modify(attributes) }

    /// As `QueuePair.attach`; does nothing when the queue pair is gone.
    package func attach(to group: MulticastGroup) throws(VerbsError) { try owner?.attach(to: group) }

    /// As `QueuePair.detach`; does nothing when the queue pair is gone.
    package func detach(from group: MulticastGroup) throws(VerbsError) { try owner?.detach(from: group) }

    /// Asks the device for the state and remembers it: a kernel that moves the queue pair itself does not say so.
    package func refreshState() throws(VerbsError) {
        guard let owner, let state = try owner.query().state else { return }
        owner.raw.pointee.state = ibv_qp_state(rawValue: state.rawValue)
    }

    /// Takes the queue pair for one connection: false when another has it.
    package func claim() -> Bool {
        owner?.state.withLock { state in
            if state.isClaimed { return false }
            state.isClaimed = true
            return true
        } ?? false
    }

    /// Gives the queue pair back for the next connection.
    package func release() { owner?.state.withLock { $0.isClaimed = false } }
}

extension QueuePair {
    /// Whether it takes its receives from a shared receive queue.
    package var hasSharedReceiveQueue: Bool { raw.pointee.srq != nil }
}
