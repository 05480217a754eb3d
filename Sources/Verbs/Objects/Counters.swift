import CIBVerbs
import CProviderABI
import SystemPackage

/// Counters of the device that can be attached to flows (`struct ibv_counters`, ibv_create_counters(3)).
public final class Counters: @unchecked Sendable {
    // Unchecked: the pointer never changes, and the provider ABI allows calls from any thread.

    /// The device.
    public let context: Context
    let raw: UnsafeMutablePointer<ibv_counters>

    init(_ raw: UnsafeMutablePointer<ibv_counters>, context: Context) {
        self.raw = raw
        self.context = context
    }

    deinit {
        guard let destroy = context.table.destroy_counters else { return }
        context.destroy(.destroyCounters, object, keeping: [], destroy(raw))
    }

    var object: VerbsObject { context.object("counters") }

    /// The unit that a counter counts (enum ibv_counter_description).
    @frozen public struct Description: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Packets (`IBV_COUNTER_PACKETS`).
        @inlinable public static var packets: Self { Self(rawValue: IBV_COUNTER_PACKETS.rawValue) }
        /// Bytes (`IBV_COUNTER_BYTES`).
        @inlinable public static var bytes: Self { Self(rawValue: IBV_COUNTER_BYTES.rawValue) }
        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "PACKETS"
            case 1: "BYTES"
            default: nil
            }
        }
    }
}

extension Context {
    /// Makes counters: ibv_create_counters(3).
    ///
    /// This call has run only against a fake provider.
    public func makeCounters() throws(VerbsError) -> Counters {
        let create = try entry(
            table.create_counters, destroyedBy: table.destroy_counters, .createCounters, object("context"))
        var attributes = ibv_counters_init_attr()
        let raw = try made(.createCounters, object("context")) { create(unsafeRaw, &attributes) }
        return Counters(raw, context: self)
    }
}

extension Counters {
    /// Attaches a counter with index `index`, from 0: ibv_attach_counters_point_flow(3).
    ///
    /// - Parameters:
    ///   - description: The unit to count (`ibv_counter_attach_attr.counter_desc`).
    ///   - index: Index of the counter in the result of `read`.
    ///   - flow: The flow to count; nil for a flow that is made later with the action
    ///     `FlowMatch.count`.
    public func attach(_ description: Description, at index: UInt32, flow: Flow? = nil) throws(VerbsError) {
        let attach = try context.entry(context.table.attach_counters_point_flow, .attachCounters, object)
        var attributes = ibv_counter_attach_attr()
        attributes.counter_desc = ibv_counter_description(rawValue: description.rawValue)
        attributes.index = index
        try context.check(
            .attachCounters, object, withExtendedLifetime(flow) { attach(raw, &attributes, flow?.raw) })
    }

    /// Reads the first `count` counters: ibv_read_counters(3).
    ///
    /// - Parameters:
    ///   - count: The number of counters.
    ///   - preferCached: Whether a cached value may be returned (`IBV_READ_COUNTERS_ATTR_PREFER_CACHED`).
    public func read(count: Int, preferCached: Bool = false) throws(VerbsError) -> [UInt64] {
        let read = try context.entry(context.table.read_counters, .readCounters, object)
        var values = [UInt64](repeating: 0, count: max(count, 0))
        let flags = preferCached ? IBV_READ_COUNTERS_ATTR_PREFER_CACHED.rawValue : 0
        try context.check(.readCounters, object, read(raw, &values, UInt32(values.count), flags))
        return values
    }
}
