import ArgumentParser
import Glibc
import Verbs

struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Show the attributes of a device, its ports and their GIDs.",
        discussion: """
            Opens the device, or every device if none is named. Exit code 2 if there is no such device, 4 if a device \
            cannot be opened or queried.
            """)

    @OptionGroup var choice: DeviceChoice
    @OptionGroup var output: OutputOptions

    func run() throws {
        let wanted = try Device.chosen(choice.device)
        let kernel = KernelView.current()
        var entries: [InfoReport.Entry] = []
        var failure: ToolError?
        for device in wanted {
            do throws(ToolError) {
                entries.append(try InfoReport.Entry(device, kernel))
            } catch {
                // Show the other devices nevertheless.
                if let failure { Console.note(failure.text) }
                failure = error
            }
        }
        let report = InfoReport(
            devices: entries, warnings: .ofProviders, kernelProblem: kernel.error?.description)
        try output.print(report, about: wanted)
        if let failure { throw failure }
    }
}

/// The output of `verbs info`: Documentation/schema/info.json.
struct InfoReport: Report {
    struct Provider: Encodable {
        var name: String
        var version: String
        var vendor: String
        var abi: String
        var driverFile: String?
        var library: String?
        /// `silicon` or `simulator`; nil: the driver file has no `proved` line.
        var proved: String?

        /// The values of `proved` as text for people.
        static let provedDescriptions = ["simulator": "a simulated device, not on silicon", "silicon": "silicon"]
    }

    struct Limits: Encodable {
        var queuePairs: Int
        var workRequests: Int
        /// `ibv_device_attr.max_sge`
        var sge: Int
        var completionQueues: Int
        /// `ibv_device_attr.max_cqe`
        var cqe: Int
        var memoryRegions: Int
        var memoryRegionSize: UInt64
        var protectionDomains: Int
        var sharedReceiveQueues: Int
        var addressHandles: Int
        var multicastGroups: Int
        var memoryWindows: Int
        /// `ibv_device_attr.max_qp_rd_atom`, the responder resources: RDMA reads and atomics that a queue pair
        /// handles at a time as the responder.
        var maxQPRdAtom: Int
        /// `ibv_device_attr.max_qp_init_rd_atom`, the initiator depth: RDMA reads and atomics that a queue pair has
        /// outstanding as the initiator.
        var maxQPInitRdAtom: Int
    }

    struct Port: Encodable {
        var number: Int
        var state: String
        var physicalState: String
        var linkLayer: String
        /// Network interface of the port; nil: none, or not known.
        var interface: String?
        /// In bytes; 0: not known.
        var activeMTU: Int
        /// In bytes.
        var maximumMTU: Int
        var maximumMessageSize: UInt64
        var lid: Int
        /// In Gbit/s; nil: not known.
        var rate: Double?
        var gids: [GIDLine]
    }

    struct GIDLine: Encodable {
        var index: Int
        var gid: String
        var type: String
        var interfaceIndex: Int
        /// Name of that interface; nil: none, or in another network namespace.
        var interface: String?
        /// Whether a connection uses this GID by default; false for every GID while the port is down.
        var recommended: Bool
    }

    struct Entry: Encodable {
        var identity: DeviceIdentity
        var details: Details

        init(_ device: Device, _ kernel: KernelView) throws(ToolError) {
            identity = DeviceIdentity(device, kernel)
            details = try device.withContext { context throws(VerbsError) in try Details(context, kernel) }
        }

        func encode(to encoder: any Encoder) throws {
            try identity.encode(to: encoder)
            try details.encode(to: encoder)
        }
    }

    /// The attributes of the open device.
    struct Details: Encodable {
        var systemImageGUID: String
        var provider: Provider
        var firmware: String
        /// `ibv_device_attr.vendor_id`: the vendor's IEEE OUI.
        var vendorID: UInt32
        /// `ibv_device_attr.vendor_part_id`
        var vendorPartID: UInt32
        var hardwareVersion: UInt32
        /// `ibv_device_attr.atomic_cap`: the scope of atomicity of atomic operations.
        var atomics: String
        var capabilities: String
        var limits: Limits
        /// Verbs that the provider does not implement; they fail with EOPNOTSUPP.
        var unsupported: [String]
        var ports: [Port]
        /// Warnings about the choice of the provider.
        var warnings: [String]
    }

    let schema = "verbs-info-2"
    var devices: [Entry]
    /// Warnings and errors that providers logged during the command.
    var warnings: [String]
    /// Why the kernel could not be queried for its devices; nil: it was.
    var kernelProblem: String?

    var text: String {
        devices.map(\.text).joined(separator: "\n") + (kernelProblem.map { "\n\($0.printable)\n" } ?? "")
    }
}

extension InfoReport.Details {
    init(_ context: Context, _ kernel: KernelView) throws(VerbsError) {
        let attributes = try context.attributes()
        let gids = try context.gidTable()
        systemImageGUID = Identifiers.guid(attributes.systemImageGUID)
        provider = InfoReport.Provider(
            name: context.provider.name, version: context.provider.version, vendor: context.provider.vendor,
            abi: context.provider.abi.description, driverFile: context.provider.driverFile,
            library: context.provider.library, proved: context.provider.proof?.rawValue)
        firmware = attributes.firmwareVersion
        vendorID = attributes.vendorID
        vendorPartID = attributes.vendorPartID
        hardwareVersion = attributes.hardwareVersion
        atomics = attributes.atomicCapability.description
        capabilities = attributes.capabilities.description
        limits = InfoReport.Limits(attributes)
        unsupported = context.unsupportedVerbs.map(\.rawValue).sorted()
        warnings = context.warnings
        let addresses = try context.addresses()
        let device = context.deviceName
        ports = try context.ports().map { port in
            let best = addresses.first { $0.port == port.number }
            return InfoReport.Port(
                port, interface: kernel.interface(of: device, port: Int(port.number)),
                gids: gids.filter { $0.port == port.number }, recommended: best.map { Int($0.gidIndex) },
                isIWARP: context.transportType == .iWARP)
        }
    }
}

