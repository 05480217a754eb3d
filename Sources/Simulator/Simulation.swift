import CSimulator

/// All simulated devices of this process. The caller holds the lock (`sim_lock`).
final class Simulation {
    /// Completion vectors of every device.
    static let vectorCount: UInt32 = 2

    private(set) var devices: [Device?] = []
    /// The connection manager of all devices that are in no network namespace of their own.
    let manager = ConnectionManager()
    private var entries: [(descriptor: Int32, serial: UInt64, entry: Entry)] = []
    private var lastSerial: UInt64 = 0

    /// The kind of a descriptor.
    enum Entry {
        case context(Context)
        case events(EventFile)
        case manager(ManagerFile)
        case foreign
    }

    /// The device with this number; nil when there is none.
    func device(_ index: Int32) -> Device? {
        index >= 0 && index < devices.count ? devices[Int(index)] : nil
    }

    func create(_ options: Options) throws(Refusal) -> Device {
        var wire: Wire?
        if let directory = options.wire { wire = try Wire(directory) }
        let device = Device(index: devices.count, options: options, wire: wire)
        devices.append(device)
        if let directory = options.wire { sim_sysfs_place(directory.cString, device.lid) }
        SysfsTree(device).write()
        return device
    }

    /// Removes all devices. Commands on their open descriptors fail with EIO.
    func removeAll() {
        for device in devices { device?.die() }
        for index in devices.indices { devices[index] = nil }
        sim_sysfs_clear()
    }

    // MARK: - Descriptors

    func add(_ entry: Entry, descriptor: Int32) {
        // A reused number: the program closed the old descriptor by a call that the simulator does not see.
        entries.removeAll { $0.descriptor == descriptor }
        lastSerial += 1
        entries.append((descriptor, lastSerial, entry))
        sim_own(descriptor, true)
    }

    func entry(_ descriptor: Int32) -> Entry {
        for known in entries where known.descriptor == descriptor { return known.entry }
        return .foreign
    }

    /// The descriptors of the event files of a context.
    func eventFiles(of context: Context) -> [Int32] {
        entries.compactMap {
            guard case .events(let file) = $0.entry, file.context === context else { return nil }
            return $0.descriptor
        }
    }

    /// The serial number of the open file behind a descriptor; 0: none.
    func serial(_ descriptor: Int32) -> UInt64 {
        for known in entries where known.descriptor == descriptor { return known.serial }
        return 0
    }

    /// close(2) of a descriptor.
    func close(_ descriptor: Int32) {
        let entry = entry(descriptor)
        sim_own(descriptor, false)
        entries.removeAll { $0.descriptor == descriptor }
        switch entry {
        case .context(let context): context.close()
        case .manager(let file): file.manager.close(file)
        case .events, .foreign: break
        }
    }
}

/// The only instance.
nonisolated(unsafe) let simulation = Simulation()

/// Runs with the lock held.
func locked<Value>(_ body: () -> Value) -> Value {
    sim_lock()
    defer { sim_unlock() }
    return body()
}
