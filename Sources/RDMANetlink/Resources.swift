/// Who made a resource.
public enum ResourceOwner: Sendable, Hashable {
    /// A process, by its number in this process's namespace.
    case process(UInt32)
    /// A part of the kernel, such as `ib_core`.
    case kernel(String)

    fileprivate init?(_ attributes: Attributes) throws(MalformedMessage) {
        if let process: UInt32 = try attributes.number(.process) {
            self = .process(process)
        } else if let name = attributes.text(.kernelOwner) {
            self = .kernel(name)
        } else {
            return nil
        }
    }
}

/// An object of the RDMA subsystem, as `rdma resource show` lists them.
protocol Resource: Sendable {
    static var command: RDMACommand { get }
    /// The attribute that holds all of them, and that of one.
    static var table: RDMAAttribute { get }
    static var entry: RDMAAttribute { get }
    static var plural: String { get }
    init(_ attributes: Attributes) throws(MalformedMessage)
}

/// A queue pair.
public struct QueuePairResource: Sendable, Hashable, Resource {
    /// Its number.
    public let number: UInt32?
    /// The port, from 1; nil where it has none yet.
    public let port: UInt32?
    /// Number of the peer's queue pair; nil but for connected services.
    public let remoteNumber: UInt32?
    /// Packet sequence number of the next packet to receive; nil but for connected services.
    public let receivePSN: UInt32?
    /// Packet sequence number of the next packet to send.
    public let sendPSN: UInt32?
    /// Its service.
    public let type: QueuePairType?
    /// Its state.
    public let state: QueuePairStateNumber?
    /// The kernel's number for its protection domain.
    public let protectionDomain: UInt32?
    /// Who made it; nil where it is not to be seen from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .queuePairs }
    static var table: RDMAAttribute { .queuePairs }
    static var entry: RDMAAttribute { .queuePair }
    static var plural: String { "queue pairs" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.localNumber)
        port = try attributes.number(.portIndex)
        remoteNumber = try attributes.number(.remoteNumber)
        receivePSN = try attributes.number(.receivePSN)
        sendPSN = try attributes.number(.sendPSN)
        type = try attributes.number(.resourceType).map(QueuePairType.init(rawValue:))
        state = try attributes.number(.resourceState).map(QueuePairStateNumber.init(rawValue:))
        protectionDomain = try attributes.number(.protectionDomainNumber)
        owner = try ResourceOwner(attributes)
    }
}

/// A completion queue.
public struct CompletionQueueResource: Sendable, Hashable, Resource {
    /// The kernel's number for it.
    public let number: UInt32?
    /// How many completions it holds.
    public let capacity: UInt32?
    /// How many queues complete on it.
    public let users: UInt64?
    /// Number of the context that it is of; nil for one of the kernel.
    public let context: UInt32?
    /// Who made it; nil where it is not to be seen from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .completionQueues }
    static var table: RDMAAttribute { .completionQueues }
    static var entry: RDMAAttribute { .completionQueue }
    static var plural: String { "completion queues" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.completionQueueNumber)
        capacity = try attributes.number(.completions)
        users = try attributes.number(.users)
        context = try attributes.number(.contextNumber)
        owner = try ResourceOwner(attributes)
    }
}

/// A memory region.
public struct MemoryRegionResource: Sendable, Hashable, Resource {
    /// The kernel's number for it.
    public let number: UInt32?
    /// How many bytes are registered.
    public let length: UInt64?
    /// The key for peers; the kernel tells it only to who has CAP_NET_ADMIN.
    public let remoteKey: UInt32?
    /// The key for local work requests; the kernel tells it only to who has CAP_NET_ADMIN.
    public let localKey: UInt32?
    /// The kernel's number for its protection domain.
    public let protectionDomain: UInt32?
    /// Who made it; nil where it is not to be seen from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .memoryRegions }
    static var table: RDMAAttribute { .memoryRegions }
    static var entry: RDMAAttribute { .memoryRegion }
    static var plural: String { "memory regions" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.memoryRegionNumber)
        length = try attributes.number(.memoryRegionLength)
        remoteKey = try attributes.number(.remoteKey)
        localKey = try attributes.number(.localKey)
        protectionDomain = try attributes.number(.protectionDomainNumber)
        owner = try ResourceOwner(attributes)
    }
}

/// A protection domain.
public struct ProtectionDomainResource: Sendable, Hashable, Resource {
    /// The kernel's number for it.
    public let number: UInt32?
    /// How many objects are in it.
    public let users: UInt64?
    /// Number of the context that it is of; nil for one of the kernel.
    public let context: UInt32?
    /// Who made it; nil where it is not to be seen from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .protectionDomains }
    static var table: RDMAAttribute { .protectionDomains }
    static var entry: RDMAAttribute { .protectionDomain }
    static var plural: String { "protection domains" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.protectionDomainNumber)
        users = try attributes.number(.users)
        context = try attributes.number(.contextNumber)
        owner = try ResourceOwner(attributes)
    }
}

/// An identifier of the connection manager: a connection, or one that waits for them.
public struct ConnectionResource: Sendable, Hashable, Resource {
    /// The kernel's number for it.
    public let number: UInt32?
    /// The port, from 1; nil where it has none yet.
    public let port: UInt32?
    /// Number of its queue pair; nil where it has none yet.
    public let queuePair: UInt32?
    /// Port space (`enum rdma_ucm_port_space`): 0x106 TCP, 0x111 UDP; open.
    public let portSpace: UInt32?
    /// Its state.
    public let state: ConnectionState?
    /// Its address, such as `10.9.0.1:9999`; nil where it has none that is of IP.
    public let source: String?
    /// The peer's address.
    public let destination: String?
    /// Who made it; nil where it is not to be seen from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .connections }
    static var table: RDMAAttribute { .connections }
    static var entry: RDMAAttribute { .connection }
    static var plural: String { "connections" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.connectionNumber)
        port = try attributes.number(.portIndex)
        queuePair = try attributes.number(.localNumber)
        portSpace = try attributes.number(.portSpace)
        state = try attributes.number(.resourceState).map(ConnectionState.init(rawValue:))
        source = attributes.bytes(.sourceAddress).flatMap(addressText)
        destination = attributes.bytes(.destinationAddress).flatMap(addressText)
        owner = try ResourceOwner(attributes)
    }
}

/// What a process has opened of a device.
public struct ContextResource: Sendable, Hashable, Resource {
    /// The kernel's number for it.
    public let number: UInt32?
    /// Who made it; nil where it is not to be seen from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .contexts }
    static var table: RDMAAttribute { .contexts }
    static var entry: RDMAAttribute { .context }
    static var plural: String { "contexts" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.contextNumber)
        owner = try ResourceOwner(attributes)
    }
}

/// A shared receive queue.
public struct SharedReceiveQueueResource: Sendable, Hashable, Resource {
    /// The kernel's number for it.
    public let number: UInt32?
    /// The kernel's number for its protection domain.
    public let protectionDomain: UInt32?
    /// Who made it; nil where it is not to be seen from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .sharedReceiveQueues }
    static var table: RDMAAttribute { .sharedReceiveQueues }
    static var entry: RDMAAttribute { .sharedReceiveQueue }
    static var plural: String { "shared receive queues" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.sharedReceiveQueueNumber)
        protectionDomain = try attributes.number(.protectionDomainNumber)
        owner = try ResourceOwner(attributes)
    }
}

extension Resource {
    /// The resources in an answer.
    static func all(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) -> [Self] {
        var resources: [Self] = []
        for entry in try Attributes(payload).entries(table, entry) { resources.append(try Self(entry)) }
        return resources
    }
}
