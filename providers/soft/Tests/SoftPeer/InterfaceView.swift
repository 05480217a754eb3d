import CIBVerbs
import Foundation
import SoftTestSupport

/// An open device whose interface changes: `soft-peer interface`. Reads one command per line, and prints one line of
/// JSON for each.
///
/// | command   | output |
/// |-----------|--------|
/// | `show`    | `Port` |
/// | `event`   | type of the next asynchronous event (`ibv_event_type`), or 0 when none is raised within 10 s |
/// | `traffic` | "done" when two queue pairs with the active MTU have transferred a message over UDP, or the error |
/// | `scarce N` | the GIDs, or one line with the error, while N descriptors are left (RLIMIT_NOFILE) |
/// | `beyond`  | "done" when two queue pairs were connected with twice the active MTU, or the error |
struct InterfaceView {
    /// The attributes of the port.
    struct Port: Codable, Equatable {
        var gids: [String]
        var state: UInt32
        var physicalState: UInt8
        var activeMTU: UInt32
    }

    private let device: OpenDevice

    init(_ interface: String) throws { device = try OpenDevice(interface: interface) }

    func run() throws {
        try printLine("open")
        while let command = readLine() {
            switch command {
            case "show": try printLine(port())
            case "event": try printLine(event())
            case "traffic":
                try printOutcome { try move() }
            case "beyond":
                try printOutcome { _ = try connect { ibv_mtu($0.rawValue + 1) } }
            case let command where command.hasPrefix("scarce "):
                let result = try withDescriptorsLeft(Int(command.dropFirst(7)) ?? 0) {
                    do { return try entries().map(\.text) } catch { return ["\(error)"] }
                }
                try printLine(result)
            default: throw Failure("\(command): unknown command")
            }
        }
    }

    /// Runs `body` while only `count` more descriptors can be opened.
    private func withDescriptorsLeft<Result>(_ count: Int, _ body: () throws -> Result) throws -> Result {
        var limits = rlimit()
        try check(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits))
        let before = limits
        defer {
            var before = before
            _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &before)
        }
        var left = 0
        var limit: Int32 = 0
        while left < count || fcntl(limit, F_GETFD) >= 0 {
            if fcntl(limit, F_GETFD) < 0 { left += 1 }
            limit += 1
        }
        limits.rlim_cur = rlim_t(limit)
        try check(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limits))
        return try body()
    }

    private func printOutcome(_ body: () throws -> Void) throws {
        do {
            try body()
            try printLine("done")
        } catch {
            try printLine("\(error)")
        }
    }

    private func attributes() throws -> ibv_port_attr {
        var attr = ibv_port_attr()
        try check(device.table.query_port(device.context, 1, &attr, MemoryLayout<ibv_port_attr>.size))
        return attr
    }

    private func port() throws -> Port {
        let attr = try attributes()
        return Port(
            gids: try entries().map(\.text), state: attr.state.rawValue, physicalState: attr.phys_state,
            activeMTU: 128 << attr.active_mtu.rawValue)
    }

    private func entries() throws -> [ibv_gid_entry] {
        var entries = [ibv_gid_entry](repeating: ibv_gid_entry(), count: 32)
        let count = device.table.query_gid_table(
            device.context, &entries, entries.count, 0, MemoryLayout<ibv_gid_entry>.size)
        guard count >= 0 else { throw Refusal(Int32(-count)) }
        return Array(entries.prefix(count))
    }

    private func event() -> UInt32 {
        var entry = pollfd(fd: device.context.pointee.async_fd, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, 10_000) == 1 else { return 0 }
        var event = ibv_async_event()
        guard device.table.get_async_event(device.context, &event) == 0 else { return 0 }
        return event.event_type.rawValue
    }

    /// Connects two queue pairs. `pathMTU` computes the path MTU from the active MTU.
    private func connect(_ pathMTU: (ibv_mtu) -> ibv_mtu = { $0 }) throws -> (Endpoint, Endpoint) {
        var options = Endpoint.Options()
        options.pathMTU = pathMTU(try attributes().active_mtu)
        options.gidIndex = UInt8(try entries().first?.gid_index ?? 0)
        // Four times 67 ms (timeout 14, 3 retries), so that an unreachable peer soon causes an error.
        options.timeout = 14
        options.retries = 3
        return try pair(options, on: device, and: device)
    }

    private func move() throws {
        let (a, b) = try connect()
        try b.postReceive([b.sge(0, 10_000)])
        a.fill(0, 10_000, seed: 7)
        try a.post(IBV_WR_SEND, [a.sge(0, 10_000)])
        let completion = try a.completions()[0]
        guard completion.status == IBV_WC_SUCCESS else { throw Failure("status \(completion.status.rawValue)") }
        _ = try b.completions()
        guard a.bytes(0, 10_000) == b.bytes(0, 10_000) else { throw Failure("the received data differs") }
    }
}

extension ibv_gid_entry {
    /// The GID in the IPv6 notation of inet_ntop(3).
    fileprivate var text: String {
        var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        return withUnsafeBytes(of: gid) { bytes in
            String(cString: inet_ntop(AF_INET6, bytes.baseAddress, &text, socklen_t(text.count))!)
        }
    }
}
