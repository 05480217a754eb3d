import CIBVerbs
import CMProtocol
import CRDMACM
import CRDMACMNode
import Glibc
import SoftwareConnections
import SystemPackage

// QUERY_ROUTE and QUERY. The responses are built in bytes, because of their socket addresses.

/// `rdma_ucm_query_addr_resp.ibdev_index` of a device without an index: librdmacm finds it by its node GUID.
private let noIndex = UInt32.max
/// The P_Key of every packet.
private let partitionKey: UInt16 = 0xFFFF

extension Node {
    func queryRoute(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        try command.requireRoom(RDMA_CM_NODE_ROUTE_INDEX)
        let request = try command.load(rdma_ucm_query.self)
        let view = service.view(of: try software(request.id, file, state))
        try respond(command, at: request.response, RDMA_CM_NODE_ROUTE_SIZE) { bytes in
            write(view.local, bytes, RDMA_CM_NODE_ROUTE_SOURCE)
            write(view.peer, bytes, RDMA_CM_NODE_ROUTE_DESTINATION)
            bytes.storeBytes(of: noIndex, toByteOffset: RDMA_CM_NODE_ROUTE_INDEX, as: UInt32.self)
            guard let device = view.device else { return }
            bytes.storeBytes(of: device.guid.bigEndian, as: UInt64.self)
            bytes[RDMA_CM_NODE_ROUTE_PORT] = 1
            let record = ib_user_path_rec(view, device)
            if view.path != nil {
                bytes.storeBytes(of: 1, toByteOffset: RDMA_CM_NODE_ROUTE_COUNT, as: UInt32.self)
            }
            bytes.storeBytes(of: record, toByteOffset: RDMA_CM_NODE_ROUTE_PATHS, as: ib_user_path_rec.self)
        }
    }

    func query(_ command: Command, _ file: File, _ state: State) throws(Errno) {
        let request = try command.load(rdma_ucm_query.self)
        let view = service.view(of: try software(request.id, file, state))
        switch Int(request.option) {
        case RDMA_USER_CM_QUERY_ADDR:
            try command.requireRoom(RDMA_CM_NODE_ADDR_INDEX)
            try respond(command, at: request.response, RDMA_CM_NODE_ADDR_SIZE) { bytes in
                writeDevice(view, bytes)
                let sizes = (
                    write(view.local, bytes, RDMA_CM_NODE_ADDR_SOURCE),
                    write(view.peer, bytes, RDMA_CM_NODE_ADDR_DESTINATION)
                )
                bytes.storeBytes(of: UInt16(sizes.0), toByteOffset: RDMA_CM_NODE_ADDR_SOURCE_SIZE, as: UInt16.self)
                bytes.storeBytes(of: UInt16(sizes.1), toByteOffset: RDMA_CM_NODE_ADDR_DESTINATION_SIZE, as: UInt16.self)
            }
        case RDMA_USER_CM_QUERY_GID:
            try command.requireRoom(RDMA_CM_NODE_ADDR_INDEX)
            try respond(command, at: request.response, RDMA_CM_NODE_ADDR_SIZE) { bytes in
                writeDevice(view, bytes)
                writeGID(view.path?.local ?? view.local?.host, bytes, RDMA_CM_NODE_ADDR_SOURCE)
                writeGID(view.path?.remote ?? view.peer?.host, bytes, RDMA_CM_NODE_ADDR_DESTINATION)
                bytes.storeBytes(of: sockaddrIBSize, toByteOffset: RDMA_CM_NODE_ADDR_SOURCE_SIZE, as: UInt16.self)
                bytes.storeBytes(of: sockaddrIBSize, toByteOffset: RDMA_CM_NODE_ADDR_DESTINATION_SIZE, as: UInt16.self)
            }
        case RDMA_USER_CM_QUERY_PATH:
            let head = RDMA_CM_NODE_QUERY_PATH_DATA
            try command.requireRoom(head)
            let record = view.path == nil ? nil : view.device.map { ib_path_rec_data(view, $0) }
            let size = MemoryLayout<ib_path_rec_data>.size
            let hasRecord = record != nil && command.room >= head + size
            try respond(command, at: request.response, hasRecord ? head + size : head) { bytes in
                guard let record else { return }
                bytes.storeBytes(of: 1, as: UInt32.self)
                if hasRecord { bytes.storeBytes(of: record, toByteOffset: head, as: ib_path_rec_data.self) }
            }
        default: throw .noFunction
        }
    }

