import ArgumentParser
import Glibc
import Verbs

struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Show what a device can do, its ports and their GIDs.",
        discussion: """
            Opens the device, or every device if none is named. Exit code 2 if there is no such device, 4 if one cannot \
            be opened or asked.
            """)

    @OptionGroup var choice: DeviceChoice
    @OptionGroup var output: OutputOptions

    func run() throws {
        let wanted = try Device.all.choosing(choice.device, by: \.name)
        let kernel = KernelView.current()
        var entries: [InfoReport.Entry] = []
        var failure: ToolError?
        for device in wanted {
            do throws(ToolError) {
                entries.append(try InfoReport.Entry(device, kernel))
            } catch {
                // The other devices are still worth showing.
                if let failure { Console.note(failure.text) }
                failure = error
            }
        }
        try output.print(InfoReport(devices: entries, kernelObstacle: kernel.obstacle?.description), about: wanted)
        if let failure { throw failure }
    }
}

/// What `verbs info` prints: Documentation/schema/info.json.
struct InfoReport: Report {
    struct Provider: Encodable {
        var name: String
        var version: String
        var vendor: String
        var abi: String
        var driverFile: String?
        var library: String?
        /// `silicon` or `simulator`; null: its driver file says nothing.
        var proved: String?

        /// What that means, for people.
        static let witnesses = ["simulator": "a simulated device, not on silicon", "silicon": "silicon"]
    }

    struct Limits: Encodable {
        var queuePairs: Int
        var workRequests: Int
        var slices: Int
        var completionQueues: Int
        var completions: Int
        var memoryRegions: Int
        var memoryRegionSize: UInt64
        var protectionDomains: Int
        var sharedReceiveQueues: Int
        var addressHandles: Int
        var multicastGroups: Int
        var memoryWindows: Int
        /// Reads and atomics that a queue pair answers at a time, and has outstanding.
        var responderDepth: Int
        var initiatorDepth: Int
    }

    struct Port: Encodable {
        var number: Int
        var state: String
        var physicalState: String
        var linkLayer: String
        /// Network interface under the port; null: none, or not known.
        var interface: String?
        /// In bytes; 0: not known.
        var activeMTU: Int
        var maximumMTU: Int
        var maximumMessageSize: UInt64
        var lid: Int
        /// Gbit/s; null: not known.
        var rate: Double?
        var gids: [GIDLine]
    }

    struct GIDLine: Encodable {
        var index: Int
        var gid: String
        var type: String
        var interfaceIndex: Int
        /// Name of that interface; null: none, or in another network namespace.
        var interface: String?
        /// Whether it is the one that a connection takes unless told otherwise; none is while the port is down.
        var recommended: Bool
    }

    struct Entry: Encodable {
        var identity: DeviceIdentity
        var details: Details

        init(_ device: Device, _ kernel: KernelView) throws(ToolError) {
            identity = DeviceIdentity(device, kernel)
            details = try device.ask { context throws(VerbsError) in try Details(context, kernel) }
        }

        func encode(to encoder: any Encoder) throws {
            try identity.encode(to: encoder)
            try details.encode(to: encoder)
        }
    }

    /// What the open device says.
    struct Details: Encodable {
        var systemImageGUID: String
        var provider: Provider
        var firmware: String
        /// IEEE number of the maker, and the maker's number of the part.
        var vendorID: UInt32
        var partID: UInt32
        var hardwareVersion: UInt32
        /// How far atomic operations are atomic.
        var atomics: String
        var capabilities: String
        var limits: Limits
        /// Verbs that the provider leaves out: they answer EOPNOTSUPP.
        var unsupported: [String]
        var ports: [Port]
        var warnings: [String]
    }

    let schema = "verbs-info-1"
    var devices: [Entry]
    /// Why the kernel has told nothing of its devices; absent: it has.
    var kernelObstacle: String?

