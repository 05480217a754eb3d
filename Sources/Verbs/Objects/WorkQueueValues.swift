extension WorkQueue {
    /// State of a work queue (enum ibv_wq_state).
    @frozen public struct State: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Takes nothing.
        @inlinable public static var reset: Self { Self(rawValue: 0) }
        /// Receives.
        @inlinable public static var ready: Self { Self(rawValue: 1) }
        /// Everything posted completes as flushed.
        @inlinable public static var error: Self { Self(rawValue: 2) }
        /// Not known.
        @inlinable public static var unknown: Self { Self(rawValue: 3) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "RESET"
            case 1: "RDY"
            case 2: "ERR"
            case 3: "UNKNOWN"
            default: nil
            }
        }
    }
}

extension WorkQueue {
    /// Special treatment of a work queue (enum ibv_wq_flags).
    @frozen public struct Flags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// VLAN tags are taken off.
        @inlinable public static var vlanStripping: Self { Self(rawValue: 1 << 0) }
        /// The frame check sequence is delivered as well.
        @inlinable public static var scatterFCS: Self { Self(rawValue: 1 << 1) }
        /// Waits for a receive before it drops.
        @inlinable public static var delayDrop: Self { Self(rawValue: 1 << 2) }
        /// Writes to memory are padded to cache lines.
        @inlinable public static var pciWriteEndPadding: Self { Self(rawValue: 1 << 3) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "CVLAN_STRIPPING"),
                    (1, "SCATTER_FCS"),
                    (2, "DELAY_DROP"),
                    (3, "PCI_WRITE_END_PADDING"),
                ])
        }
    }
}
