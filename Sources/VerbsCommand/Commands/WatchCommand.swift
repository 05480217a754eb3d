import ArgumentParser
import Glibc
import RDMANetlink
import SystemPackage
import Verbs

struct WatchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch",
        abstract: "Show device events and counter rates as they occur.",
        discussion: """
            Shows the asynchronous events of every device that can be opened, the addition and removal of devices, link \
            changes of the ports' network interfaces, and after each interval the rates of the counters. Ends with \
            Ctrl-C, or after --duration. With --json each line is one JSON document. Counters come from the kernel: \
            software devices have events only.
            """)

    @OptionGroup var choice: DeviceChoice

    @Option(help: "The time between two reports of the counters, such as 500ms.", transform: timeArgument)
    var interval: Duration = .seconds(1)

    @Option(help: "End after that time, such as 10s; without it, on Ctrl-C.", transform: timeArgument)
    var duration: Duration?

    @Flag(help: "Print each line as a JSON document, as Documentation/schema/watch.json describes.")
    var json = false

    func validate() throws {
        guard interval >= .milliseconds(10) else { throw ValidationError("Give an --interval of 10ms or more.") }
    }

    func run() throws {
        Interrupt.install()
        let monitor = try DeviceMonitor(of: choice.device, asJSON: json)
        let end = duration.map { Clock.now() &+ $0.nanoseconds }
        var next = Clock.now() &+ interval.nanoseconds
        monitor.showRates()
        while !Interrupt.isRequested {
            let now = Clock.now()
            if let end, now >= end { return }
            if now >= next {
                monitor.showRates()
                next = now &+ interval.nanoseconds
            }
            monitor.wait(until: min(next, end ?? next))
            monitor.showEvents()
        }
        if let exit = Interrupt.exit { throw ExitCode(exit.rawValue) }
    }
}

/// A line of `verbs watch`: Documentation/schema/watch.json.
struct WatchLine: Encodable {
    enum LineType: String, Encodable { case event, counters }

    let schema = "verbs-watch-2"
    let time = Clock.timeOfDay()
    var type: LineType
    /// Nil: the event is not of one device.
    var device: String?
    var port: Int?
    /// Text such as `PORT_ERR`, or `device added`.
    var event: String?
    /// Increase per second by counter name, without counters that did not change.
    var ratesPerSecond: [String: Double]?

    var text: String {
        let subject = [device, port.map { "port \($0)" }].compactMap { $0 }.joined(separator: " ")
        let what = event ?? ratesPerSecond?.rateText ?? ""
        return "\(time.dropFirst(11).dropLast())  \(subject.isEmpty ? "-" : subject)  \(what)".printable + "\n"
    }
}

/// The devices that are watched, with their last counters.
final class DeviceMonitor {
    private let wanted: String?
    private let asJSON: Bool
    private var monitor: KernelMonitor?
    private var contexts: [(device: Device, context: Context)] = []
    private var counters: [String: PortCounters] = [:]

    init(of wanted: String?, asJSON: Bool) throws(ToolError) {
        self.wanted = wanted
        self.asJSON = asJSON
        let devices = try DeviceList.current().choosing(wanted)
        var failure: NetlinkError?
        do throws(NetlinkError) {
            monitor = try KernelMonitor()
        } catch {
            failure = error
            monitor = nil
        }
        if let failure {
            guard !devices.isEmpty else { throw ToolError.noDevices }
            Console.note("verbs: \(failure.description)")
        }
        for device in devices { open(device) }
    }

    private func open(_ device: Device) {
        do throws(VerbsError) {
            contexts.append((device, try device.open()))
        } catch {
            Console.note(ToolError(error).text)
        }
    }

    private func show(_ line: WatchLine) {
        if asJSON {
            Console.output(line: line)
        } else {
            Console.output(line.text)
        }
    }

    /// Waits until an event may be available, or until `time`.
    func wait(until time: UInt64) {
        var descriptors = contexts.map(\.context.eventDescriptor.rawValue)
        switch monitor {
        case .some(let monitor): descriptors += monitor.descriptors
        case .none: break
        }
        var waiting = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        let now = Clock.now()
        // Rounded up, so that poll(2) does not return before `time`.
        let milliseconds = time > now ? (time - now + 999_999) / 1_000_000 : 0
        poll(&waiting, nfds_t(waiting.count), CInt(clamping: milliseconds))
    }