extension InfoReport.Entry {
    var text: String {
        let list = details.properties(of: identity).text(indent: 2)
        let remarks = details.warnings.map { "  warning: \($0.printable)\n" }.joined()
        return "\(identity.name.printable)\n" + list + remarks + details.ports.map(\.text).joined()
    }
}

extension InfoReport.Details {
    fileprivate func properties(of device: DeviceIdentity) -> PropertyList {
        var list = PropertyList()
        list.add(
            "provider",
            [provider.name, provider.version, provider.vendor].filter { !$0.isEmpty }.joined(separator: ", "))
        list.add("driver file", provider.driverFile ?? "built in")
        if let proved = provider.proved {
            list.add("proved on", InfoReport.Provider.provedDescriptions[proved] ?? proved)
        }
        list.add("type", device.type + (device.interface.map { " over \($0)" } ?? ""))
        if let location = device.location { list.add("location", location) }
        if let driver = device.driver { list.add("kernel driver", driver) }
        list.add(
            "transport",
            [device.transport, device.nodeType, device.protocol].compactMap { $0 }.joined(separator: ", "))
        list.add("node GUID", device.guid)
        list.add("system image GUID", systemImageGUID)
        if !firmware.isEmpty { list.add("firmware", firmware) }
        list.add("vendor, part, version", "\(Identifiers.hex(vendorID)), \(vendorPartID), \(hardwareVersion)")
        list.add("atomics", atomics)
        list.add("capabilities", capabilities)
        list.add("queue pairs", "\(limits.queuePairs), \(limits.workRequests) work requests of \(limits.sge) SGEs")
        list.add("completion queues", "\(limits.completionQueues), \(limits.cqe) CQEs")
        list.add("memory regions", "\(limits.memoryRegions), up to \(Units.size(limits.memoryRegionSize))")
        list.add("shared receive queues", "\(limits.sharedReceiveQueues)")
        list.add("responder resources (max_qp_rd_atom)", "\(limits.maxQPRdAtom)")
        list.add("initiator depth (max_qp_init_rd_atom)", "\(limits.maxQPInitRdAtom)")
        list.add("unsupported verbs", unsupported.isEmpty ? "none" : unsupported.joined(separator: " "))
        return list
    }
}

extension InfoReport.Limits {
    init(_ attributes: DeviceAttributes) {
        queuePairs = attributes.maxQueuePairs
        workRequests = attributes.maxQPWR
        sge = attributes.maxSGE
        completionQueues = attributes.maxCompletionQueues
        cqe = attributes.maxCQE
        memoryRegions = attributes.maxMemoryRegions
        memoryRegionSize = attributes.maxMemoryRegionSize
        protectionDomains = attributes.maxProtectionDomains
        sharedReceiveQueues = attributes.maxSharedReceiveQueues
        addressHandles = attributes.maxAddressHandles
        multicastGroups = attributes.maxMulticastGroups
        memoryWindows = attributes.maxMemoryWindows
        maxQPRdAtom = attributes.maxQPRdAtom
        maxQPInitRdAtom = attributes.maxQPInitRdAtom
    }
}

extension InfoReport.Port {
    init(_ port: PortAttributes, interface: String?, gids entries: [GIDEntry], recommended: Int?, isIWARP: Bool) {
        number = Int(port.number)
        state = port.state.description
        physicalState = port.physicalState.description
        linkLayer = port.linkLayer.description
        self.interface = interface
        activeMTU = port.activeMTU.byteCount
        maximumMTU = port.maxMTU.byteCount
        maximumMessageSize = UInt64(port.maxMessageSize)
        lid = Int(port.lid)
        rate = port.laneCount.flatMap { lanes in port.laneRate.map { $0 * Double(lanes) } }
        // The GID of an iWARP port is its link-layer address; rdma_cm connects by IP addresses.
        gids = entries.map {
            InfoReport.GIDLine(
                index: $0.index, gid: $0.gid.description, type: isIWARP ? "iWARP" : $0.type.description,
                interfaceIndex: Int($0.interfaceIndex), interface: interfaceName($0.interfaceIndex),
                recommended: $0.index == recommended && !isIWARP)
        }
    }

    var text: String {
        var list = PropertyList()
        list.add("state", "\(state), \(physicalState)")
        list.add("link layer", linkLayer + (rate.map { ", \(Units.threeDigits($0)) Gbit/s" } ?? ""))
        list.add("MTU", "\(activeMTU) of \(maximumMTU) bytes")
        list.add("maximum message size", Units.size(maximumMessageSize))
        if lid != 0 { list.add("LID", "\(lid)") }
        if let interface { list.add("interface", interface) }
        for gid in gids {
            let words = [gid.gid, gid.type, gid.interface, gid.recommended ? "recommended" : nil]
            list.add("GID \(gid.index)", words.compactMap { $0 }.joined(separator: "  "))
        }
        return "  port \(number)\n" + list.text(indent: 4)
    }
}

/// Name of a network interface; nil if no interface of this network namespace has that index.
private func interfaceName(_ index: UInt32) -> String? {
    var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
    guard index > 0, if_indextoname(index, &name) != nil else { return nil }
    return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
