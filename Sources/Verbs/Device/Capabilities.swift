import CIBVerbs

extension DeviceAttributes {
    /// What a device can do (enum ibv_device_cap_flags).
    @frozen public struct Capabilities: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// Queue pairs can be resized.
        @inlinable public static var resizeMaxWorkRequests: Self { Self(rawValue: 1 << 0) }
        /// Counts P_Key violations.
        @inlinable public static var badPKeyCounter: Self { Self(rawValue: 1 << 1) }
        /// Counts Q_Key violations.
        @inlinable public static var badQKeyCounter: Self { Self(rawValue: 1 << 2) }
        /// Raw multicast.
        @inlinable public static var rawMulticast: Self { Self(rawValue: 1 << 3) }
        /// Automatic path migration.
        @inlinable public static var automaticPathMigration: Self { Self(rawValue: 1 << 4) }
        /// A queue pair can change its port in SQD.
        @inlinable public static var changePhysicalPort: Self { Self(rawValue: 1 << 5) }
        /// Checks the port of UD address handles.
        @inlinable public static var addressPortEnforced: Self { Self(rawValue: 1 << 6) }
        /// Takes the current state in a modification.
        @inlinable public static var currentStateModifier: Self { Self(rawValue: 1 << 7) }
        /// Ports can be shut down.
        @inlinable public static var portShutdown: Self { Self(rawValue: 1 << 8) }
        /// Node initialisation types.
        @inlinable public static var initType: Self { Self(rawValue: 1 << 9) }
        /// Raises an event when a port becomes active.
        @inlinable public static var portActiveEvent: Self { Self(rawValue: 1 << 10) }
        /// Has a system image GUID.
        @inlinable public static var systemImageGUID: Self { Self(rawValue: 1 << 11) }
        /// Sends RNR NAKs.
        @inlinable public static var rnrNAKGeneration: Self { Self(rawValue: 1 << 12) }
        /// Shared receive queues can be resized.
        @inlinable public static var sharedReceiveQueueResize: Self { Self(rawValue: 1 << 13) }
        /// Raises an event after N completions.
        @inlinable public static var notifyCount: Self { Self(rawValue: 1 << 14) }
        /// Memory windows of type 1.
        @inlinable public static var memoryWindows: Self { Self(rawValue: 1 << 17) }
        /// Computes IP checksums on UD.
        @inlinable public static var unreliableDatagramChecksum: Self { Self(rawValue: 1 << 18) }
        /// Extended reliable connections.
        @inlinable public static var xrc: Self { Self(rawValue: 1 << 20) }
        /// Memory management extensions.
        @inlinable public static var memoryManagementExtensions: Self { Self(rawValue: 1 << 21) }
        /// Memory windows of type 2A.
        @inlinable public static var memoryWindows2A: Self { Self(rawValue: 1 << 23) }
        /// Memory windows of type 2B.
        @inlinable public static var memoryWindows2B: Self { Self(rawValue: 1 << 24) }
        /// Computes IP checksums on RC.
        @inlinable public static var reliableConnectionChecksum: Self { Self(rawValue: 1 << 25) }
        /// Computes IP checksums on raw packets.
        @inlinable public static var rawPacketChecksum: Self { Self(rawValue: 1 << 26) }
        /// Flow steering.
        @inlinable public static var managedFlowSteering: Self { Self(rawValue: 1 << 29) }
        /// Delivers the frame check sequence of raw packets.
        @inlinable public static var rawScatterFCS: Self { Self(rawValue: 1 << 34) }
        /// Pads writes to memory to cache lines.
        @inlinable public static var pciWriteEndPadding: Self { Self(rawValue: 1 << 36) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "RESIZE_MAX_WR"),
                    (1, "BAD_PKEY_CNTR"),
                    (2, "BAD_QKEY_CNTR"),
                    (3, "RAW_MULTI"),
                    (4, "AUTO_PATH_MIG"),
                    (5, "CHANGE_PHY_PORT"),
                    (6, "UD_AV_PORT_ENFORCE"),
                    (7, "CURR_QP_STATE_MOD"),
                    (8, "SHUTDOWN_PORT"),
                    (9, "INIT_TYPE"),
                    (10, "PORT_ACTIVE_EVENT"),
                    (11, "SYS_IMAGE_GUID"),
                    (12, "RC_RNR_NAK_GEN"),
                    (13, "SRQ_RESIZE"),
                    (14, "N_NOTIFY_CQ"),
                    (17, "MEM_WINDOW"),
                    (18, "UD_IP_CSUM"),
                    (20, "XRC"),
                    (21, "MEM_MGT_EXTENSIONS"),
                    (23, "MEM_WINDOW_TYPE_2A"),
                    (24, "MEM_WINDOW_TYPE_2B"),
                    (25, "RC_IP_CSUM"),
                    (26, "RAW_IP_CSUM"),
                    (29, "MANAGED_FLOW_STEERING"),
                    (34, "RAW_SCATTER_FCS"),
                    (36, "PCI_WRITE_END_PADDING"),
                ])
        }
    }
}