    func showEvents() {
        contexts.removeAll { device, context in
            do throws(VerbsError) {
                while let event = try context.nextEvent(timeout: .zero) {
                    show(WatchLine(event, of: device.name))
                }
                return false
            } catch {
                // The device was removed, or has no events.
                return error.errno != .notSupported
            }
        }
        for event in kernelEvents() { take(event) }
    }

    private func kernelEvents() -> [KernelEvent] {
        do throws(NetlinkError) {
            return try monitor?.events() ?? []
        } catch {
            Console.note("verbs: \(error.description)")
            return []
        }
    }

    private func take(_ event: KernelEvent) {
        switch event {
        case .deviceAdded(let name) where isWanted(name):
            show(WatchLine(type: .event, device: name, event: "device added"))
            if let device = try? Device.named(name) { open(device) }
        case .verbsNodeRemoved(let node):
            // Removal of the device blocks in the kernel until its descriptors are closed.
            contexts.removeAll { $0.device.details.uverbsName == node }
        case .deviceRemoved(let name) where isWanted(name):
            show(WatchLine(type: .event, device: name, event: "device removed"))
        case .deviceRenamed(let name, let old) where isWanted(name) || old.map(isWanted) == true:
            show(WatchLine(type: .event, device: name, event: "device renamed" + (old.map { ", was \($0)" } ?? "")))
        case .interfaceUp(let name, let index): showInterface(index, "interface \(name) up")
        case .interfaceDown(let name, let index): showInterface(index, "interface \(name) down")
        case .interfaceOfPortChanged(let index, let port, let interface):
            guard let device = KernelView.current().devices.first(where: { $0.index == index })?.name,
                isWanted(device)
            else { return }
            let text = interface.map { "the port's interface is now \($0)" } ?? "the port has no interface"
            show(WatchLine(type: .event, device: device, port: Int(port), event: text))
        case .lost:
            show(WatchLine(type: .event, event: "events were lost: the netlink socket's receive buffer overflowed"))
            catchUp()
        case .deviceAdded, .deviceRemoved, .deviceRenamed: break
        }
    }

    /// After lost events: closes devices that were removed, and opens devices that were added.
    private func catchUp() {
        contexts.removeAll { device, _ in
            guard let node = device.details.uverbsName else { return false }
            return access("/sys/class/infiniband_verbs/\(node)", F_OK) != 0
        }
        let known = Set(contexts.map { $0.device.details.uverbsName ?? $0.device.name })
        guard let devices = try? Device.list() else { return }
        for device in devices where isWanted(device.name) {
            if !known.contains(device.details.uverbsName ?? device.name) { open(device) }
        }
    }

    private func isWanted(_ name: String) -> Bool { wanted == nil || name == wanted }

    /// Shows an event of an interface for each port that uses the interface.
    private func showInterface(_ index: UInt32, _ text: String) {
        for link in KernelView.current().links where link.interfaceIndex == index && isWanted(link.deviceName) {
            show(WatchLine(type: .event, device: link.deviceName, port: Int(link.port), event: text))
        }
    }

    /// Shows the rates of the counters since the last call; the first call only reads the counters.
    func showRates() {
        guard let kernel = try? KernelRDMA(), let devices = try? kernel.devices() else { return }
        for device in devices where isWanted(device.name) {
            for link in (try? kernel.links(of: device)) ?? [] {
                let key = "\(device.index)/\(link.port)"
                let now = PortCounters(of: link, kernel)
                if let before = counters.updateValue(now, forKey: key) {
                    show(
                        WatchLine(
                            type: .counters, device: device.name, port: Int(link.port),
                            ratesPerSecond: now.rates(since: before)))
                }
            }
        }
    }
}

extension WatchLine {
    init(_ event: AsynchronousEvent, of device: String) {
        self.init(type: .event, device: device)
        switch event.subject {
        case .port(let number):
            port = number
            self.event = event.type.description
        default: self.event = event.description
        }
    }
}
