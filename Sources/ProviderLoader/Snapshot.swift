import CProviderABI
import Glibc

/// The devices and the contenders at one moment.
struct Snapshot {
    let devices: [DeviceDescription]
    let problems: [Problem]
    /// In rank order, which is total: no two driver files of a directory have one name.
    private let ranked: [Contender]
    private let rules: Eligibility

    init(_ configuration: LoaderConfiguration) {
        let directories = DriverDirectories(configuration)
        let trust = FileTrust(configuration)
        let builtIn = configuration.builtIn.map { Contender($0) }
        let files = directories.entries.map { Contender($0, trust: trust) }
        ranked = files.sorted { $0.precedence(over: $1) != nil } + builtIn
        rules = Eligibility(
            masks: directories.masks, asked: configuration.setting(.provider),
            kernelProviders: Set(builtIn.filter(\.servesKernelDevices).map(\.provider)))

        let otherSysfs = configuration.setting(.sysfsPath)
        // The kernel knows nothing of what another sysfs shows.
        let kernel = KernelDevices(
            sysfs: otherSysfs ?? configuration.sysfsPath,
            driverIDs: otherSysfs == nil ? configuration.driverIDs : { [:] })
        let software = SoftwareDevices(of: builtIn, besides: Set(kernel.devices.map(\.name)))
        devices = kernel.devices + software.devices
        problems = Snapshot.settings(configuration, ranked) + directories.problems + kernel.problems + software.problems
    }

    /// The election of the provider of one of the devices, with the rules applied and nobody tried yet.
    func election(for device: DeviceDescription) -> Election {
        Election(device, ranked: ranked, rules: rules)
    }

    /// Environment variables that are ignored, or make no sense.
    private static func settings(_ configuration: LoaderConfiguration, _ contenders: [Contender]) -> [Problem] {
        typealias Setting = LoaderConfiguration.Setting
        var problems: [Problem] = []
        if configuration.isPrivileged {
            for name in Setting.allCases where configuration.environment[name.rawValue] != nil {
                problems.append(
                    Problem(
                        path: nil, sentence: "\(name.rawValue) is ignored: this process runs with raised privileges",
                        hint: "set it up in /etc/ibverbs.d instead"))
            }
        }
        if let level = configuration.setting(.log), LogMessage.Level(name: level) == nil {
            problems.append(
                Problem(
                    path: nil, sentence: "RDMA_LOG cannot be `\(level)`",
                    hint: "set it to error, warning, info or debug"))
        }
        if let asked = configuration.setting(.provider), !contenders.contains(where: { $0.provider == asked }) {
            let names = Set(contenders.map(\.provider)).sorted().joined(separator: ", ")
            problems.append(
                Problem(
                    path: nil, sentence: "RDMA_PROVIDER asks for `\(asked)`, and there is no such provider",
                    hint: "there are: \(names.isEmpty ? "none" : names)"))
        }
        return problems
    }
}

extension Contender {
    /// A built-in provider that lists no devices of its own is for those of the kernel.
    fileprivate var servesKernelDevices: Bool {
        guard case .builtIn(.success(let provider)) = source else { return false }
        return !provider.listsDevices
    }
}

/// The devices that built-in providers list.
struct SoftwareDevices {
    private(set) var devices: [DeviceDescription] = []
    private(set) var problems: [Problem] = []

    /// Asks all of `builtIn`; a name that is in `taken` is given to nobody again.
    init(of builtIn: [Contender], besides taken: Set<String>) {
        var taken = taken
        for contender in builtIn {
            guard case .builtIn(.success(let provider)) = contender.source else { continue }
            do throws(Errno) {
                for listed in try provider.softwareDevices() {
                    add(DeviceDescription(listed, by: contender.provider), &taken)
                }
            } catch {
                problems.append(
                    Problem(
                        path: nil, sentence: "\(contender.label) cannot list its devices: \(error.text)", hint: ""))
            }
        }
    }

    private mutating func add(_ device: DeviceDescription, _ taken: inout Set<String>) {
        guard isDeviceName(device.name), taken.insert(device.name).inserted else {
            let reason = isDeviceName(device.name) ? "that name is taken" : "that is not a device name"
            problems.append(
                Problem(
                    path: nil,
                    sentence:
                        "\(device.listedBy ?? "") lists a device `\(device.name)`, which is passed over: \(reason)",
                    hint: ""))
            return
        }
        devices.append(device)
    }
}

extension DeviceDescription {
    /// A software device as a provider has listed it.
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

/// The text in an array of characters, up to its zero.
private func characters<T>(_ field: T) -> String {
    withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}
