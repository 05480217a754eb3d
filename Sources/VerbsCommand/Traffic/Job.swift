import ArgumentParser
import Verbs

/// The properties of the queue pairs. The client sends them, and both peers create such queue pairs.
struct Setup: Codable {
    var transport: Transport
    /// The family of the client's address; the server uses an address of the same family. Nil on InfiniBand.
    var family: AddressFamily?
    /// The largest message of all jobs, in bytes.
    var largestSize: Int
    /// The most outstanding send work requests, of all queue pairs.
    var window: Int
    /// Queue pairs, which send messages in turn.
    var queuePairs = 1
    /// The largest batch of all jobs.
    var batch = 1
    /// Whether data is verified; if so, each receive work request has its own buffer.
    var verify: Bool
    /// The longest timeout of all jobs, in nanoseconds.
    var timeout: UInt64
    /// The time that the queue pairs retransmit before they fail, in nanoseconds: the value of --timeout. 0 without the
    /// option: then the Local ACK Timeout is 67 ms, so that lost packets are retransmitted soon.
    var retryTime: UInt64
    /// Whether the kernel's connection manager (rdma_cm) connects the queue pairs.
    var usesConnectionManager = false
    /// The memory of both peers.
    var memory = BufferMemory.api
}

/// The memory that is registered.
enum BufferMemory: String, Codable, CaseIterable, ExpressibleByArgument {
    /// Memory that `ProtectionDomain.makeMemoryRegion` allocates: on soft, such that other processes of the host can map it.
    case api
    /// Memory of the program itself, of malloc(3).
    case malloc

    /// Makes a memory region.
    func makeRegion(
        _ domain: ProtectionDomain, byteCount: Int, access: AccessFlags = .localWrite
    ) throws -> MemoryRegion {
        guard self == .malloc else { return try domain.makeMemoryRegion(byteCount: byteCount, access: access) }
        let block = Block(byteCount)
        return try domain.unsafeRegister(block.bytes, access: access, owner: block)
    }

    /// Zeroed memory of malloc(3), which begins at a page.
    private final class Block {
        let bytes: UnsafeMutableRawBufferPointer

        init(_ byteCount: Int) {
            bytes = .allocate(byteCount: byteCount, alignment: 4096)
            bytes.initializeMemory(as: UInt8.self, repeating: 0)
        }

        deinit { bytes.deallocate() }
    }
}

/// One measurement over connected queue pairs.
struct Job: Codable {
    enum Measurement: String, Codable {
        /// One message at a time; measures the time of each.
        case latency
        /// Sends as many messages as the window allows, and measures the rate.
        case throughput
    }

    var type: Measurement
    var operation: Operation
    /// Payload of a message in bytes.
    var size: Int
    /// Messages including the warm-up; nil: until the job is stopped, or `duration` is over.
    var count: UInt64?
    /// In nanoseconds; nil: no limit.
    var duration: UInt64?
    /// Messages at the beginning that are not measured.
    var warmUp: UInt64
    var verify: Bool
    /// Outstanding messages.
    var window: Int
    /// Every `batch`th send work request is signaled.
    var batch: Int
    /// The time after which a message counts as lost, or on RC the peer; in nanoseconds.
    var timeout: UInt64
    /// What the server's program does during one-sided operations; nil: it sleeps.
    var target: TargetBehavior?
}

/// What the program of a target does during one-sided operations, in which it has no part.
enum TargetBehavior: String, Codable, CaseIterable, ExpressibleByArgument {
    /// It waits for the end of the job.
    case sleeps
    /// It polls its completion queue, as a program that also receives.
    case polls
}

/// The messages of a job that one peer has counted.
struct Tally: Codable, Equatable {
    /// Messages that were sent, or operations that were posted.
    var sent: UInt64 = 0
    /// Messages that were received.
    var received: UInt64 = 0
    /// Messages that were sent and not answered in time (UC, UD).
    var lost: UInt64 = 0
    /// Messages in which every byte is correct.
    var verified: UInt64 = 0
    /// Messages with a wrong byte.
    var corrupted: UInt64 = 0
    /// The first corrupted message.
    var firstCorruption: Corruption?
}

/// The position of a wrong byte.
struct Corruption: Codable, Equatable {
    var message: UInt64
    /// Offset of the first wrong byte; the size of the message if its length or immediate data is wrong.
    var offset: Int
}

