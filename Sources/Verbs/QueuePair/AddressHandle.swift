import CIBVerbs
import CProviderABI
import SystemPackage

/// An address vector: the path to a destination port (`struct ibv_ah_attr`).
public struct AddressVector: Hashable, Sendable {
    /// The local port, from 1 (`ibv_ah_attr.port_num`).
    public var port: UInt8
    /// LID of the destination; 0 on Ethernet (`ibv_ah_attr.dlid`).
    public var lid: UInt16
    /// The global route (`ibv_ah_attr.grh`, `is_global`); needed on Ethernet, and across InfiniBand subnets.
    public var route: GlobalRoute?
    /// Service level, 0 to 15 (`ibv_ah_attr.sl`).
    public var serviceLevel: UInt8
    /// The path bits of the source LID (`ibv_ah_attr.src_path_bits`).
    public var sourcePathBits: UInt8
    /// The static rate: the limit of the data rate to the destination (`ibv_ah_attr.static_rate`).
    public var staticRate: Rate

    /// The fields of a global route header, GRH (IBTA volume 1, 8.3; struct ibv_global_route).
    public struct GlobalRoute: Hashable, Sendable {
        /// The destination GID (`ibv_global_route.dgid`).
        public var gid: GID
        /// The GID index of the source (`ibv_global_route.sgid_index`).
        public var sourceIndex: UInt8
        /// Flow label, 20 bits (`ibv_global_route.flow_label`).
        public var flowLabel: UInt32
        /// The hop limit; 1 keeps the packet in its subnet (`ibv_global_route.hop_limit`).
        public var hopLimit: UInt8
        /// Traffic class; on RoCE v2 the DSCP and ECN bits (`ibv_global_route.traffic_class`).
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

    /// An address vector from the local port `port`.
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

    /// Makes the value from the struct of verbs.h.
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

/// An address handle (AH): an address vector that the device uses to send datagrams (`struct ibv_ah`,
/// ibv_create_ah(3)).
public final class AddressHandle: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

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
        let advice = context.connectionsOnly
        let raw = try context.made(.createAH, object, advice: { advice ?? .general($0) }) {
            create(unsafeRaw, &attributes)
        }
        return AddressHandle(raw, protectionDomain: self)
    }
}

/// The destination of a datagram: an address handle, and a queue pair's QPN and Q_Key (`ibv_send_wr.wr.ud`).
///
/// It keeps its address handle alive, and must exist until the datagram's completion.
@frozen public struct DatagramDestination: @unchecked Sendable {
    // Unchecked: the pointer is the handle's, which never changes.

    /// The address handle (`wr.ud.ah`).
    public let handle: AddressHandle
    /// The QPN of the destination: 24 bits (`wr.ud.remote_qpn`).
    public let queuePairNumber: UInt32
    /// The Q_Key of the destination, which drops datagrams with another Q_Key (`wr.ud.remote_qkey`). With bit 31 set,
    /// the sender's own Q_Key is sent instead.
    public let qkey: UInt32
    @usableFromInline let raw: UnsafeMutablePointer<ibv_ah>

    /// The queue pair with that QPN at the port of the address handle.
    public init(handle: AddressHandle, queuePairNumber: UInt32, qkey: UInt32) {
        self.handle = handle
        self.queuePairNumber = queuePairNumber
        self.qkey = qkey
        raw = handle.unsafeRaw
    }

    /// The operation with this destination.
    @inlinable @inline(__always)
    func addressed(_ operation: SendOperation) -> SendOperation {
        operation.to(raw, queuePairNumber, qkey)
    }
}
