import CIBVerbs
import CLinux
import ProviderKit
import RoCETransport
import Synchronization

/// The state of the network interface behind the port of an open device; under the context's lock.
///
/// The interface is found by its index. When no interface has that index any more, an interface of the same name
/// replaces it: one that was removed from a virtual machine and added again, for example.
struct PortInterface {
    /// The interface when it was last found.
    private(set) var current: linux_interface
    /// 0, or the errno value of the last reading: ENODEV when the interface no longer exists.
    private(set) var error: Int32 = 0
    /// Whether a fault rule has taken the port down (`event=PORT_ERR`).
    var isForcedDown = false

    init(_ found: linux_interface) { current = found }

    /// Reads the interface again.
    mutating func follow() { error = linux_follow_interface(&current) }

    /// The index of the interface; 0, which no interface has, when it no longer exists.
    var index: UInt32 { error == ENODEV ? 0 : current.index }

    /// Whether the interface is up and has a carrier, and no fault rule has taken the port down.
    var isActive: Bool { error != ENODEV && current.running && !isForcedDown }

    /// IBV_PORT_ACTIVE while the interface is up and its link carries packets, IBV_PORT_DOWN otherwise.
    var state: ibv_port_state { isActive ? IBV_PORT_ACTIVE : IBV_PORT_DOWN }

    /// IBTA volume 1, 14.2.5.6: 5 is link up, 2 polling (for a carrier), 3 disabled.
    var physicalState: UInt8 { isActive ? 5 : error != ENODEV && current.up ? 2 : 3 }

    /// The active MTU of the port.
    var activeMTU: ibv_mtu { pathMTU(interfaceMTU: current.mtu) }
}

extension ContextPointer {
    /// Reads the interface and the addresses of this host again, and updates the port, the GID table, the sockets and
    /// the engine's active MTU. The progress thread calls it when the kernel reports a change, and every verb that uses
    /// one of them calls it first. Under the lock.
    ///
    /// Raises IBV_EVENT_GID_CHANGE, IBV_EVENT_PORT_ACTIVE and IBV_EVENT_PORT_ERR for changes.
    func followInterface() {
        let wasActive = guarded.pointee.port.isActive
        let before = guarded.pointee.gids.entries
        let mtu = guarded.pointee.port.current.mtu
        guarded.pointee.port.follow()
        // When the kernel cannot be queried (no descriptor is left, for example), the state is unchanged.
        guard guarded.pointee.port.error == 0 || guarded.pointee.port.error == ENODEV else {
            pointee.progressThread.retriesInterface.store(true, ordering: .relaxed)
            return
        }
        let ifindex = guarded.pointee.port.index
        let isRead = guarded.pointee.gids.refresh(ifindex: ifindex)
        if guarded.pointee.sockets.follow(guarded.pointee.gids, ifindex: ifindex) { pointee.progressThread.wake() }
        if guarded.pointee.port.current.mtu != mtu { guarded.pointee.sockets.resetLoggedLosses() }
        let isIncomplete = !isRead || guarded.pointee.sockets.lacksSocket
        pointee.progressThread.retriesInterface.store(isIncomplete, ordering: .relaxed)
        guarded.pointee.link.knownAddress = GID()
        pointee.engine.setActiveMTU(guarded.pointee.port.activeMTU.byteCount ?? 256)
        if !guarded.pointee.gids.hasEntries(before) {
            pointee.engine.republishQueuePairs { guarded.pointee.gids.contains($0) }
            report(IBV_EVENT_GID_CHANGE)
        }
        let isActive = guarded.pointee.port.isActive
        if isActive != wasActive { report(isActive ? IBV_EVENT_PORT_ACTIVE : IBV_EVENT_PORT_ERR) }
    }

    /// Adds an asynchronous event of the port. It replaces unread events of the same kind, so that an application that
    /// reads no events does not fill memory while a link goes up and down.
    func report(_ type: ibv_event_type) {
        let isState = type != IBV_EVENT_GID_CHANGE
        pointee.asyncEvents.drop(
            where: { event in
                let other = event.pointee.event_type
                return other == type || (isState && (other == IBV_EVENT_PORT_ACTIVE || other == IBV_EVENT_PORT_ERR))
            }, note: {})
        var event = ibv_async_event()
        event.event_type = type
        event.element.port_num = 1
        pointee.asyncEvents.append(event)
    }
}
