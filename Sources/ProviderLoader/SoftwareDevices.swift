import CProviderABI

/// The devices that built-in providers list (`rdma_provider.list_devices`).
struct SoftwareDevices {
    private(set) var devices: [DeviceDescription] = []
    /// Devices that are opened on request only (`RDMA_SOFTWARE_DEVICE_ON_REQUEST`).
    private(set) var onRequest: [DeviceDescription] = []
    private(set) var problems: [Problem] = []

    /// Asks all of `builtIn`. A device is passed over if its name is in `taken` or was listed before.
    init(of builtIn: [ProviderSource], besides taken: Set<String>) {
        var taken = taken
        for source in builtIn {
            guard case .builtIn(.success(let provider)) = source.kind else { continue }
            do throws(LoadFailure) {
                for listed in try provider.softwareDevices() {
                    add(listed, by: source.name, &taken)
                }
            } catch {
                problems.append(
                    Problem(
                        path: nil, message: "\(source.label): \(error.message)",
                        hint: "`verbs doctor` looks for what stands in the way", code: error.code))
            }
        }
    }

    private mutating func add(_ listed: rdma_software_device, by provider: String, _ taken: inout Set<String>) {
        let device = DeviceDescription(listed, by: provider)
        guard isDeviceName(device.name), taken.insert(device.name).inserted else {
            let reason = isDeviceName(device.name) ? "that name is taken" : "that is not a device name"
            problems.append(
                Problem(
                    path: nil,
                    message: "\(provider) lists a device `\(device.name)`, which is passed over: \(reason)",
                    hint: "report it to the vendor of \(provider)"))
            return
        }
        if listed.flags & RDMA_SOFTWARE_DEVICE_ON_REQUEST.rawValue == 0 {
            devices.append(device)
        } else {
            onRequest.append(device)
        }
    }
}

extension DeviceDescription {
    /// A software device as `provider` listed it.
    fileprivate init(_ listed: rdma_software_device, by provider: String) {
        self.init(name: characters(listed.name), kind: .software)
        let interface = characters(listed.interface)
        networkInterface = interface.isEmpty ? nil : interface
        interfaceIndex = listed.ifindex
        nodeType = Int32(bitPattern: listed.node_type)
        transportType = Int32(bitPattern: listed.transport_type)
        nodeGUID = UInt64(bigEndian: listed.node_guid)
        listedBy = provider
    }
}

/// The text of an array of characters, up to its terminating zero.
private func characters<T>(_ field: T) -> String {
    withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}
