import CSimulator

/// The kernel's connection manager (drivers/infiniband/core/ucma.c, cma.c, cm.c, iwcm.c): the identifiers of this
/// process, and the messages between connection managers. The caller holds the lock.
final class ConnectionManager: ConnectionObserver {
    /// A message that has arrived at a device.
    struct Arrival {
        let device: Device
        let message: sim_cm_message
        /// LID of the sender.
        let source: UInt16
    }

    /// By number. A number is never reused, so that the use of a stale one is detected.
    private(set) var identifiers: [Identifier?] = []
    private var memberships: [Membership?] = []
    /// Messages of devices without a wire, to themselves.
    private var inbox: [Arrival] = []
    /// Requests for which their listener's backlog had no room.
    var deferred: [Arrival] = []
    /// Identifiers that leave the state TimeWait in the next run of a device.
    var timeWaits: [Identifier] = []
    /// The port that was allocated last.
    var lastPort: UInt16 = 0
    private var lastPSN: UInt32 = 0

    override init() { super.init() }

    func makeIdentifier(_ file: ManagerFile, userID: UInt64, space: UInt16, type: UInt32) -> Identifier {
        // The kernel's are random; these differ in every byte from one identifier to the next.
        lastPSN = (lastPSN &+ 0x9E_3779) & 0xFF_FFFF
        let identifier = Identifier(
            number: UInt32(identifiers.count), file: file, userID: userID, space: space, type: type,
            receivePSN: lastPSN)
        identifiers.append(identifier)
        return identifier
    }

    /// The identifier of that number, if it is open through `file`.
    func identifier(_ number: UInt32, _ file: ManagerFile) throws(Refusal) -> Identifier {
        guard number < identifiers.count, let identifier = identifiers[Int(number)] else {
            throw Refusal(ENOENT, "there is no identifier of this number", has: Int(number))
        }
        try demand(
            identifier.file === file, EINVAL, "the identifier is of another descriptor of rdma_cm", has: Int(number))
        return identifier
    }

    /// The identifier with this communication ID.
    func identifier(communicationID: UInt32) -> Identifier? {
        communicationID > 0 && communicationID <= identifiers.count ? identifiers[Int(communicationID) - 1] : nil
    }

    func forEach(_ body: (Identifier) -> Void) {
        for identifier in identifiers { if let identifier { body(identifier) } }
    }

    // MARK: - Devices

    /// The devices of its network namespace.
    var devices: [Device?] { simulation.devices.filter { $0?.manager === self } }

    /// Whether an identifier needs the device's port to be open.
    func needs(_ device: Device) -> Bool {
        for identifier in identifiers {
            guard let identifier else { continue }
            if identifier.device === device || (identifier.device == nil && identifier.boundSpace != 0) { return true }
        }
        return false
    }

    /// Binds an identifier to a device.
    func attach(_ identifier: Identifier, _ device: Device) throws(Refusal) {
        try device.wire?.open()
        identifier.device = device
        device.startRunning()
    }

    /// The device that has an address.
    func device(of address: sim_cm_address) throws(Refusal) -> Device {
        for device in devices {
            if let device, !device.isDead, device.has(address) { return device }
        }
        throw Refusal(ENODEV, "no device has this address")
    }

    /// The device has failed: its identifiers are unusable, and the programs are told.
    func remove(_ device: Device) {
        for identifier in identifiers {
            guard let identifier, identifier.device === device else { continue }
            raise(.deviceRemoval, identifier)
            release(identifier)
            identifier.state = .deviceRemoved
        }
    }

    /// The connection of an iWARP queue pair has ended.
    override func ended(_ queuePair: QueuePair, _ end: ConnectionEnd) {
        for identifier in identifiers {
            guard let identifier, identifier.queuePair == queuePair.number,
                identifier.device === queuePair.context.device
            else { continue }
            closed(identifier, status: end == .abort ? -ECONNRESET : 0)
        }
    }

    // MARK: - Destruction

    /// Destroys an identifier. Returns the number of its events that the program has read.
    @discardableResult
    func destroy(_ identifier: Identifier) -> UInt32 {
        identifiers[Int(identifier.number)] = nil
        if identifier.state != .deviceRemoved { release(identifier) }
        for event in identifier.file.take(where: { $0.identifier === identifier }) {
            if let request = event.request { destroy(request) }
        }
        for membership in identifier.memberships { memberships[Int(membership.number)] = nil }
        // A membership refers to its identifier.
        identifier.memberships = []
        return identifier.eventsReported
    }

    /// Ends communication, and releases the port and the device.
    private func release(_ identifier: Identifier) {
        endCommunication(identifier)
        timeWaits.removeAll { $0 === identifier }
        releasePort(identifier)
        let device = identifier.device
        identifier.device = nil
        if let device { device.closeIfUnused() } else { for other in devices { other?.closeIfUnused() } }
    }

    /// close(2) of a descriptor.
    func close(_ file: ManagerFile) {
        for identifier in identifiers { if let identifier, identifier.file === file { destroy(identifier) } }
    }

    // MARK: - Memberships

    func add(_ identifier: Identifier, userID: UInt64, _ address: sim_cm_address) -> Membership {
        let membership = Membership(
            number: UInt32(memberships.count), identifier: identifier, userID: userID, address: address)
        memberships.append(membership)
        identifier.memberships.append(membership)
        return membership
    }

    func membership(_ number: UInt32, _ file: ManagerFile) throws(Refusal) -> Membership {
        guard number < memberships.count, let membership = memberships[Int(number)] else {
            throw Refusal(ENOENT, "there is no membership of this number", has: Int(number))
        }
        try demand(
            membership.identifier.file === file, EINVAL, "the membership is of another descriptor", has: Int(number))
        return membership
    }

    func remove(_ membership: Membership) {
        memberships[Int(membership.number)] = nil
        membership.identifier.memberships.removeAll { $0 === membership }
        _ = membership.identifier.file.take { $0.membership === membership }
    }

    // MARK: - Messages

    /// Sends a message to the port `lid`. Returns false when there is no such port or it is not open.
    @discardableResult
    func send(_ message: sim_cm_message, from device: Device, to lid: UInt16) -> Bool {
        guard let wire = device.wire else {
            guard lid == device.lid else { return false }
            inbox.append(Arrival(device: device, message: message, source: lid))
            return true
        }
        guard wire.isOpen(lid) else { return false }
        var header = sim_wire_message()
        header.kind = UInt8(SIM_WIRE_CONNECTION_MANAGER.rawValue)
        header.path_mtu = UInt32(device.mtu)
        header.length = UInt64(MemoryLayout<sim_cm_message>.size)
        withUnsafeBytes(of: message) { wire.sendAcknowledgement(header, $0, to: lid) }
        device.transmitted += 1
        return true
    }

    /// Delivers the messages of devices without a wire.
    func deliver() {
        while !inbox.isEmpty {
            let arrival = inbox.removeFirst()
            do throws(Refusal) { try receive(arrival) } catch {
                _ = arrival.device.record(error, of: "rdma_cm")
            }
        }
    }

    /// A step of a device: requests that wait for room, and the ends of TimeWait.
    func run() {
        if !deferred.isEmpty {
            let waiting = deferred
            deferred = []
            for arrival in waiting { receive(request: arrival) }
        }
        if !timeWaits.isEmpty {
            let ended = timeWaits
            timeWaits = []
            for identifier in ended {
                identifier.communication = .idle
                if identifier.state == .disconnect { raise(.timeWaitExit, identifier) }
            }
        }
        deliver()
    }
}
