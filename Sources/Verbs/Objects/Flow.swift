import CIBVerbs
import CProviderABI
import SystemPackage

/// A rule that steers packets to a queue pair (ibv_create_flow(3)). It holds as long as the value lives.
public final class Flow: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the waist allows calls from any thread.
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

    /// Which packets a rule is about at all (enum ibv_flow_attr_type).
    @frozen public struct Kind: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Those that its parts match.
        @inlinable public static var normal: Self { Self(rawValue: 0) }
        /// All that no other rule takes.
        @inlinable public static var allDefault: Self { Self(rawValue: 1) }
        /// All multicasts that no other rule takes.
        @inlinable public static var multicastDefault: Self { Self(rawValue: 2) }
        /// All of the port.
        @inlinable public static var sniffer: Self { Self(rawValue: 3) }
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

    /// How a rule is applied (enum ibv_flow_flags).
    @frozen public struct Flags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Later rules see the packet as well.
        @inlinable public static var doNotTrap: Self { Self(rawValue: 1 << 1) }
        /// The rule is about packets that are sent.
        @inlinable public static var egress: Self { Self(rawValue: 1 << 2) }
        /// The names of the bits that are set.
        public var description: String { describeBits(rawValue, [(1, "DONT_TRAP"), (2, "EGRESS")]) }
    }
}

extension QueuePair {
    /// Steers packets to this queue pair: ibv_create_flow(3).
    ///
    /// - Parameters:
    ///   - matches: what a packet must have, from the outer header to the inner one, then what is done with it.
    ///   - kind: which packets the rule is about at all.
    ///   - port: the port that they come to, from 1.
    ///   - priority: lower rules first; 0 is the first.
    ///   - flags: how the rule is applied.
    /// - Throws: `EPERM` without CAP_NET_RAW, `EINVAL` for parts that do not go together, `EBUSY` for a rule that
    ///   is there already.
    public func makeFlow(
        _ matches: [FlowMatch], kind: Flow.Kind = .normal, port: UInt8 = 1, priority: UInt16 = 0,
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
        attributes.type = ibv_flow_attr_type(rawValue: kind.rawValue)
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
