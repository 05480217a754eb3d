/// The owner of a resource.
public enum ResourceOwner: Sendable, Hashable {
    /// A process, by its PID in this process's PID namespace.
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

/// An object of the RDMA subsystem, as `rdma resource show` lists it.
protocol Resource: Sendable {
    static var command: RDMACommand { get }
    /// The attribute of the list, and of one entry in it.
    static var table: RDMAAttribute { get }
    static var entry: RDMAAttribute { get }
    static var plural: String { get }
    init(_ attributes: Attributes) throws(MalformedMessage)
}

/// A queue pair (`RDMA_NLDEV_CMD_RES_QP_GET`).
public struct QueuePairResource: Sendable, Hashable, Resource {
    /// Its number (`RDMA_NLDEV_ATTR_RES_LQPN`).
    public let number: UInt32?
    /// The port, from 1 (`RDMA_NLDEV_ATTR_PORT_INDEX`); nil before it has one.
    public let port: UInt32?
    /// Number of the peer's queue pair (`RDMA_NLDEV_ATTR_RES_RQPN`); nil except for connected types.
    public let remoteNumber: UInt32?
    /// PSN of the next packet to receive (`RDMA_NLDEV_ATTR_RES_RQ_PSN`); nil except for connected types.
    public let rqPSN: UInt32?
    /// PSN of the next packet to send (`RDMA_NLDEV_ATTR_RES_SQ_PSN`).
    public let sqPSN: UInt32?
    /// Its type (`RDMA_NLDEV_ATTR_RES_TYPE`).
    public let type: QueuePairType?
    /// Its state (`RDMA_NLDEV_ATTR_RES_STATE`).
    public let state: QueuePairStateNumber?
    /// The kernel's number of its protection domain (`RDMA_NLDEV_ATTR_RES_PDN`).
    public let protectionDomain: UInt32?
    /// Its owner (`RDMA_NLDEV_ATTR_RES_PID`, `RDMA_NLDEV_ATTR_RES_KERN_NAME`); nil where it is not visible from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .queuePairs }
    static var table: RDMAAttribute { .queuePairs }
    static var entry: RDMAAttribute { .queuePair }
    static var plural: String { "queue pairs" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.localNumber)
        port = try attributes.number(.portIndex)
        remoteNumber = try attributes.number(.remoteNumber)
        rqPSN = try attributes.number(.rqPSN)
        sqPSN = try attributes.number(.sqPSN)
        type = try attributes.number(.resourceType).map(QueuePairType.init(rawValue:))
        state = try attributes.number(.resourceState).map(QueuePairStateNumber.init(rawValue:))
        protectionDomain = try attributes.number(.protectionDomainNumber)
        owner = try ResourceOwner(attributes)
    }
}

/// A completion queue (`RDMA_NLDEV_CMD_RES_CQ_GET`).
public struct CompletionQueueResource: Sendable, Hashable, Resource {
    /// The kernel's number of it (`RDMA_NLDEV_ATTR_RES_CQN`).
    public let number: UInt32?
    /// The number of CQEs that it holds (`RDMA_NLDEV_ATTR_RES_CQE`).
    public let capacity: UInt32?
    /// The number of queues that complete on it (`RDMA_NLDEV_ATTR_RES_USECNT`).
    public let users: UInt64?
    /// Number of its context (`RDMA_NLDEV_ATTR_RES_CTXN`); nil for one of the kernel.
    public let context: UInt32?
    /// Its owner (`RDMA_NLDEV_ATTR_RES_PID`, `RDMA_NLDEV_ATTR_RES_KERN_NAME`); nil where it is not visible from here.
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

/// A memory region (`RDMA_NLDEV_CMD_RES_MR_GET`).
public struct MemoryRegionResource: Sendable, Hashable, Resource {
    /// The kernel's number of it (`RDMA_NLDEV_ATTR_RES_MRN`).
    public let number: UInt32?
    /// Its length in bytes (`RDMA_NLDEV_ATTR_RES_MRLEN`).
    public let length: UInt64?
    /// The rkey (`RDMA_NLDEV_ATTR_RES_RKEY`); nil without CAP_NET_ADMIN.
    public let rkey: UInt32?
    /// The lkey (`RDMA_NLDEV_ATTR_RES_LKEY`); nil without CAP_NET_ADMIN.
    public let lkey: UInt32?
    /// The kernel's number of its protection domain (`RDMA_NLDEV_ATTR_RES_PDN`).
    public let protectionDomain: UInt32?
    /// Its owner (`RDMA_NLDEV_ATTR_RES_PID`, `RDMA_NLDEV_ATTR_RES_KERN_NAME`); nil where it is not visible from here.
    public let owner: ResourceOwner?