/// The information about a process that its peer needs before RDMA can start.
struct PeerInfo: Codable {
    var endpoint: Endpoint
    var device: String
    var provider: String
    /// The user ID of the process.
    var user: UInt32?
    /// The names of the optional operations that the device has; nil from a version that knows none.
    var optionalOperations: [String]?
    /// The names of the optional transport services that the device has; nil from a version that knows none.
    var optionalTransports: [String]?

    /// Throws if packets cannot reach the peer: from a loopback interface to another machine, or between soft devices
    /// of different users with the same address.
    func checkReach(of peer: PeerInfo, along route: Route?) throws(ToolError) {
        if let route, !route.isWithinHost, peer.endpoint.gid.isLoopback {
            throw ToolError(
                .unsupported,
                "the peer's device \(peer.device) is on its loopback interface, and reaches no other machine",
                hint: "start the peer without --device, or with the device of the interface that has \(route.remote)")
        }
        guard provider == "soft", peer.provider == "soft", endpoint.gid == peer.endpoint.gid,
            let user, let other = peer.user, user != other
        else { return }
        throw ToolError(
            .unsupported,
            "soft connects processes of one user on a machine: this process is user \(user), the peer is user \(other)",
            hint: "run both peers as the same user")
    }
}

extension PeerInfo {
    /// Whether the device has the operation.
    func has(_ operation: Operation) -> Bool {
        !operation.isOptional || optionalOperations?.contains(operation.rawValue) == true
    }

    /// Whether the device has the transport service.
    func has(_ transport: Transport) -> Bool {
        !transport.isOptional || optionalTransports?.contains(transport.rawValue) == true
    }
}

extension Transport {
    /// The optional transport services of a device, which its provider implements.
    static func optional(on context: Context) -> [Transport] {
        guard let attributes = try? context.attributes(), attributes.capabilities.contains(.xrc) else { return [] }
        return Set(context.unsupportedVerbs).isDisjoint(with: [.openXRCD, .getSRQNum]) ? [.xrc] : []
    }

    /// Throws if the device does not have the transport service.
    func check(on context: Context) throws(ToolError) {
        guard isOptional, !Transport.optional(on: context).contains(self) else { return }
        throw ToolError(
            .unsupported, "\(context.deviceName) (provider \(context.provider.name)) does not support \(name)",
            hint: "use another --transport")
    }
}

extension Operation {
    /// The optional operations of a device: those that it reports, and that its provider offers in `ibv_qp_ex`.
    static func optional(on context: Context) -> [Operation] {
        guard let attributes = try? context.attributes(), let domain = try? context.makeProtectionDomain(),
            let completions = try? context.makeCompletionQueue(capacity: 1)
        else { return [] }
        let hasWindows = !attributes.capabilities.isDisjoint(with: [.memoryWindows2A, .memoryWindows2B])
        let windows: [Operation] = hasWindows && (try? domain.makeMemoryWindow(.two)) != nil ? [.window] : []
        let extended: [(Operation, DeviceAttributes.Capabilities, QueuePair.ExtendedOperations)] = [
            (.atomicWrite, .atomicWrite, .atomicWrite), (.flush, .flushGlobal, .flush),
        ]
        return extended.filter { _, capability, operations in
            guard attributes.capabilities.contains(capability) else { return false }
            var options = QueuePair.CreationOptions()
            options.extendedOperations = operations
            return (try? domain.makeQueuePair(.reliableConnection, completions: completions, options: options)) != nil
        }.map(\.0) + windows
    }
}

extension Operation {
    /// Throws if a peer's device does not have the operation, which is an optional one.
    func check(_ peers: [PeerInfo]) throws(ToolError) {
        if let lacking = peers.first(where: { !$0.has(self) }) {
            throw ToolError(
                .unsupported, "\(lacking.device) (provider \(lacking.provider)) does not support \(rawValue)",
                hint: "use another --operation")
        }
    }

    /// Throws if the device is an iWARP adapter and does not support the operation.
    func check(on context: Context) throws(ToolError) {
        guard context.transportType == .iWARP, !isOfIWARP else { return }
        throw ToolError(
            .unsupported, "\(context.deviceName) is an iWARP device and does not support \(rawValue)",
            hint: "use one of \(Operation.allCases.filter(\.isOfIWARP).map(\.rawValue).joined(separator: ", "))")
    }
}

