import ArgumentParser
import Glibc
import Verbs

/// Which device and address of this machine a run uses.
struct DeviceOptions: ParsableArguments {
    @Option(help: "The RDMA device; without it, the first one with an active port, hardware before software.")
    var device: String?

    @Option(help: "The port of the device, from 1.")
    var devicePort: UInt8?

    @Option(help: "The place of the GID in the port's table (see verbs info); without it, the best one.")
    var gidIndex: UInt8?

    @Flag(exclusivity: .exclusive) var family: AddressFamily?

    /// Opens the device.
    func open() throws(ToolError) -> Context {
        let named = try device.map { name throws(ToolError) in try Device.all.choosing(name, by: \.name)[0] }
        do throws(VerbsError) {
            guard let named else { return try Device.openFirst() }
            return try named.open()
        } catch {
            let isNoneUp = named == nil && error.errno == .operationNotSupportedByDevice
            throw isNoneUp ? .noActivePort : ToolError(error)
        }
    }

    /// The best address that fits, also the peer's `wanted` family.
    func address(of context: Context, family wanted: AddressFamily? = nil) throws(ToolError) -> PortAddress {
        let family = family ?? wanted
        let addresses: [PortAddress]
        do throws(VerbsError) {
            addresses = try context.addresses()
        } catch {
            throw ToolError(error)
        }
        let fitting = addresses.first { address in
            (devicePort == nil || address.port == devicePort) && (gidIndex == nil || address.gidIndex == gidIndex)
                && (family == nil || address.family == nil || address.family == family)
        }
        guard let fitting else {
            let wish = [
                devicePort.map { "port \($0)" }, gidIndex.map { "GID index \($0)" }, family.map { "family \($0)" },
            ].compactMap { $0 }.joined(separator: ", ")
            throw ToolError(
                .noDevice, "\(context.deviceName) has no active address" + (wish.isEmpty ? "" : " with \(wish)"),
                hint: addresses.isEmpty
                    ? "verbs info \(context.deviceName) shows its ports: one must be active and have a GID"
                    : "it has " + addresses.map(\.description).joined(separator: "; "))
        }
        return fitting
    }
}

extension PortAddress {
    /// Nil on InfiniBand, where GIDs are no addresses.
    var family: AddressFamily? {
        linkLayer == .ethernet ? (gid.isIPv4Mapped ? .ipv4 : .ipv6) : nil
    }
}

extension Link {
    /// Makes the queue pair and its memory, and posts its receives; `connect` follows.
    static func make(_ context: Context, at address: PortAddress, _ setup: Setup) throws -> Link {
        let mtu = address.mtu.byteCount
        guard setup.transport != .ud || setup.largestSize <= mtu else {
            throw ToolError(
                .usage, "a UD message of \(setup.largestSize) bytes does not fit a packet of \(mtu)",
                hint: "take a smaller size, or RC")
        }
        let deepest = max(1, try context.attributes().maxWorkRequests)
        // Verified receives each have a buffer; the others fall on top of each other.
        let slotCount = setup.verify ? min(max((64 << 20) / slotSize(setup), 2), 16) : 1
        let receiveCount = setup.verify ? slotCount : min(max(16, 4 * setup.window), deepest)
        let sendCount = min(setup.window, deepest)

        let domain = try context.makeProtectionDomain()
        let local = try domain.makeMemoryRegion(byteCount: outgoingSize(setup) + slotCount * slotSize(setup))
        let exposed = try domain.makeMemoryRegion(
            byteCount: writtenRange(setup.largestSize).upperBound + readSlack,
            access: setup.transport == .rc
                ? [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic] : [.localWrite, .remoteWrite])
        let completions = try context.makeCompletionQueue(capacity: sendCount + receiveCount)
        let queuePair = try domain.makeQueuePair(
            setup.transport.kind, completions: completions,
            capabilities: QueuePair.Capabilities(
                sendRequests: UInt32(sendCount), receiveRequests: UInt32(receiveCount)))
        let endpoint = try queuePair.endpoint(at: address, memory: exposed.remote)
        try queuePair.initialize(options: options(setup))
        var link = Link(
            setup: setup, address: address, endpoint: endpoint, local: local, exposed: exposed, slotCount: slotCount,
            receiveCount: receiveCount, queuePair: queuePair, completions: completions,
            arrived: WorkCompletionBuffer(capacity: 32))
        for index in 0..<receiveCount { try link.postReceive(slot: index % slotCount) }
        return link
    }

    /// Connects to the peer that was sent `endpoint`.
    mutating func connect(to peer: Endpoint) throws {
        guard let memory = peer.memory, memory.byteCount >= UInt64(exposed.byteCount) else {
            throw ToolError(
                .cannotMeet, "the peer exposes less memory than was agreed", hint: "run the same version on both sides")
        }
        remote = memory
        if setup.transport == .ud {
            try queuePair.activate()
            destination = try local.protectionDomain.makeDestination(peer, from: address)
        } else {
            try queuePair.connect(to: peer, options: Self.options(setup))
        }
    }

    /// What the peer may do through the queue pair: UC has neither reads nor atomics.
    private static func options(_ setup: Setup) -> ConnectionOptions {
        var options = ConnectionOptions()
        if setup.transport != .rc { options.access = [.localWrite, .remoteWrite] }
        return options
    }

    /// Makes memory as both sides expect it at the beginning of a job.
    func prepare(for job: Job) {
        memset(exposed.unsafeBytes.baseAddress!, 0, Self.writtenRange(job.size).upperBound)
        guard job.operation == .read, job.verify else { return }
        Pattern.fillSource(source(job.size))
    }
}

extension Transport {
    var kind: QueuePair.Kind {
        switch self {
        case .rc: .reliableConnection
        case .uc: .unreliableConnection
        case .ud: .unreliableDatagram
        }
    }
}