    /// Builds a response of `size` bytes, zero before `fill`, and writes it.
    private func respond(
        _ command: Command, at address: UInt64, _ size: Int, fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(Errno) {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
        defer { bytes.deallocate() }
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        fill(bytes)
        try command.respond(at: address, UnsafeRawBufferPointer(bytes))
    }

    /// The first fields of `struct rdma_ucm_query_addr_resp`.
    private func writeDevice(_ view: SoftwareView, _ bytes: UnsafeMutableRawBufferPointer) {
        bytes.storeBytes(of: noIndex, toByteOffset: RDMA_CM_NODE_ADDR_INDEX, as: UInt32.self)
        guard let device = view.device else { return }
        bytes.storeBytes(of: device.guid.bigEndian, as: UInt64.self)
        bytes[RDMA_CM_NODE_ADDR_PORT] = 1
        bytes.storeBytes(of: partitionKey.bigEndian, toByteOffset: RDMA_CM_NODE_ADDR_PKEY, as: UInt16.self)
    }

    /// Writes an address. Returns its size; 0 for none.
    @discardableResult
    private func write(_ address: SocketAddress?, _ bytes: UnsafeMutableRawBufferPointer, _ offset: Int) -> Int {
        guard let address else { return 0 }
        withUnsafeBytes(of: address.storage) { storage in
            UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + address.byteCount]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: storage[..<address.byteCount]))
        }
        return address.byteCount
    }

    /// Writes a GID as `struct sockaddr_ib`: family, P_Key, and the GID from byte 8.
    private func writeGID(_ gid: PortGID?, _ bytes: UnsafeMutableRawBufferPointer, _ offset: Int) {
        bytes.storeBytes(of: addressFamilyIB, toByteOffset: offset, as: UInt16.self)
        bytes.storeBytes(of: partitionKey.bigEndian, toByteOffset: offset + 2, as: UInt16.self)
        guard let gid else { return }
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset + 8..<offset + 24]).copyBytes(from: gid.bytes)
    }
}

/// AF_IB, which the C library does not have, and the size of its struct sockaddr_ib.
private let addressFamilyIB: UInt16 = 27
private let sockaddrIBSize: UInt16 = 48

// MARK: - Path records

extension ib_user_path_rec {
    fileprivate init(_ view: SoftwareView, _ device: SoftwareView.Device) {
        self.init()
        let gids = view.gids
        withUnsafeMutableBytes(of: &dgid) { $0.copyBytes(from: gids.remote.bytes) }
        withUnsafeMutableBytes(of: &sgid) { $0.copyBytes(from: gids.local.bytes) }
        pkey = partitionKey.bigEndian
        guard view.path != nil else { return }
        hop_limit = 64
        traffic_class = view.typeOfService
        reversible = 1
        (mtu_selector, rate_selector, packet_life_time_selector) = (2, 2, 2)
        // The rate of the port: 0.
        mtu = UInt32(device.mtu)
        packet_life_time = packetLifetime
    }
}

extension ib_path_rec_data {
    /// The record is that of the SA: IBTA volume 1, table 15.2.5.16, in network byte order.
    fileprivate init(_ view: SoftwareView, _ device: SoftwareView.Device) {
        self.init()
        flags = UInt32(IB_PATH_GMP) | UInt32(IB_PATH_PRIMARY) | UInt32(IB_PATH_BIDIRECTIONAL)
        let gids = view.gids
        withUnsafeMutableBytes(of: &path_rec) { bytes in
            UnsafeMutableRawBufferPointer(rebasing: bytes[8..<24]).copyBytes(from: gids.remote.bytes)
            UnsafeMutableRawBufferPointer(rebasing: bytes[24..<40]).copyBytes(from: gids.local.bytes)
            // Flow label and hop limit.
            bytes.storeBytes(of: UInt32(64).bigEndian, toByteOffset: 44, as: UInt32.self)
            bytes[48] = view.typeOfService
            // Reversible, one path.
            bytes[49] = 0x81
            bytes.storeBytes(of: partitionKey.bigEndian, toByteOffset: 50, as: UInt16.self)
            // Selectors: exactly.
            bytes[54] = 2 << 6 | device.mtu
            bytes[55] = 2 << 6
            bytes[56] = 2 << 6 | packetLifetime
        }
    }
}

/// 1 s, as the kernel assumes on RoCE (`CMA_IBOE_PACKET_LIFETIME`): 4.096 µs times 2 to this power.
private let packetLifetime: UInt8 = 18

extension SoftwareView {
    fileprivate var gids: (local: PortGID, remote: PortGID) {
        (path?.local ?? local?.host ?? .zero, path?.remote ?? peer?.host ?? .zero)
    }
}
