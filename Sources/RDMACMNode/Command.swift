import CRDMACMNode
import Glibc
import SoftwareConnections
import SystemPackage

/// A command of /dev/infiniband/rdma_cm: what a program passes to write(2), a header (`struct rdma_ucm_cmd_hdr`) and the
/// struct of the command. Malformed commands are refused with the errno values of the kernel.
struct Command {
    let number: Int
    let body: UnsafeRawBufferPointer
    /// `rdma_ucm_cmd_hdr.in`: the length of the struct of the command.
    let length: Int
    /// `rdma_ucm_cmd_hdr.out`: the room for the response.
    let room: Int

    private static let headerByteCount = MemoryLayout<rdma_ucm_cmd_hdr>.size

    init(_ bytes: UnsafeRawBufferPointer) throws(Errno) {
        guard bytes.count >= Self.headerByteCount else { throw .invalidArgument }
        let header = bytes.loadUnaligned(as: rdma_ucm_cmd_hdr.self)
        (number, length, room) = (Int(header.cmd), Int(header.in), Int(header.out))
        guard number <= RDMA_USER_CM_CMD_JOIN_MCAST, length + Self.headerByteCount <= bytes.count else {
            throw .invalidArgument
        }
        body = UnsafeRawBufferPointer(rebasing: bytes[Self.headerByteCount...])
    }

    /// The struct of the command.
    func load<Value: BitwiseCopyable>(_ type: Value.Type) throws(Errno) -> Value {
        try require(MemoryLayout<Value>.size)
        return body.loadUnaligned(as: type)
    }

    /// A struct that programs know in an older, shorter version too, of `least` bytes; the rest is zero.
    func load<Value: BitwiseCopyable>(_ empty: Value, least: Int) throws(Errno) -> Value {
        guard length >= least else { throw .invalidArgument }
        var value = empty
        withUnsafeMutableBytes(of: &value) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: body[..<min(length, $0.count)]))
        }
        return value
    }

    func load<Value: BitwiseCopyable>(at offset: Int, as type: Value.Type) -> Value {
        body.loadUnaligned(fromByteOffset: offset, as: type)
    }

    /// Refuses a command that is shorter than its struct.
    func require(_ size: Int) throws(Errno) {
        guard body.count >= size else { throw .badAddress }
    }

    /// Refuses a command whose response has not the room.
    func requireRoom(_ size: Int) throws(Errno) {
        guard room >= size else { throw .noSpace }
    }

    /// The socket address at an offset. A `size` that the command states must be that of the address' family.
    func address(at offset: Int, _ byteCount: Int, size: UInt16? = nil) throws(Errno) -> SocketAddress {
        guard let address = SocketAddress(UnsafeRawBufferPointer(rebasing: body[offset..<offset + byteCount])) else {
            throw .invalidArgument
        }
        let family = load(at: offset, as: sa_family_t.self)
        let wanted =
            Int32(family) == AF_INET6 ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size
        if let size, Int(size) != wanted { throw .invalidArgument }
        return address
    }

    /// Refuses a command without an address for the response, before it has an effect.
    func requireResponse(at address: UInt64) throws(Errno) {
        guard address != 0 else { throw .badAddress }
    }

    /// Writes the response at the address that the command names, cut to its room.
    func respond(at address: UInt64, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
        guard let start = UnsafeMutableRawPointer(bitPattern: UInt(address)) else { throw .badAddress }
        let count = min(room, bytes.count)
        if count > 0 { start.copyMemory(from: bytes.baseAddress!, byteCount: count) }
    }

    func respond<Value>(at address: UInt64, _ value: Value) throws(Errno) {
        let result: Result<Void, Errno> = withUnsafeBytes(of: value) { bytes in
            do throws(Errno) { return .success(try respond(at: address, bytes)) } catch { return .failure(error) }
        }
        try result.get()
    }
}
