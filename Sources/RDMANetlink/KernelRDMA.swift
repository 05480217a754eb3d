import CNetlink
import Glibc

/// The kernel's RDMA subsystem, as its netlink socket tells of it (`<rdma/rdma_netlink.h>`, rdma(8)).
///
/// Every call asks the kernel afresh. Any user may ask; what belongs to another network namespace is not shown.
///
/// ```swift
/// let kernel = try KernelRDMA()
/// for device in try kernel.devices() {
///     print(device.name, try kernel.queuePairs(of: device).count)
/// }
/// ```
public struct KernelRDMA: ~Copyable {
    private let socket: NetlinkSocket

    /// How long the kernel has for an answer, in milliseconds. It answers while it takes the request, so this is only
    /// there so that nothing hangs.
    private static var patience: Int32 { 5000 }

    /// Opens the socket.
    ///
    /// - Throws: `unavailable` where the kernel has no RDMA subsystem, or the process may not open the socket.
    public init() throws(NetlinkError) {
        socket = try Self.open()
    }

    private static func open() throws(NetlinkError) -> NetlinkSocket {
        do throws(SocketFailure) {
            return try NetlinkSocket(protocol: NETLINK_RDMA)
        } catch {
            throw .noSocket("ask the kernel about RDMA devices", errno: error.errno)
        }
    }

    /// The devices, in the order of their numbers.
    public func devices() throws(NetlinkError) -> [RDMADevice] {
        try dump("list the RDMA devices", .devices) { payload throws(MalformedMessage) in [try RDMADevice(payload)] }
    }

    /// The ports of a device, with their network interfaces.
    public func links(of device: RDMADevice) throws(NetlinkError) -> [RDMALink] {
        try dump("list the ports of \(device.name)", .links, [.device(device)]) { payload throws(MalformedMessage) in
            [try RDMALink(payload)]
        }
    }

    /// How the subsystem is set up.
    public func system() throws(NetlinkError) -> RDMASystem {
        try get("ask for the settings of the RDMA subsystem", .system) { payload throws(MalformedMessage) in
            try RDMASystem(payload)
        }
    }

    /// A device node of that kind, of a device or of all; the kernel loads the module that makes it.
    ///
    /// - Throws: `refused` where there is none: `EOPNOTSUPP` for an unknown kind, or a device that has none;
    ///   `EINVAL` for a device that is not there.
    public func characterDevice(
        _ kind: CharacterDevice.Kind, of device: RDMADevice? = nil
    ) throws(NetlinkError) -> CharacterDevice {
        let owner = device.map { " of \($0.name)" } ?? ""
        let arguments = (device.map { [.device($0)] } ?? []) + [Argument(.nodeKind, text: kind.rawValue)]
        return try get("find the device node \(kind.rawValue)\(owner)", .characterDevice, arguments) {
            payload throws(MalformedMessage) in try CharacterDevice(payload)
        }
    }

    /// How many objects of each kind a device has, of all processes and of the kernel: `("qp", 4)`.
    public func resourceCounts(of device: RDMADevice) throws(NetlinkError) -> [(kind: String, count: UInt64)] {
        try get("count the resources of \(device.name)", .summary, [.device(device)]) {
            payload throws(MalformedMessage) in
            var counts: [(kind: String, count: UInt64)] = []
            for entry in try Attributes(payload).entries(.summary, .summaryEntry) {
                guard let kind = entry.text(.summaryName) else { continue }
                counts.append((kind, try entry.required(.summaryCount, payload.startIndex)))
            }
            return counts
        }
    }

    /// The queue pairs of a device.
    public func queuePairs(of device: RDMADevice) throws(NetlinkError) -> [QueuePairResource] {
        try resources(of: device)
    }

    /// The completion queues of a device.
    public func completionQueues(of device: RDMADevice) throws(NetlinkError) -> [CompletionQueueResource] {
        try resources(of: device)
    }