/// The messages of the control connection, before, between and during jobs.
enum ControlMessage: Codable {
    /// Client: the first message; again between jobs, to replace the queue pair.
    case hello(version: Int, setup: Setup, info: PeerInfo)
    /// Server, in reply to a `hello` whose setup uses rdma_cm: it listens at this port; `host` is its IP address, or nil
    /// when its GID is none.
    case listening(port: UInt16, host: String?)
    /// Server: its queue pair is connected.
    case welcome(info: PeerInfo)
    /// Client after its `hello`, server after its `welcome`: QPN and PSN of further queue pairs, in order. As many
    /// messages as needed.
    case queuePairs(numbers: [UInt32], sequenceNumbers: [UInt32])
    /// Client: starts a job.
    case begin(job: Job)
    /// Server, in reply to `begin`: the client may start.
    case ready
    /// Client: the job is done. On RC the server checks its counter against the number of atomics.
    case done(tally: Tally)
    /// Server, in reply to `done`.
    case counted(tally: Tally)
    /// Client: there are no more jobs.
    case goodbye
    /// Server: it was interrupted; the client must end the job.
    case stop
    /// Client: sent several times per second, because the connection does not show that a program is stopped.
    case alive
    /// `verbs perf --processes` to a client that it has started: see ProcessPairs.swift for this and the next messages.
    case prepare(version: Int, setup: Setup, operations: [Operation])
    case prepared(PreparedPair)
    case measure(job: Job)
    /// Distinct times of messages, each with the number of messages.
    case times(values: [UInt64], counts: [UInt64])
    case measured(MeasuredPair)
    /// Client or server: it failed.
    case failed(error: ToolError)

    /// The version of this protocol.
    static let version = 7
}

extension Setup {
    /// Throws if a server must not accept these values from a client. They limit the memory that the server allocates.
    func check() throws(ToolError) {
        let sizes = 0...(1 << 30)
        guard sizes.contains(largestSize), (1...4096).contains(window) else {
            throw ToolError(
                .usage, "messages of \(largestSize) bytes in a window of \(window) exceed the limits of verbs",
                hint: "use messages of at most 1 GiB and a window of at most 4096")
        }
        guard (1...QueuePairs.most).contains(queuePairs), (1...window).contains(batch) else {
            throw ToolError(
                .usage, "\(queuePairs) queue pairs with a batch of \(batch) exceed the limits of verbs",
                hint: "use at most \(QueuePairs.most) queue pairs, and a batch within the window")
        }
        guard queuePairs == 1 || transport != .ud && transport != .xrc && !verify else {
            throw ToolError(
                .usage, "several queue pairs need RC or UC, and verify no data",
                hint: "use --transport rc or uc")
        }
        try checkConnectionManager()
    }
}

extension Job {
    /// The default time to wait for `byteCount` bytes. Assumes that a network for RDMA has at least 10 MB/s.
    static func defaultTimeout(_ transport: Transport, byteCount: Int) -> UInt64 {
        Duration.seconds((transport.isReliable ? 10 : 1) + byteCount / 10_000_000).nanoseconds
    }

    /// All messages, including the warm-up; saturates.
    static func total(_ count: UInt64, warmUp: UInt64) -> UInt64 { count &+ min(warmUp, .max &- count) }

    /// Throws if the queue pairs of `setup` cannot run this job.
    func check(_ setup: Setup) throws(ToolError) {
        guard operation.isSupported(on: setup.transport) else {
            let possible = Operation.allCases.filter { $0.isSupported(on: setup.transport) }.map(\.rawValue)
            throw ToolError(
                .usage, "\(setup.transport.name) does not support \(operation.rawValue)",
                hint: "\(setup.transport.name) supports \(possible.joined(separator: ", ")); RC supports all operations"
            )
        }
        guard type == .latency || operation != .window else {
            throw ToolError(
                .usage, "\(operation.rawValue) transfers one message at a time", hint: "measure it with verbs ping")
        }
        let name = "\(operation.rawValue) over \(setup.transport.name)"
        let smallest = operation.smallestSize(on: setup.transport)
        if operation.hasEightBytes, size != 8 {
            throw ToolError(.usage, "\(name) has 8 bytes, not \(size)", hint: "leave out --size")
        }
        guard size >= smallest else {
            throw ToolError(.usage, "\(name) cannot have \(size) bytes", hint: "use at least \(smallest)")
        }
        guard size <= setup.largestSize else {
            throw ToolError(
                .usage, "\(name) of \(size) bytes exceeds the agreed maximum of \(setup.largestSize)",
                hint: "run the same version on both machines")
        }
        guard (1...setup.window).contains(window), (1...min(window, setup.batch)).contains(batch) else {
            throw ToolError(
                .usage, "a batch of \(batch) does not fit a window of \(window)", hint: "use a batch within the window")
        }
    }
}
