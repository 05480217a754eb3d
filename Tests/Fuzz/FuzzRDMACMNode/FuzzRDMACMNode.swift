import CRDMACMNode
import Glibc
import SystemPackage

@testable import RDMACMNode
@testable import SoftwareConnections

/// Any commands of rdma_cm neither crash nor hang the node, which reads no byte behind the command and writes none behind the
/// response (checked by the address sanitizer).
///
/// The input is a list of commands: a byte that selects one, a byte with half the length of its struct, and the struct. The
/// addresses of responses and options are replaced by that of a buffer. All other fields are the input's.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzRDMACMNode(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start else { return 0 }
    let node = Node(service, report: { _ in })
    let descriptor = node.open(flags: O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { fatalError("the node does not open: \(descriptor)") }
    var position = 0
    while position + 2 <= count {
        let (number, length) = (Int(start[position]) % 25, min(Int(start[position + 1]) * 2, count - position - 2))
        write(number, UnsafeRawBufferPointer(start: start + position + 2, count: length), node, descriptor)
        position += 2 + length
    }
    node.close(descriptor)
    return 0
}

private let service = SoftwareService(
    SoftwareDevices(list: { ([], []) }, open: { _ throws(Errno) in throw .noSuchAddressOrDevice }))

private func write(_ number: Int, _ body: UnsafeRawBufferPointer, _ node: Node, _ descriptor: Int32) {
    let room = 400
    let response = UnsafeMutableRawBufferPointer.allocate(byteCount: room, alignment: 8)
    // Exactly as long as the command.
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 8 + body.count, alignment: 8)
    defer {
        response.deallocate()
        bytes.deallocate()
    }
    response.initializeMemory(as: UInt8.self, repeating: 1)
    bytes.storeBytes(of: UInt32(number), as: UInt32.self)
    bytes.storeBytes(of: UInt16(body.count), toByteOffset: 4, as: UInt16.self)
    bytes.storeBytes(of: UInt16(room), toByteOffset: 6, as: UInt16.self)
    UnsafeMutableRawBufferPointer(rebasing: bytes[8...]).copyMemory(from: body)
    if let offset = addressOffset(number), body.count >= offset + 8 {
        bytes.storeBytes(of: UInt(bitPattern: response.baseAddress), toByteOffset: 8 + offset, as: UInt.self)
    }
    if number == RDMA_USER_CM_CMD_SET_OPTION, let offset = MemoryLayout<rdma_ucm_set_option>.offset(of: \.optlen),
        body.count >= offset + 4
    {
        let length = bytes.loadUnaligned(fromByteOffset: 8 + offset, as: UInt32.self) % UInt32(room)
        bytes.storeBytes(of: length, toByteOffset: 8 + offset, as: UInt32.self)
    }
    _ = node.write(descriptor, UnsafeRawBufferPointer(bytes))
}

/// Where the struct of a command has the address of its response, or of an option; nil where it has none.
private func addressOffset(_ number: Int) -> Int? {
    switch number {
    case RDMA_USER_CM_CMD_CREATE_ID: MemoryLayout<rdma_ucm_create_id>.offset(of: \.response)
    case RDMA_USER_CM_CMD_DESTROY_ID, RDMA_USER_CM_CMD_LEAVE_MCAST:
        MemoryLayout<rdma_ucm_destroy_id>.offset(of: \.response)
    case RDMA_USER_CM_CMD_QUERY_ROUTE, RDMA_USER_CM_CMD_QUERY: MemoryLayout<rdma_ucm_query>.offset(of: \.response)
    case RDMA_USER_CM_CMD_INIT_QP_ATTR: MemoryLayout<rdma_ucm_init_qp_attr>.offset(of: \.response)
    case RDMA_USER_CM_CMD_GET_EVENT: MemoryLayout<rdma_ucm_get_event>.offset(of: \.response)
    case RDMA_USER_CM_CMD_SET_OPTION: MemoryLayout<rdma_ucm_set_option>.offset(of: \.optval)
    case RDMA_USER_CM_CMD_JOIN_IP_MCAST, RDMA_USER_CM_CMD_JOIN_MCAST: RDMA_CM_NODE_JOIN_RESPONSE
    case RDMA_USER_CM_CMD_MIGRATE_ID: MemoryLayout<rdma_ucm_migrate_id>.offset(of: \.response)
    default: nil
    }
}