    /// The memory regions of a device.
    public func memoryRegions(of device: RDMADevice) throws(NetlinkError) -> [MemoryRegionResource] {
        try resources(of: device)
    }

    /// The protection domains of a device.
    public func protectionDomains(of device: RDMADevice) throws(NetlinkError) -> [ProtectionDomainResource] {
        try resources(of: device)
    }

    /// The identifiers of the connection manager that are bound to a device.
    public func connections(of device: RDMADevice) throws(NetlinkError) -> [ConnectionResource] {
        try resources(of: device)
    }

    /// The contexts that processes have of a device.
    public func contexts(of device: RDMADevice) throws(NetlinkError) -> [ContextResource] {
        try resources(of: device)
    }

    /// The shared receive queues of a device.
    public func sharedReceiveQueues(of device: RDMADevice) throws(NetlinkError) -> [SharedReceiveQueueResource] {
        try resources(of: device)
    }

    /// The counters of a port.
    ///
    /// - Throws: `refused` with `EOPNOTSUPP` where its driver has none.
    public func counters(of link: RDMALink) throws(NetlinkError) -> [HardwareCounter] {
        let arguments = [Argument(.deviceIndex, link.deviceIndex), Argument(.portIndex, link.port)]
        return try get("read the counters of \(link.deviceName) port \(link.port)", .counters, arguments) {
            payload throws(MalformedMessage) in try HardwareCounter.all(payload)
        }
    }

    private func resources<R: Resource>(of device: RDMADevice) throws(NetlinkError) -> [R] {
        try dump("list the \(R.plural) of \(device.name)", R.command, [.device(device)]) {
            payload throws(MalformedMessage) in try R.all(payload)
        }
    }

    // ---- requests and answers

    /// An attribute of a request.
    private struct Argument {
        let type: Int32
        let value: [UInt8]

        init(_ type: RDMAAttribute, _ number: UInt32) {
            self.type = Int32(type.rawValue)
            value = withUnsafeBytes(of: number) { Array($0) }
        }

        init(_ type: RDMAAttribute, text: String) {
            self.type = Int32(type.rawValue)
            value = Array(text.utf8) + [0]
        }

        static func device(_ device: RDMADevice) -> Argument { Argument(.deviceIndex, device.index) }
    }

    /// Asks for one thing.
    private func get<Answer>(
        _ request: String, _ command: RDMACommand, _ arguments: [Argument] = [],
        _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> Answer
    ) throws(NetlinkError) -> Answer {
        let answers = try ask(request, command, arguments, isDump: false) { payload throws(MalformedMessage) in
            [try read(payload)]
        }
        guard let answer = answers.first else {
            throw NetlinkError(.malformed, request, "the kernel's answer is empty", hint: "see dmesg(1)")
        }
        return answer
    }

    /// Asks for all of a kind.
    private func dump<Answer>(
        _ request: String, _ command: RDMACommand, _ arguments: [Argument] = [],
        _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Answer]
    ) throws(NetlinkError) -> [Answer] {
        try ask(request, command, arguments, isDump: true, read)
    }

    private func ask<Answer>(
        _ request: String, _ command: RDMACommand, _ arguments: [Argument], isDump: Bool,
        _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Answer]
    ) throws(NetlinkError) -> [Answer] {
        var answers = Answers<Answer>(isDump: isDump)
        do throws(SocketFailure) {
            answers.sequence = try socket.send(
                type: command.messageType, flags: isDump ? Int32(NLM_F_DUMP) : 0,
                payload: arguments.map { ($0.type, $0.value) })
            while answers.end == nil, let datagram = try socket.receive(patience: Self.patience) {
                answers.take(datagram, read)
            }
        } catch {
            throw .refused(request, errno: error.errno)
        }
        switch answers.end {
        case .complete: return answers.values
        case .refused(let errno): throw .refused(request, errno: errno)
        case .malformed(let message): throw .malformed(request, message)
        case nil: throw NetlinkError(.silent, request, "the kernel does not answer", hint: "see dmesg(1)")
        }
    }
}
