import CIBVerbs
import ProviderKit

/// The form of a port's addresses.
enum Network {
    /// InfiniBand: the address is a LID.
    case infiniband
    /// RoCE: the address is a MAC address. RoCEv2 also has a UDP source port.
    case ethernet(mac: InlineArray<6, UInt8>, udpPort: UInt16)
}

/// The mlx5 encoding of the static rate, indexed by `enum ibv_rate`; 0 is no limit.
private let rates: InlineArray<23, UInt8> = [
    0, 0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 11, 13, 15, 0, 9, 15, 0, 0, 9, 13, 0, 0,
]

extension UnsafeMutableRawPointer {
    /// Writes the 48 bytes of an address vector (`struct mlx5_wqe_av`), without Q_Key and destination QPN.
    func putAddressVector(_ attributes: ibv_ah_attr, _ network: Network) {
        for offset in [0, 16, 32] { put(SIMD2<UInt64>(), at: offset) }
        let rate = attributes.static_rate < 23 ? rates[Int(attributes.static_rate)] : 0
        let level: UInt8
        let hasGRH: UInt32
        switch network {
        case .infiniband:
            level = attributes.sl
            hasGRH = 1
            AddressVector.pathBits.put(attributes.src_path_bits, in: self)
            AddressVector.remoteLID.put(attributes.dlid, in: self)
        case .ethernet(let mac, let udpPort):
            // The priority is in the upper three bits. The grh bit is 0: RoCE always has a GRH.
            level = (attributes.sl & 7) << 1
            hasGRH = 0
            AddressVector.remoteLID.put(udpPort, in: self)
            let first = UInt32(mac[0]) << 24 | UInt32(mac[1]) << 16 | UInt32(mac[2]) << 8 | UInt32(mac[3])
            AddressVector.remoteMAC.put(first, in: self)
            AddressVector.remoteMACEnd.put(UInt16(mac[4]) << 8 | UInt16(mac[5]), in: self)
        }
        put(Filled(AddressVector.staticRate, rate), Filled(AddressVector.serviceLevel, level))
        guard attributes.is_global != 0 else { return }
        AddressVector.trafficClass.put(attributes.grh.traffic_class, in: self)
        AddressVector.hopLimit.put(attributes.grh.hop_limit, in: self)
        put(
            Filled(AddressVector.hasGRH, hasGRH),
            Filled(AddressVector.sourceGIDIndex, UInt32(attributes.grh.sgid_index)),
            Filled(AddressVector.flowLabel, attributes.grh.flow_label))
        AddressVector.remoteGID.put(UInt64(bigEndian: attributes.grh.dgid.global.subnet_prefix), in: self)
        AddressVector.remoteGIDEnd.put(UInt64(bigEndian: attributes.grh.dgid.global.interface_id), in: self)
    }
}

/// The RoCEv2 UDP source port of a flow label, 0xC000 to 0xFFFF (`ibv_flow_label_to_udp_sport`).
func udpPort(flowLabel: UInt32) -> UInt16 {
    let label = flowLabel & 0xFFFFF
    return UInt16(truncatingIfNeeded: (label & 0x3FFF ^ label >> 14) | 0xC000)
}

/// An address handle: the `ibv_ah`, followed by the address vector that is copied into WQEs.
struct Mlx5AddressHandle {
    var base = ibv_ah()
    private let room = ObjectRoom()
    /// Whether the kernel has an address handle too, as on RoCE.
    var hasKernelObject = false
}

typealias AddressHandlePointer = UnsafeMutablePointer<Mlx5AddressHandle>

/// The memory of an address vector.
struct AddressVectorBytes {
    private var words = InlineArray<6, UInt64>(repeating: 0)
}

extension UnsafeMutablePointer<ibv_ah> {
    @inline(__always)
    var mlx5: AddressHandlePointer {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: Mlx5AddressHandle.self)
    }
}

extension AddressHandlePointer {
    static func allocate() -> AddressHandlePointer {
        let handle = allocateObject(holding: AddressVectorBytes.self)
        handle.initialize(to: Mlx5AddressHandle())
        return handle
    }

    @inline(__always)
    var vector: UnsafeMutableRawPointer { UnsafeMutableRawPointer(behind(0, as: AddressVectorBytes.self)) }
}
