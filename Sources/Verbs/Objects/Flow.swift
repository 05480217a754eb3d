import CIBVerbs
import CProviderABI
import SystemPackage

/// A rule that steers packets to a queue pair (`struct ibv_flow`, ibv_create_flow(3)). It is removed with the last
/// reference (ibv_destroy_flow(3)).
public final class Flow: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.
    private let context: Context
    let raw: UnsafeMutablePointer<ibv_flow>
    private let needs: [AnyObject]

    init(_ raw: UnsafeMutablePointer<ibv_flow>, context: Context, needs: [AnyObject]) {
        self.raw = raw
        self.context = context
        self.needs = needs
    }

    deinit {
        guard let destroy = context.table.destroy_flow else { return }
        context.destroy(
            .destroyFlow, context.object("flow", raw.pointee.handle), keeping: needs, destroy(raw))
    }

    /// Flags of a flow rule (enum ibv_flow_flags).
    @frozen public struct Flags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// A matching packet is passed on to later rules as well (`IBV_FLOW_ATTR_FLAGS_DONT_TRAP`).
        @inlinable public static var doNotTrap: Self { Self(rawValue: IBV_FLOW_ATTR_FLAGS_DONT_TRAP.rawValue) }
        /// The rule matches packets that are sent (`IBV_FLOW_ATTR_FLAGS_EGRESS`).
        @inlinable public static var egress: Self { Self(rawValue: IBV_FLOW_ATTR_FLAGS_EGRESS.rawValue) }
        /// The names of the bits that are set.
        public var description: String { describeBits(rawValue, [(1, "DONT_TRAP"), (2, "EGRESS")]) }
    }
}

/// The type of a flow rule (enum ibv_flow_attr_type).
@frozen public struct FlowAttributeType: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Packets that match the rule's specs (`IBV_FLOW_ATTR_NORMAL`).
    @inlinable public static var normal: Self { Self(rawValue: IBV_FLOW_ATTR_NORMAL.rawValue) }
    /// All packets that no other rule matches (`IBV_FLOW_ATTR_ALL_DEFAULT`).
    @inlinable public static var allDefault: Self { Self(rawValue: IBV_FLOW_ATTR_ALL_DEFAULT.rawValue) }
    /// All multicast packets that no other rule matches (`IBV_FLOW_ATTR_MC_DEFAULT`).
    @inlinable public static var multicastDefault: Self { Self(rawValue: IBV_FLOW_ATTR_MC_DEFAULT.rawValue) }
    /// All packets of the port (`IBV_FLOW_ATTR_SNIFFER`).
    @inlinable public static var sniffer: Self { Self(rawValue: IBV_FLOW_ATTR_SNIFFER.rawValue) }
    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0: "NORMAL"
        case 1: "ALL_DEFAULT"
        case 2: "MC_DEFAULT"
        case 3: "SNIFFER"
        default: nil
        }
    }
}

extension QueuePair {
    /// Steers packets to this queue pair: ibv_create_flow(3).
    ///
    /// This call has run only against a fake provider.
    ///
    /// - Parameters:
    ///   - matches: The headers to match, from the outer to the inner one, followed by the actions.
    ///   - type: The type of the rule (`ibv_flow_attr.type`).
    ///   - port: The port of the packets, from 1.
    ///   - priority: The order of rules: 0 is the first (`ibv_flow_attr.priority`).
    ///   - flags: Flags of the rule (`ibv_flow_flags`).
    /// - Throws: `EPERM` without CAP_NET_RAW, `EINVAL` for specs that cannot be combined, `EBUSY` for a rule that
    ///   exists already.
    public func makeFlow(
        _ matches: [FlowMatch], type: FlowAttributeType = .normal, port: UInt8 = 1, priority: UInt16 = 0,
        flags: Flow.Flags = []
    ) throws(VerbsError) -> Flow {
        let create = try context.entry(
            context.table.create_flow, destroyedBy: context.table.destroy_flow, .createFlow, owner.object)
        let parts = matches.flatMap(\.bytes)
        let headerSize = MemoryLayout<ibv_flow_attr>.size
        let size = headerSize + parts.count
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
        defer { memory.deallocate() }
        var attributes = ibv_flow_attr()
        attributes.type = ibv_flow_attr_type(rawValue: type.rawValue)
        attributes.size = UInt16(clamping: size)
        attributes.priority = priority
        attributes.num_of_specs = UInt8(clamping: matches.count)
        attributes.port = port
        attributes.flags = flags.rawValue
        memory.storeBytes(of: attributes, as: ibv_flow_attr.self)
        UnsafeMutableRawBufferPointer(rebasing: memory[headerSize...]).copyBytes(from: parts)
        let flow = try context.made(.createFlow, owner.object) {
            create(raw, memory.baseAddress?.assumingMemoryBound(to: ibv_flow_attr.self))
        }
        return Flow(flow, context: context, needs: [owner] + matches.compactMap(\.keeps))
    }
}
