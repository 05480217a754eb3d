import CIBVerbs
import CProviderABI

extension DeviceAttributes {
    /// Capabilities of a device (enum ibv_device_cap_flags).
    @frozen public struct Capabilities: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt64
        /// The set with those bits.
        @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

        /// Queue pairs can be resized (`IBV_DEVICE_RESIZE_MAX_WR`).
        @inlinable public static var resizeMaxWorkRequests: Self {
            Self(rawValue: UInt64(IBV_DEVICE_RESIZE_MAX_WR.rawValue))
        }
        /// Counts P_Key violations (`IBV_DEVICE_BAD_PKEY_CNTR`).
        @inlinable public static var badPKeyCounter: Self { Self(rawValue: UInt64(IBV_DEVICE_BAD_PKEY_CNTR.rawValue)) }
        /// Counts Q_Key violations (`IBV_DEVICE_BAD_QKEY_CNTR`).
        @inlinable public static var badQKeyCounter: Self { Self(rawValue: UInt64(IBV_DEVICE_BAD_QKEY_CNTR.rawValue)) }
        /// Raw multicast (`IBV_DEVICE_RAW_MULTI`).
        @inlinable public static var rawMulticast: Self { Self(rawValue: UInt64(IBV_DEVICE_RAW_MULTI.rawValue)) }
        /// Automatic path migration (`IBV_DEVICE_AUTO_PATH_MIG`).
        @inlinable public static var automaticPathMigration: Self {
            Self(rawValue: UInt64(IBV_DEVICE_AUTO_PATH_MIG.rawValue))
        }
        /// A queue pair can change its port in SQD (`IBV_DEVICE_CHANGE_PHY_PORT`).
        @inlinable public static var changePhysicalPort: Self {
            Self(rawValue: UInt64(IBV_DEVICE_CHANGE_PHY_PORT.rawValue))
        }
        /// Checks the port of UD address handles (`IBV_DEVICE_UD_AV_PORT_ENFORCE`).
        @inlinable public static var addressPortEnforced: Self {
            Self(rawValue: UInt64(IBV_DEVICE_UD_AV_PORT_ENFORCE.rawValue))
        }
        /// Supports `IBV_QP_CUR_STATE` in a modification (`IBV_DEVICE_CURR_QP_STATE_MOD`).
        @inlinable public static var currentStateModifier: Self {
            Self(rawValue: UInt64(IBV_DEVICE_CURR_QP_STATE_MOD.rawValue))
        }
        /// Ports can be shut down (`IBV_DEVICE_SHUTDOWN_PORT`).
        @inlinable public static var portShutdown: Self { Self(rawValue: UInt64(IBV_DEVICE_SHUTDOWN_PORT.rawValue)) }
        /// Node initialisation types (`IBV_DEVICE_INIT_TYPE`).
        @inlinable public static var initType: Self { Self(rawValue: UInt64(IBV_DEVICE_INIT_TYPE.rawValue)) }
        /// Raises an event when a port becomes active (`IBV_DEVICE_PORT_ACTIVE_EVENT`).
        @inlinable public static var portActiveEvent: Self {
            Self(rawValue: UInt64(IBV_DEVICE_PORT_ACTIVE_EVENT.rawValue))
        }
        /// Has a system image GUID (`IBV_DEVICE_SYS_IMAGE_GUID`).
        @inlinable public static var systemImageGUID: Self {
            Self(rawValue: UInt64(IBV_DEVICE_SYS_IMAGE_GUID.rawValue))
        }
        /// Sends RNR NAKs (`IBV_DEVICE_RC_RNR_NAK_GEN`).
        @inlinable public static var rnrNAKGeneration: Self {
            Self(rawValue: UInt64(IBV_DEVICE_RC_RNR_NAK_GEN.rawValue))
        }
        /// Shared receive queues can be resized (`IBV_DEVICE_SRQ_RESIZE`).
        @inlinable public static var sharedReceiveQueueResize: Self {
            Self(rawValue: UInt64(IBV_DEVICE_SRQ_RESIZE.rawValue))
        }
        /// Raises an event after N completions (`IBV_DEVICE_N_NOTIFY_CQ`).
        @inlinable public static var notifyCount: Self { Self(rawValue: UInt64(IBV_DEVICE_N_NOTIFY_CQ.rawValue)) }
        /// Memory windows of type 1 (`IBV_DEVICE_MEM_WINDOW`).
        @inlinable public static var memoryWindows: Self { Self(rawValue: UInt64(IBV_DEVICE_MEM_WINDOW.rawValue)) }
        /// Computes IP checksums on UD (`IBV_DEVICE_UD_IP_CSUM`).
        @inlinable public static var unreliableDatagramChecksum: Self {
            Self(rawValue: UInt64(IBV_DEVICE_UD_IP_CSUM.rawValue))
        }
        /// Extended reliable connections (`IBV_DEVICE_XRC`).
        @inlinable public static var xrc: Self { Self(rawValue: UInt64(IBV_DEVICE_XRC.rawValue)) }
        /// Memory management extensions (`IBV_DEVICE_MEM_MGT_EXTENSIONS`).
        @inlinable public static var memoryManagementExtensions: Self {
            Self(rawValue: UInt64(IBV_DEVICE_MEM_MGT_EXTENSIONS.rawValue))
        }
        /// Memory windows of type 2A (`IBV_DEVICE_MEM_WINDOW_TYPE_2A`).
        @inlinable public static var memoryWindows2A: Self {
            Self(rawValue: UInt64(IBV_DEVICE_MEM_WINDOW_TYPE_2A.rawValue))
        }
        /// Memory windows of type 2B (`IBV_DEVICE_MEM_WINDOW_TYPE_2B`).
        @inlinable public static var memoryWindows2B: Self {
            Self(rawValue: UInt64(IBV_DEVICE_MEM_WINDOW_TYPE_2B.rawValue))
        }
        /// Computes IP checksums on RC (`IBV_DEVICE_RC_IP_CSUM`).
        @inlinable public static var reliableConnectionChecksum: Self {
            Self(rawValue: UInt64(IBV_DEVICE_RC_IP_CSUM.rawValue))
        }
        /// Computes IP checksums on raw packets (`IBV_DEVICE_RAW_IP_CSUM`).
        @inlinable public static var rawPacketChecksum: Self { Self(rawValue: UInt64(IBV_DEVICE_RAW_IP_CSUM.rawValue)) }
        /// Flow steering (`IBV_DEVICE_MANAGED_FLOW_STEERING`).
        @inlinable public static var managedFlowSteering: Self {
            Self(rawValue: UInt64(IBV_DEVICE_MANAGED_FLOW_STEERING.rawValue))
        }
        /// Delivers the frame check sequence of raw packets (`IBV_DEVICE_RAW_SCATTER_FCS`).
        @inlinable public static var rawScatterFCS: Self { Self(rawValue: 1 << 34) }
        /// Pads writes to memory to cache lines (`IBV_DEVICE_PCI_WRITE_END_PADDING`).
        @inlinable public static var pciWriteEndPadding: Self { Self(rawValue: 1 << 36) }
        /// FLUSH for global visibility (`IB_UVERBS_DEVICE_FLUSH_GLOBAL` of the kernel's rdma/ib_user_verbs.h).
        @inlinable public static var flushGlobal: Self { Self(rawValue: 1 << 38) }
        /// FLUSH for persistence (`IB_UVERBS_DEVICE_FLUSH_PERSISTENT` of the kernel's rdma/ib_user_verbs.h).
        @inlinable public static var flushPersistent: Self { Self(rawValue: 1 << 39) }
        /// ATOMIC WRITE (`IB_UVERBS_DEVICE_ATOMIC_WRITE` of the kernel's rdma/ib_user_verbs.h).
        @inlinable public static var atomicWrite: Self { Self(rawValue: 1 << 40) }

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
                    (38, "FLUSH_GLOBAL"),
                    (39, "FLUSH_PERSISTENT"),
                    (40, "ATOMIC_WRITE"),
                ])
        }
    }
}

