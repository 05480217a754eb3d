import CNetlink
import Glibc

/// The kernel's RDMA subsystem over its netlink socket (`<rdma/rdma_netlink.h>`, rdma(8)).
///
/// Every call sends a request to the kernel; nothing is cached. No privileges are needed. Objects of other network
/// namespaces are not listed.
///
/// ```swift
/// let kernel = try KernelRDMA()
/// for device in try kernel.devices() {
///     print(device.name, try kernel.queuePairs(of: device).count)
/// }
/// ```
public struct KernelRDMA: ~Copyable {
    private let socket: NetlinkSocket

    /// The time limit of a response, in milliseconds. The kernel responds within the call that sends the request, so
    /// this only prevents a hang.
    private static var patience: Int32 { 5000 }

    /// Opens the socket.
    ///
    /// - Throws: `unavailable` if the kernel has no RDMA subsystem, or the process may not open the socket.
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

    /// The devices, in the order of their indexes.
    public func devices() throws(NetlinkError) -> [RDMADevice] {
        try dump("list the RDMA devices", .devices) { payload throws(MalformedMessage) in [try RDMADevice(payload)] }
    }

    /// The ports of a device, with their network interfaces.
    public func links(of device: RDMADevice) throws(NetlinkError) -> [RDMALink] {
        try dump("list the ports of \(device.name)", .links, [.device(device)]) { payload throws(MalformedMessage) in
            [try RDMALink(payload)]
        }
    }

    /// The configuration of the RDMA subsystem.
    public func system() throws(NetlinkError) -> RDMASystem {
        try get("ask for the settings of the RDMA subsystem", .system) { payload throws(MalformedMessage) in
            try RDMASystem(payload)
        }
    }

    /// The device node of this kind, of one device or common to all; the kernel loads the module that creates it.
    ///
    /// - Throws: `refused` if there is none: with `EOPNOTSUPP` for an unknown kind or a device without such a node,
    ///   with `EINVAL` for a device that does not exist.
    public func characterDevice(
        _ kind: CharacterDevice.Kind, of device: RDMADevice? = nil
    ) throws(NetlinkError) -> CharacterDevice {
        let owner = device.map { " of \($0.name)" } ?? ""
        let arguments = (device.map { [.device($0)] } ?? []) + [Argument(.nodeKind, text: kind.rawValue)]
        return try get("find the device node \(kind.rawValue)\(owner)", .characterDevice, arguments) {
            payload throws(MalformedMessage) in try CharacterDevice(payload)
        }
    }

    /// The number of objects of each kind on a device, of all processes and of the kernel, such as `("qp", 4)`.
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

    /// The contexts of a device in all processes.
    public func contexts(of device: RDMADevice) throws(NetlinkError) -> [ContextResource] {
        try resources(of: device)
    }

    /// The shared receive queues of a device.
    public func sharedReceiveQueues(of device: RDMADevice) throws(NetlinkError) -> [SharedReceiveQueueResource] {
        try resources(of: device)
    }

    /// The counters of a port.
    ///
    /// - Throws: `refused` with `EOPNOTSUPP` if its driver has no counters.
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

    // MARK: - Requests and responses

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

    /// Sends a request whose response is one message.
    private func get<Value>(
        _ request: String, _ command: RDMACommand, _ arguments: [Argument] = [],
        _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> Value
    ) throws(NetlinkError) -> Value {
        let values = try exchange(request, command, arguments, isDump: false) { payload throws(MalformedMessage) in
            [try read(payload)]
        }
        guard let value = values.first else {
            throw NetlinkError(.malformed, request, "the kernel's response is empty", hint: "see dmesg(1)")
        }
        return value
    }

    /// Sends a dump request (`NLM_F_DUMP`).
    private func dump<Value>(
        _ request: String, _ command: RDMACommand, _ arguments: [Argument] = [],
        _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Value]
    ) throws(NetlinkError) -> [Value] {
        try exchange(request, command, arguments, isDump: true, read)
    }

    private func exchange<Value>(
        _ request: String, _ command: RDMACommand, _ arguments: [Argument], isDump: Bool,
        _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Value]
    ) throws(NetlinkError) -> [Value] {
        var response = Response<Value>(isDump: isDump)
        do throws(SocketFailure) {
            response.sequence = try socket.send(
                type: command.messageType, flags: isDump ? Int32(NLM_F_DUMP) : 0,
                payload: arguments.map { ($0.type, $0.value) })
            while response.end == nil, let datagram = try socket.receive(patience: Self.patience) {
                response.append(datagram, read)
            }
        } catch {
            throw .refused(request, errno: error.errno)
        }
        switch response.end {
        case .complete: return response.values
        case .refused(let errno): throw .refused(request, errno: errno)
        case .malformed(let message): throw .malformed(request, message)
        case nil: throw NetlinkError(.silent, request, "the kernel does not respond", hint: "see dmesg(1)")
        }
    }
}
