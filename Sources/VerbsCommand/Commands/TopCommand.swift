import ArgumentParser
import FoundationEssentials
import Glibc
import RDMANetlink
import Verbs

struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Show the objects that each process holds of a device, and the rates of the device's counters.",
        discussion: """
            Both come from the kernel. Of the software device soft, the processes of this user that have it open are \
            asked for their counters. On a terminal the table is refreshed after each interval until Ctrl-C; otherwise, \
            or with --once or --json, it is shown once, after one interval. Exit code 2 if the kernel has no RDMA device \
            and no process has a software device open.
            """)

    @OptionGroup var choice: DeviceChoice

    @Option(help: "The time over which rates are measured, such as 500ms.", transform: timeArgument)
    var interval: Duration = .seconds(1)

    @Flag(help: "Show the table once.")
    var once = false

    @OptionGroup var output: OutputOptions

    func run() throws {
        let wanted = try DeviceList.current().choosing(choice.device)
        let names = Set(wanted.map(\.name))
        // Without a name, all devices of soft, also those of interfaces that do not exist any more.
        let softNames = choice.device == nil ? nil : names
        let soft = SoftDevices()
        var sample = try TopSample(of: names, soft, softNames)
        if let error = sample.kernelError { Console.note("\(error.text)") }
        let repeats = !once && !output.json && isatty(STDOUT_FILENO) == 1
        Interrupt.install()
        repeat {
            Clock.sleep(interval.nanoseconds)
            let next = try TopSample(of: names, soft, softNames)
            let report = TopReport(next, since: sample)
            sample = next
            if repeats { Console.output("\u{1B}[H\u{1B}[J") }
            try output.print(report)
            if next.isEmpty {
                throw choice.device.map { ToolError.notOpen($0) } ?? .noDevices
            }
        } while repeats && !Interrupt.isRequested
        if let exit = Interrupt.exit { throw ExitCode(exit.rawValue) }
    }
}

/// A snapshot of the objects and counters of the kernel's devices, and of the counters of soft.
struct TopSample {
    struct Port {
        var link: RDMALink
        var counters: PortCounters
    }

    private(set) var ports: [Port] = []
    private(set) var holders: [Holder] = []
    private(set) var softDevices: [SoftDevices.Sample]
    /// Why the kernel's devices are missing; nil: they are not.
    private(set) var kernelError: ToolError?

    /// Without a name in it, nothing is shown.
    var isEmpty: Bool { ports.isEmpty && softDevices.isEmpty }

    /// - Throws: The error of the kernel's devices, when no device of soft can be shown either.
    init(of names: Set<String>, _ soft: SoftDevices, _ softNames: Set<String>?) throws(ToolError) {
        softDevices = soft.sample().filter { sample in
            guard let softNames else { return true }
            guard let device = sample.device else { return softNames.contains { $0.hasPrefix("soft") } }
            return softNames.contains(device)
        }
        do throws(NetlinkError) {
            let kernel = try KernelRDMA()
            for device in try kernel.devices() where names.contains(device.name) {
                for link in try kernel.links(of: device) {
                    ports.append(Port(link: link, counters: PortCounters(of: link, kernel)))
                }
                holders += try Holder.all(of: device, kernel)
            }
        } catch {
            kernelError = ToolError(error)
            if softDevices.isEmpty { throw ToolError(error) }
        }
    }
}

/// The objects of a device that one process, or one part of the kernel, holds.
struct Holder: Encodable {
    var device: String
    /// Process ID; nil: a part of the kernel, or a process in another PID namespace.
    var process: UInt32?
    /// Name of the program, or of the part of the kernel.
    var command: String
    var queuePairs: UInt64 = 0
    var completionQueues: UInt64 = 0
    var memoryRegions: UInt64 = 0
    var registeredBytes: UInt64 = 0
    var protectionDomains: UInt64 = 0
    var sharedReceiveQueues: UInt64 = 0
    var connections: UInt64 = 0

    private init(_ device: RDMADevice, _ owner: ResourceOwner?) {
        self.device = device.name
        switch owner {
        case .process(let number)?:
            process = number
            command = Self.command(of: number)
        case .kernel(let name)?: command = "[\(name)]"
        case nil: command = "?"
        }
    }

    /// The name of a process's program.
    static func command(of process: UInt32) -> String {
        let name = FileManager.default.contents(atPath: "/proc/\(process)/comm")
        return name.map { String(decoding: $0, as: UTF8.self).filter { $0 != "\n" } } ?? "?"
    }

