import CIBVerbs
import CProviderABI
import SystemPackage

/// The way to a port: what verbs calls an address vector (struct ibv_ah_attr).
public struct AddressVector: Hashable, Sendable {
    /// The local port that it leaves from, from 1.
    public var port: UInt8
    /// LID of the destination; 0 on Ethernet.
    public var lid: UInt16
    /// The global route; needed on Ethernet, and across InfiniBand subnets.
    public var route: GlobalRoute?
    /// Service level, 0 to 15.
    public var serviceLevel: UInt8
    /// Low bits of the source LID.
    public var sourcePathBits: UInt8
    /// Most packets that may follow each other.
    public var staticRate: Rate

    /// What a global route header says (IBTA volume 1, 8.3).
    public struct GlobalRoute: Hashable, Sendable {
        /// The destination.
        public var gid: GID
        /// Place of the source in the port's GID table.
        public var sourceIndex: UInt8
        /// Flow label, 20 bits.
        public var flowLabel: UInt32
        /// How many routers it may pass; 1 keeps it in its subnet.
        public var hopLimit: UInt8
        /// Traffic class; on RoCE v2 the DSCP and ECN bits.
        public var trafficClass: UInt8

        /// A route to `gid`.
        public init(
            gid: GID, sourceIndex: UInt8, flowLabel: UInt32 = 0, hopLimit: UInt8 = 64, trafficClass: UInt8 = 0
        ) {
            self.gid = gid
            self.sourceIndex = sourceIndex
            self.flowLabel = flowLabel
            self.hopLimit = hopLimit
            self.trafficClass = trafficClass
        }
    }

    /// A way from `port`.
    public init(
        port: UInt8, lid: UInt16 = 0, route: GlobalRoute? = nil, serviceLevel: UInt8 = 0, sourcePathBits: UInt8 = 0,
        staticRate: Rate = .max
    ) {
        self.port = port
        self.lid = lid
        self.route = route
        self.serviceLevel = serviceLevel
        self.sourcePathBits = sourcePathBits
        self.staticRate = staticRate
    }

    /// The way that verbs.h's form describes.
    package init(_ raw: ibv_ah_attr) {
        let route = GlobalRoute(
            gid: GID(raw.grh.dgid), sourceIndex: raw.grh.sgid_index, flowLabel: raw.grh.flow_label,
            hopLimit: raw.grh.hop_limit, trafficClass: raw.grh.traffic_class)
        self.init(
            port: raw.port_num, lid: raw.dlid, route: raw.is_global == 0 ? nil : route, serviceLevel: raw.sl,
            sourcePathBits: raw.src_path_bits, staticRate: Rate(rawValue: raw.static_rate))
    }

    var raw: ibv_ah_attr {
        var raw = ibv_ah_attr()
        raw.port_num = port
        raw.dlid = lid
        raw.sl = serviceLevel
        raw.src_path_bits = sourcePathBits
        raw.static_rate = staticRate.rawValue
        if let route {
            raw.is_global = 1
            raw.grh.dgid = route.gid.raw
            raw.grh.sgid_index = route.sourceIndex
            raw.grh.flow_label = route.flowLabel
            raw.grh.hop_limit = route.hopLimit
            raw.grh.traffic_class = route.trafficClass
        }
        return raw
    }
}

/// The way to a port, made ready for the device: datagrams are sent along it (ibv_create_ah(3)).
public final class AddressHandle: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the waist allows calls from any thread.

    /// The domain that it belongs to.
    public let protectionDomain: ProtectionDomain
    /// The struct of verbs.h, for calls into C.
    public let unsafeRaw: UnsafeMutablePointer<ibv_ah>

    init(_ raw: UnsafeMutablePointer<ibv_ah>, protectionDomain: ProtectionDomain) {
        unsafeRaw = raw
        self.protectionDomain = protectionDomain
    }

    deinit {
        let context = protectionDomain.context
        guard let destroy = context.table.destroy_ah else { return }
        context.destroy(
            .destroyAH, context.object("address handle", unsafeRaw.pointee.handle), keeping: [protectionDomain],
            destroy(unsafeRaw))
    }
}

extension ProtectionDomain {
    /// Makes an address handle: ibv_create_ah(3).
    ///
    /// - Throws: `EINVAL` for a port or GID index that does not exist; `ENETUNREACH`, `EHOSTUNREACH` or
    ///   `ETIMEDOUT` when the GID does not resolve to a neighbour.
    public func makeAddressHandle(_ vector: AddressVector) throws(VerbsError) -> AddressHandle {
        let create = try context.entry(
            context.table.create_ah, destroyedBy: context.table.destroy_ah, .createAH, object)
        var attributes = vector.raw
        let raw = try context.made(.createAH, object) { create(unsafeRaw, &attributes) }
        return AddressHandle(raw, protectionDomain: self)
    }
}

/// Where a datagram goes: the way to the port, and a queue pair there.
///
/// Keeps its address handle alive. It must itself stay until the datagram's completion.
@frozen public struct DatagramDestination: @unchecked Sendable {
    // Unchecked: the pointer is the handle's, which never changes.

    /// The way to the port.
    public let handle: AddressHandle
    /// The queue pair there: 24 bits.
    public let queuePairNumber: UInt32
    /// Its key: the receiver drops what has another. With bit 31 set, the sender's own key is sent instead.
    public let queueKey: UInt32
    @usableFromInline let raw: UnsafeMutablePointer<ibv_ah>

    /// The queue pair of that number at the end of that way.
    public init(handle: AddressHandle, queuePairNumber: UInt32, queueKey: UInt32) {
        self.handle = handle
        self.queuePairNumber = queuePairNumber
        self.queueKey = queueKey
        raw = handle.unsafeRaw
    }

    /// The operation addressed to here.
    @inlinable @inline(__always)
    func addressed(_ operation: SendOperation) -> SendOperation {
        operation.to(raw, queuePairNumber, queueKey)
    }
}
