import CIBVerbs
import CProviderABI

extension WorkQueue {
    /// State of a work queue (enum ibv_wq_state).
    @frozen public struct State: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Nothing is received (`IBV_WQS_RESET`).
        @inlinable public static var reset: Self { Self(rawValue: IBV_WQS_RESET.rawValue) }
        /// Posted receives are processed (`IBV_WQS_RDY`).
        @inlinable public static var ready: Self { Self(rawValue: IBV_WQS_RDY.rawValue) }
        /// Everything posted completes as flushed (`IBV_WQS_ERR`).
        @inlinable public static var error: Self { Self(rawValue: IBV_WQS_ERR.rawValue) }
        /// Not known (`IBV_WQS_UNKNOWN`).
        @inlinable public static var unknown: Self { Self(rawValue: IBV_WQS_UNKNOWN.rawValue) }

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
    /// Flags of a work queue (enum ibv_wq_flags).
    @frozen public struct Flags: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// VLAN tags are stripped (`IBV_WQ_FLAGS_CVLAN_STRIPPING`).
        @inlinable public static var vlanStripping: Self { Self(rawValue: IBV_WQ_FLAGS_CVLAN_STRIPPING.rawValue) }
        /// The frame check sequence is delivered as well (`IBV_WQ_FLAGS_SCATTER_FCS`).
        @inlinable public static var scatterFCS: Self { Self(rawValue: IBV_WQ_FLAGS_SCATTER_FCS.rawValue) }
        /// The drop of a packet is delayed when no receive is posted (`IBV_WQ_FLAGS_DELAY_DROP`).
        @inlinable public static var delayDrop: Self { Self(rawValue: IBV_WQ_FLAGS_DELAY_DROP.rawValue) }
        /// Writes to memory are padded to cache lines (`IBV_WQ_FLAGS_PCI_WRITE_END_PADDING`).
        @inlinable public static var pciWriteEndPadding: Self {
            Self(rawValue: IBV_WQ_FLAGS_PCI_WRITE_END_PADDING.rawValue)
        }

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