    /// The holders of a device's objects, sorted by registered memory, most first.
    static func all(of device: RDMADevice, _ kernel: borrowing KernelRDMA) throws(NetlinkError) -> [Holder] {
        var holders: [ResourceOwner?: Holder] = [:]
        func count(_ owner: ResourceOwner?, _ add: (inout Holder) -> Void) {
            add(&holders[owner, default: Holder(device, owner)])
        }
        for pair in try kernel.queuePairs(of: device) { count(pair.owner) { $0.queuePairs += 1 } }
        for queue in try kernel.completionQueues(of: device) { count(queue.owner) { $0.completionQueues += 1 } }
        for region in try kernel.memoryRegions(of: device) {
            count(region.owner) { holder in
                holder.memoryRegions += 1
                holder.registeredBytes &+= region.length ?? 0
            }
        }
        for domain in try kernel.protectionDomains(of: device) { count(domain.owner) { $0.protectionDomains += 1 } }
        for connection in try kernel.connections(of: device) { count(connection.owner) { $0.connections += 1 } }
        do throws(NetlinkError) {
            let queues = try kernel.sharedReceiveQueues(of: device)
            for queue in queues { count(queue.owner) { $0.sharedReceiveQueues += 1 } }
        } catch  where error.reason == .refused {
            // Linux before 5.15 cannot list shared receive queues.
        }
        return holders.values.sorted {
            ($1.registeredBytes, $0.process ?? 0, $0.command) < ($0.registeredBytes, $1.process ?? 0, $1.command)
        }
    }
}

/// The output of `verbs top`: Documentation/schema/top.json.
struct TopReport: Report {
    struct Port: Encodable {
        var device: String
        var number: Int
        var state: String
        var interface: String?
        /// Increase per second by counter name, without counters that did not change.
        var ratesPerSecond: [String: Double]
    }

    /// A device of soft that a process has open.
    struct SoftDevice: Encodable {
        /// Nil: the process did not answer.
        var device: String?
        var process: UInt32?
        var command: String
        /// Whether the process answered in time. One that is stopped does not, nor does one of an older version.
        var answered: Bool
        /// The values since the device was opened, by name.
        var counters: [String: UInt64]
        /// Increase per second by counter name, without counters that did not change.
        var ratesPerSecond: [String: Double]
    }

    let schema = "verbs-top-1"
    var ports: [Port]
    var holders: [Holder]
    var softDevices: [SoftDevice]

    init(_ sample: TopSample, since before: TopSample) {
        holders = sample.holders
        softDevices = sample.softDevices.map { device in
            let old = before.softDevices.first { $0.slot == device.slot && $0.process == device.process }
            return SoftDevice(
                device: device.device, process: device.process,
                command: device.process.map(Holder.command) ?? "?", answered: device.device != nil,
                counters: device.values, ratesPerSecond: old.map { device.rates(since: $0) } ?? [:])
        }
        ports = sample.ports.map { port in
            let old = before.ports.first {
                $0.link.deviceIndex == port.link.deviceIndex && $0.link.port == port.link.port
            }
            return Port(
                device: port.link.deviceName, number: Int(port.link.port),
                state: port.link.state?.description ?? "unknown",
                interface: port.link.interfaceName,
                ratesPerSecond: old.map { port.counters.rates(since: $0.counters) } ?? [:])
        }
    }

    var text: String {
        let rates = ports.map { port in
            let interface = port.interface.map { " on \($0)" } ?? ""
            return "\(port.device) port \(port.number)\(interface): \(port.state)  \(port.ratesPerSecond.rateText)"
                .printable + "\n"
        }
        let soft = softDevices.map { device in
            let process =
                device.process.map { "process \($0) (\(device.command))" } ?? "a process of another PID namespace"
            guard let name = device.device else {
                return "soft: \(process) does not answer: it is stopped, or of an older version\n".printable
            }
            return "\(name), \(process): \(device.ratesPerSecond.rateText)".printable + "\n"
        }
        guard !ports.isEmpty else { return soft.joined() }
        var table = Table(
            .left("device"), .right("process"), .left("command"), .right("QPs"), .right("CQs"), .right("SRQs"),
            .right("PDs"), .right("MRs"), .right("registered"), .right("connections"))
        for holder in holders {
            table.add(
                holder.device, holder.process.map { String($0) } ?? "", holder.command, "\(holder.queuePairs)",
                "\(holder.completionQueues)", "\(holder.sharedReceiveQueues)", "\(holder.protectionDomains)",
                "\(holder.memoryRegions)", Units.size(holder.registeredBytes), "\(holder.connections)")
        }
        return rates.joined() + soft.joined() + table.text
    }
}