extension DeviceAttributes {
    /// How far atomic operations are atomic (enum ibv_atomic_cap).
    @frozen public struct AtomicCapability: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// There are no atomic operations.
        @inlinable public static var none: Self { Self(rawValue: 0) }
        /// Among the operations of this device.
        @inlinable public static var device: Self { Self(rawValue: 1) }
        /// Also against the processors and other devices.
        @inlinable public static var global: Self { Self(rawValue: 2) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "none"
            case 1: "HCA"
            case 2: "global"
            default: nil
            }
        }
    }
}

extension DeviceAttributes {
    /// On-demand paging in general (enum ibv_odp_general_caps).
    @frozen public struct OnDemandPaging: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// There is on-demand paging.
        @inlinable public static var supported: Self { Self(rawValue: 1 << 0) }
        /// All of the address space can be registered at once.
        @inlinable public static var implicit: Self { Self(rawValue: 1 << 1) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "ODP"),
                    (1, "IMPLICIT"),
                ])
        }
    }
}

extension DeviceAttributes {
    /// Operations on memory that is paged on demand (enum ibv_odp_transport_cap_bits).
    @frozen public struct OnDemandPagingOperations: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Sends.
        @inlinable public static var send: Self { Self(rawValue: 1 << 0) }
        /// Receives.
        @inlinable public static var receive: Self { Self(rawValue: 1 << 1) }
        /// RDMA writes.
        @inlinable public static var write: Self { Self(rawValue: 1 << 2) }
        /// RDMA reads.
        @inlinable public static var read: Self { Self(rawValue: 1 << 3) }
        /// Atomics.
        @inlinable public static var atomic: Self { Self(rawValue: 1 << 4) }
        /// Receives from a shared receive queue.
        @inlinable public static var sharedReceive: Self { Self(rawValue: 1 << 5) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "SEND"),
                    (1, "RECV"),
                    (2, "WRITE"),
                    (3, "READ"),
                    (4, "ATOMIC"),
                    (5, "SRQ_RECV"),
                ])
        }
    }
}

extension DeviceAttributes {
    /// What a device can do with raw packets (enum ibv_raw_packet_caps).
    @frozen public struct RawPacketCapabilities: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Takes VLAN tags off.
        @inlinable public static var vlanStripping: Self { Self(rawValue: 1 << 0) }
        /// Delivers the frame check sequence.
        @inlinable public static var scatterFCS: Self { Self(rawValue: 1 << 1) }
        /// Computes IP checksums.
        @inlinable public static var ipChecksum: Self { Self(rawValue: 1 << 2) }
        /// Waits for a receive before it drops.
        @inlinable public static var delayDrop: Self { Self(rawValue: 1 << 3) }

        /// The names of the bits that are set.
        public var description: String {
            describeBits(
                rawValue,
                [
                    (0, "CVLAN_STRIPPING"),
                    (1, "SCATTER_FCS"),
                    (2, "IP_CSUM"),
                    (3, "DELAY_DROP"),
                ])
        }
    }
}

extension DeviceAttributes {
    /// Limits of tag matching (struct ibv_tm_caps); all 0 where there is none.
    public struct TagMatching: Hashable, Sendable {
        /// Largest header of a rendezvous request, in bytes.
        public let maxRendezvousHeader: Int
        /// Most tagged buffers of one matching list.
        public let maxTags: Int
        /// Flags (enum ibv_tm_cap_flags).
        public let flags: UInt32
        /// Most outstanding operations on a list.
        public let maxOperations: Int
        /// Most slices of a tagged buffer.
        public let maxSlices: Int

        init(_ raw: ibv_tm_caps) {
            maxRendezvousHeader = Int(raw.max_rndv_hdr_size)
            maxTags = Int(raw.max_num_tags)
            flags = raw.flags
            maxOperations = Int(raw.max_ops)
            maxSlices = Int(raw.max_sge)
        }
    }
}