extension DeviceAttributes {
    /// The scope in which atomic operations are atomic (enum ibv_atomic_cap).
    @frozen public struct AtomicCapability: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// There are no atomic operations (`IBV_ATOMIC_NONE`).
        @inlinable public static var none: Self { Self(rawValue: IBV_ATOMIC_NONE.rawValue) }
        /// Among the operations of this device (`IBV_ATOMIC_HCA`).
        @inlinable public static var device: Self { Self(rawValue: IBV_ATOMIC_HCA.rawValue) }
        /// Also against the processors and other devices (`IBV_ATOMIC_GLOB`).
        @inlinable public static var global: Self { Self(rawValue: IBV_ATOMIC_GLOB.rawValue) }

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

        /// There is on-demand paging (`IBV_ODP_SUPPORT`).
        @inlinable public static var supported: Self { Self(rawValue: UInt64(IBV_ODP_SUPPORT.rawValue)) }
        /// Implicit ODP: one region can cover the whole address space (`IBV_ODP_SUPPORT_IMPLICIT`).
        @inlinable public static var implicit: Self { Self(rawValue: UInt64(IBV_ODP_SUPPORT_IMPLICIT.rawValue)) }

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

        /// Sends (`IBV_ODP_SUPPORT_SEND`).
        @inlinable public static var send: Self { Self(rawValue: IBV_ODP_SUPPORT_SEND.rawValue) }
        /// Receives (`IBV_ODP_SUPPORT_RECV`).
        @inlinable public static var receive: Self { Self(rawValue: IBV_ODP_SUPPORT_RECV.rawValue) }
        /// RDMA writes (`IBV_ODP_SUPPORT_WRITE`).
        @inlinable public static var write: Self { Self(rawValue: IBV_ODP_SUPPORT_WRITE.rawValue) }
        /// RDMA reads (`IBV_ODP_SUPPORT_READ`).
        @inlinable public static var read: Self { Self(rawValue: IBV_ODP_SUPPORT_READ.rawValue) }
        /// Atomics (`IBV_ODP_SUPPORT_ATOMIC`).
        @inlinable public static var atomic: Self { Self(rawValue: IBV_ODP_SUPPORT_ATOMIC.rawValue) }
        /// Receives from a shared receive queue (`IBV_ODP_SUPPORT_SRQ_RECV`).
        @inlinable public static var sharedReceive: Self { Self(rawValue: IBV_ODP_SUPPORT_SRQ_RECV.rawValue) }

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
    /// Capabilities of a device for raw packets (enum ibv_raw_packet_caps).
    @frozen public struct RawPacketCapabilities: OptionSet, Hashable, Sendable, CustomStringConvertible {
        /// The bits in verbs.h; unknown ones are kept.
        public let rawValue: UInt32
        /// The set with those bits.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// Strips VLAN tags (`IBV_RAW_PACKET_CAP_CVLAN_STRIPPING`).
        @inlinable public static var vlanStripping: Self { Self(rawValue: IBV_RAW_PACKET_CAP_CVLAN_STRIPPING.rawValue) }
        /// Delivers the frame check sequence (`IBV_RAW_PACKET_CAP_SCATTER_FCS`).
        @inlinable public static var scatterFCS: Self { Self(rawValue: IBV_RAW_PACKET_CAP_SCATTER_FCS.rawValue) }
        /// Computes IP checksums (`IBV_RAW_PACKET_CAP_IP_CSUM`).
        @inlinable public static var ipChecksum: Self { Self(rawValue: IBV_RAW_PACKET_CAP_IP_CSUM.rawValue) }
        /// Delays the drop of a packet when no receive is posted (`IBV_RAW_PACKET_CAP_DELAY_DROP`).
        @inlinable public static var delayDrop: Self { Self(rawValue: IBV_RAW_PACKET_CAP_DELAY_DROP.rawValue) }

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
    /// Limits of tag matching (struct ibv_tm_caps); all 0 when the device does not support it.
    public struct TagMatching: Hashable, Sendable {
        /// Largest header of a rendezvous request, in bytes (`max_rndv_hdr_size`).
        public let maxRendezvousHeader: Int
        /// The largest number of tagged buffers of one matching list (`max_num_tags`).
        public let maxTags: Int
        /// Flags (enum ibv_tm_cap_flags): `IBV_TM_CAP_RC`.
        public let flags: UInt32
        /// The largest number of outstanding operations on a list (`max_ops`).
        public let maxOperations: Int
        /// The largest number of SGEs of a tagged buffer (`max_sge`).
        public let maxSGE: Int

        init(_ raw: ibv_tm_caps) {
            maxRendezvousHeader = Int(raw.max_rndv_hdr_size)
            maxTags = Int(raw.max_num_tags)
            flags = raw.flags
            maxOperations = Int(raw.max_ops)
            maxSGE = Int(raw.max_sge)
        }
    }
}