    var text: String {
        devices.map(\.text).joined(separator: "\n") + (kernelObstacle.map { "\n\($0.printable)\n" } ?? "")
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
        partID = attributes.vendorPartID
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
                gids: gids.filter { $0.port == port.number }, recommended: best.map { Int($0.gidIndex) })
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
        list.add("from", provider.driverFile ?? "built in")
        if let proved = provider.proved { list.add("proved on", InfoReport.Provider.witnesses[proved] ?? proved) }
        list.add("kind", device.kind + (device.interface.map { " over \($0)" } ?? ""))
        if let driver = device.driver { list.add("driver of the kernel", driver) }
        list.add(
            "transport",
            [device.transport, device.nodeType, device.protocol].compactMap { $0 }.joined(separator: ", "))
        list.add("node GUID", device.guid)
        list.add("system image GUID", systemImageGUID)
        if !firmware.isEmpty { list.add("firmware", firmware) }
        list.add("vendor, part, version", "\(Identifiers.hex(vendorID)), \(partID), \(hardwareVersion)")
        list.add("atomics", atomics)
        list.add("capabilities", capabilities)
        list.add("queue pairs", "\(limits.queuePairs), \(limits.workRequests) work requests of \(limits.slices) slices")
        list.add("completion queues", "\(limits.completionQueues), \(limits.completions) completions")
        list.add("memory regions", "\(limits.memoryRegions), up to \(Units.size(limits.memoryRegionSize))")
        list.add("shared receive queues", "\(limits.sharedReceiveQueues)")
        list.add("reads and atomics", "\(limits.responderDepth) answered, \(limits.initiatorDepth) outstanding")
        list.add("unsupported", unsupported.isEmpty ? "nothing" : unsupported.joined(separator: " "))
        return list
    }
}

extension InfoReport.Limits {
    init(_ attributes: DeviceAttributes) {
        queuePairs = attributes.maxQueuePairs
        workRequests = attributes.maxWorkRequests
        slices = attributes.maxSlices
        completionQueues = attributes.maxCompletionQueues
        completions = attributes.maxCompletions
        memoryRegions = attributes.maxMemoryRegions
        memoryRegionSize = attributes.maxMemoryRegionSize
        protectionDomains = attributes.maxProtectionDomains
        sharedReceiveQueues = attributes.maxSharedReceiveQueues
        addressHandles = attributes.maxAddressHandles
        multicastGroups = attributes.maxMulticastGroups
        memoryWindows = attributes.maxMemoryWindows
        responderDepth = attributes.maxResponderDepth
        initiatorDepth = attributes.maxInitiatorDepth
    }
}

extension InfoReport.Port {
    init(_ port: PortAttributes, interface: String?, gids entries: [GIDEntry], recommended: Int?) {
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
        gids = entries.map {
            InfoReport.GIDLine(
                index: $0.index, gid: $0.gid.description, type: $0.type.description,
                interfaceIndex: Int($0.interfaceIndex), interface: interfaceName($0.interfaceIndex),
                recommended: $0.index == recommended)
        }
    }

    var text: String {
        var list = PropertyList()
        list.add("state", "\(state), \(physicalState)")
        list.add("link layer", linkLayer + (rate.map { ", \(Units.threeDigits($0)) Gbit/s" } ?? ""))
        list.add("MTU", "\(activeMTU) of \(maximumMTU) bytes")
        list.add("largest message", Units.size(maximumMessageSize))
        if lid != 0 { list.add("LID", "\(lid)") }
        if let interface { list.add("interface", interface) }
        for gid in gids {
            let words = [gid.gid, gid.type, gid.interface, gid.recommended ? "recommended" : nil]
            list.add("GID \(gid.index)", words.compactMap { $0 }.joined(separator: "  "))
        }
        return "  port \(number)\n" + list.text(indent: 4)
    }
}

/// Name of a network interface; nil where there is none of that number in this network namespace.
private func interfaceName(_ index: UInt32) -> String? {
    var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
    guard index > 0, if_indextoname(index, &name) != nil else { return nil }
    return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
}
