import CRDMACMNode
import Glibc
import SystemPackage

@testable import RDMACMNode
@testable import SoftwareConnections

/// Any commands of rdma_cm neither crash nor hang the node, which reads no byte behind the command and writes none behind the
/// response (checked by the address sanitizer).
///
/// The input is a list of commands: a byte that selects one, a byte with half the length of its struct, and the struct. The
/// addresses of responses and options are replaced by that of a buffer.
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
    close(descriptor)
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
    let offset = number == RDMA_USER_CM_CMD_CREATE_ID ? 8 : 0
    if body.count >= offset + 8 {
        bytes.storeBytes(of: UInt(bitPattern: response.baseAddress), toByteOffset: 8 + offset, as: UInt.self)
    }
    if number == RDMA_USER_CM_CMD_SET_OPTION && body.count >= 24 {
        let length = bytes.loadUnaligned(fromByteOffset: 28, as: UInt32.self) % UInt32(room)
        bytes.storeBytes(of: length, toByteOffset: 28, as: UInt32.self)
    }
    _ = node.write(descriptor, UnsafeRawBufferPointer(bytes))
}