    static var command: RDMACommand { .memoryRegions }
    static var table: RDMAAttribute { .memoryRegions }
    static var entry: RDMAAttribute { .memoryRegion }
    static var plural: String { "memory regions" }

    init(_ attributes: Attributes) throws(MalformedMessage) {
        number = try attributes.number(.memoryRegionNumber)
        length = try attributes.number(.memoryRegionLength)
        rkey = try attributes.number(.rkey)
        lkey = try attributes.number(.lkey)
        protectionDomain = try attributes.number(.protectionDomainNumber)
        owner = try ResourceOwner(attributes)
    }
}

/// A protection domain (`RDMA_NLDEV_CMD_RES_PD_GET`).
public struct ProtectionDomainResource: Sendable, Hashable, Resource {
    /// The kernel's number of it (`RDMA_NLDEV_ATTR_RES_PDN`).
    public let number: UInt32?
    /// The number of objects in it (`RDMA_NLDEV_ATTR_RES_USECNT`).
    public let users: UInt64?
    /// Number of its context (`RDMA_NLDEV_ATTR_RES_CTXN`); nil for one of the kernel.
    public let context: UInt32?
    /// Its owner (`RDMA_NLDEV_ATTR_RES_PID`, `RDMA_NLDEV_ATTR_RES_KERN_NAME`); nil where it is not visible from here.
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

/// An identifier of the connection manager (`RDMA_NLDEV_CMD_RES_CM_ID_GET`): a connection or a listener.
public struct ConnectionResource: Sendable, Hashable, Resource {
    /// The kernel's number of it (`RDMA_NLDEV_ATTR_RES_CM_IDN`).
    public let number: UInt32?
    /// The port, from 1 (`RDMA_NLDEV_ATTR_PORT_INDEX`); nil before it has one.
    public let port: UInt32?
    /// Number of its queue pair (`RDMA_NLDEV_ATTR_RES_LQPN`); nil before it has one.
    public let queuePair: UInt32?
    /// Port space (`RDMA_NLDEV_ATTR_RES_PS`; `enum rdma_ucm_port_space`): 0x106 TCP, 0x111 UDP; open.
    public let portSpace: UInt32?
    /// Its state (`RDMA_NLDEV_ATTR_RES_STATE`).
    public let state: ConnectionState?
    /// Its address (`RDMA_NLDEV_ATTR_RES_SRC_ADDR`), such as `10.9.0.1:9999`; nil without an IP address.
    public let source: String?
    /// The peer's address (`RDMA_NLDEV_ATTR_RES_DST_ADDR`).
    public let destination: String?
    /// Its owner (`RDMA_NLDEV_ATTR_RES_PID`, `RDMA_NLDEV_ATTR_RES_KERN_NAME`); nil where it is not visible from here.
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

/// An open device of a process (`RDMA_NLDEV_CMD_RES_CTX_GET`).
public struct ContextResource: Sendable, Hashable, Resource {
    /// The kernel's number of it (`RDMA_NLDEV_ATTR_RES_CTXN`).
    public let number: UInt32?
    /// Its owner (`RDMA_NLDEV_ATTR_RES_PID`, `RDMA_NLDEV_ATTR_RES_KERN_NAME`); nil where it is not visible from here.
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

/// A shared receive queue (`RDMA_NLDEV_CMD_RES_SRQ_GET`).
public struct SharedReceiveQueueResource: Sendable, Hashable, Resource {
    /// The kernel's number of it (`RDMA_NLDEV_ATTR_RES_SRQN`).
    public let number: UInt32?
    /// The kernel's number of its protection domain (`RDMA_NLDEV_ATTR_RES_PDN`).
    public let protectionDomain: UInt32?
    /// Its owner (`RDMA_NLDEV_ATTR_RES_PID`, `RDMA_NLDEV_ATTR_RES_KERN_NAME`); nil where it is not visible from here.
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
    /// The resources in a response.
    static func all(_ payload: ArraySlice<UInt8>) throws(MalformedMessage) -> [Self] {
        var resources: [Self] = []
        for entry in try Attributes(payload).entries(table, entry) { resources.append(try Self(entry)) }
        return resources
    }
}
