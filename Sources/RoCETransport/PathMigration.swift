import RoCEWire

// Automatic path migration of connections (IBTA volume 1, 17.2.8). Both peers load an alternate path and go to REARM;
// BTH.M of their packets is 0 then, and the first such packet of the peer leads to ARMED. In ARMED, a queue pair whose
// retries have ended, or whose application asks for it, continues on the alternate path: it is MIGRATED, and its packets
// have BTH.M. The first of them, on the alternate path, makes the peer follow.

/// The state of path migration: `enum ibv_mig_state` of verbs.h.
@frozen
public enum PathMigrationState: UInt8, Hashable, Sendable {
    /// `IBV_MIG_MIGRATED`: there is no alternate path, or it is the path now.
    case migrated = 0
    /// `IBV_MIG_REARM`: an alternate path is loaded, and the peer is not known to have one.
    case rearm = 1
    /// `IBV_MIG_ARMED`: both peers have an alternate path.
    case armed = 2
}

extension Core {
    /// Sets the state of path migration that `modify` was called with.
    mutating func migrate(_ pair: Pair, to state: PathMigrationState) {
        if state == .migrated && pair.pointee.attributes.migration == .armed { return migrate(pair) }
        pair.pointee.attributes.migration = state
    }

    /// Continues on the alternate path.
    @inline(never)
    mutating func migrate(_ pair: Pair) {
        guard let path = pair.pointee.attributes.alternatePath else { return }
        assert(pair.pointee.attributes.migration == .armed, "only an armed queue pair migrates")
        pair.pointee.attributes.path = path
        // The GID was there when the alternate path was set; `republishQueuePairs` finds out.
        pair.pointee.isSourceLost = true
        publish(pair)
        pair.pointee.attributes.port = pair.pointee.attributes.alternatePort
        pair.pointee.attributes.pkeyIndex = pair.pointee.attributes.alternatePKeyIndex
        pair.pointee.attributes.timeout = pair.pointee.attributes.alternateTimeout
        pair.pointee.attributes.alternatePath = nil
        pair.pointee.attributes.migration = .migrated
        // The retries on the old path say nothing about this one, also where the peer was the first to migrate.
        pair.pointee.requester.retriesLeft = pair.pointee.attributes.retryCount
        pair.pointee.requester.roundTrip = RoundTripTime()
        if pair.pointee.pathWindow != nil || pair.pointee.isSending { joinPathWindow(pair) }
        // The old path may have had no timeout.
        let isOutstanding = pair.pointee.requester.una != pair.pointee.requester.high
        if pair.pointee.type.isReliable, pair.pointee.isSending, isOutstanding, pair.pointee.timer != .rnr {
            startTimer(pair, now: now)
        }
        events.post(pair.pointee.event, .pathMigrated)
    }

    /// A packet of a connection came from the addresses of its path, in REARM or ARMED.
    @inline(never)
    mutating func noteMigrationState(_ pair: Pair, _ bth: BTH) {
        let attributes = pair.pointee.attributes
        if attributes.migration == .rearm {
            if !bth.migrated { pair.pointee.attributes.migration = .armed }
        } else if bth.migrated, let path = attributes.alternatePath, path.source == attributes.path.source,
            path.destination == attributes.path.destination
        {
            // The paths differ in something else than their addresses. Otherwise the packet is older than ARMED.
            migrate(pair)
        }
    }

    /// A packet of a connection came from other addresses than those of its path. When the peer has migrated to the
    /// alternate path, this queue pair follows. A request to migrate to another path is refused
    /// (`IBV_EVENT_PATH_MIG_ERR`).
    /// - Returns: Whether the packet is accepted.
    @inline(never)
    mutating func followMigration(_ pair: Pair, _ bth: BTH, from source: PacketSource) -> Bool {
        guard pair.pointee.attributes.migration == .armed, bth.migrated,
            let path = pair.pointee.attributes.alternatePath
        else { return false }
        guard source.source == path.destination, source.destination == path.source else {
            events.post(pair.pointee.event, .pathMigrationError)
            return false
        }
        migrate(pair)
        return true
    }
}
