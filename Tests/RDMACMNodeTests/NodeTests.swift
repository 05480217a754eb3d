import CRDMACMNode
import Glibc
import ProviderLoader
import SystemPackage
import Testing

@testable import RDMACMNode
@testable import SoftwareConnections

/// A node without devices that open, and an open file of it.
private final class Program {
    let node: Node
    let descriptor: Int32

    /// - Parameter devices: The devices that are listed.
    /// - Parameter error: The error with which they do not open.
    init(devices: [DeviceDescription] = [], error: Errno = .noSuchAddressOrDevice) {
        node = Node(
            SoftwareService(
                SoftwareDevices(list: { (devices, []) }, open: { _ throws(Errno) in throw error })),
            report: { _ in })
        descriptor = node.open(flags: O_NONBLOCK)
    }

    deinit { node.close(descriptor) }

    /// Writes a command, whose response is `room` bytes. Returns the errno value.
    func write(_ number: Int, _ body: [UInt8], length: Int? = nil, room: Int = 0) -> Int32 {
        let header = rdma_ucm_cmd_hdr(cmd: UInt32(number), in: UInt16(length ?? body.count), out: UInt16(room))
        let bytes = withUnsafeBytes(of: header) { Array($0) } + body
        return bytes.withUnsafeBytes { node.write(descriptor, $0) }
    }

    func write<Request>(_ number: Int, _ request: Request, room: Int = 0) -> Int32 {
        write(number, withUnsafeBytes(of: request) { Array($0) }, room: room)
    }

    /// CREATE_ID. Returns the number of the identifier, or the errno value.
    func create(_ space: Int = 0x106) -> Result<UInt32, Errno> {
        var number: UInt32 = .max
        let code = withUnsafeMutablePointer(to: &number) { number in
            var request = rdma_ucm_create_id()
            (request.uid, request.ps) = (7, UInt16(space))
            request.response = UInt64(UInt(bitPattern: number))
            return write(RDMA_USER_CM_CMD_CREATE_ID, request, room: 4)
        }
        return code == 0 ? .success(number) : .failure(Errno(rawValue: code))
    }

    func destroy(_ number: UInt32) -> Int32 {
        var reported: UInt32 = .max
        return withUnsafeMutablePointer(to: &reported) { reported in
            var request = rdma_ucm_destroy_id()
            (request.id, request.response) = (number, UInt64(UInt(bitPattern: reported)))
            return write(RDMA_USER_CM_CMD_DESTROY_ID, request, room: 4)
        }
    }
}

@Suite("/dev/infiniband/rdma_cm")
struct NodeTests {
    @Test("an open file has a high number of the list of own descriptors, until it is closed")
    func ownDescriptors() {
        let program = Program()
        let number = UInt32(bitPattern: program.descriptor)
        #expect(program.descriptor >= 500)
        #expect(OwnDescriptors.first(from: number, through: number) == program.descriptor)
        #expect(OwnDescriptors.first(from: number, through: .max) == program.descriptor)
        #expect(OwnDescriptors.first(from: 0, through: number) >= 500)
        #expect(OwnDescriptors.first(from: 70000, through: .max) == -1)
        #expect(OwnDescriptors.first(from: number, through: number - 1) == -1)
    }

    @Test("a descriptor that is kept is closed once, and a number that is forgotten is not closed")
    func keptDescriptors() {
        #expect(OwnDescriptors.keep(-EMFILE) == -EMFILE)
        let given = open("/dev/null", O_RDONLY)
        let kept = OwnDescriptors.keep(given)
        #expect(kept >= 500)
        #expect(fcntl(kept, F_GETFD) == FD_CLOEXEC)
        #expect(OwnDescriptors.forget(kept))
        #expect(!OwnDescriptors.forget(kept))
        OwnDescriptors.close(kept)
        #expect(fcntl(kept, F_GETFD) == FD_CLOEXEC)
        close(kept)
    }

    @Test("Malformed commands are refused with the errno values of the kernel")
    func malformed() {
        let program = Program()
        #expect([UInt8]([1, 2, 3]).withUnsafeBytes { program.node.write(program.descriptor, $0) } == EINVAL)
        #expect(program.write(RDMA_USER_CM_CMD_JOIN_MCAST + 1, []) == EINVAL)
        #expect(program.write(RDMA_USER_CM_CMD_GET_OPTION, []) == ENOSYS)
        #expect(program.write(RDMA_USER_CM_CMD_LISTEN, [0, 0, 0, 0] as [UInt8]) == EFAULT)
        #expect(program.write(RDMA_USER_CM_CMD_LISTEN, [0, 0, 0, 0], length: 8) == EINVAL)
        #expect(program.write(RDMA_USER_CM_CMD_CREATE_ID, rdma_ucm_create_id(), room: 3) == ENOSPC)
        #expect(program.write(RDMA_USER_CM_CMD_CONNECT, rdma_ucm_connect()) == ENOENT)
        #expect(program.create(0x999) == .failure(.invalidArgument))
        #expect([UInt8](repeating: 0, count: 8).withUnsafeBytes { program.node.write(-1, $0) } == EBADF)
    }

    @Test("Numbers of identifiers are the smallest that are free, and belong to one descriptor")
    func numbers() {
        let program = Program()
        #expect(program.create() == .success(0) && program.create() == .success(1) && program.create() == .success(2))
        #expect(program.destroy(1) == 0 && program.destroy(1) == ENOENT)
        #expect(program.create() == .success(1) && program.create() == .success(3))
        let second = program.node.open(flags: 0)
        defer { program.node.close(second) }
        #expect(second >= 0 && fcntl(second, F_GETFL) & O_NONBLOCK == 0)
        let request = rdma_ucm_listen(id: 0, backlog: 1)
        let header = rdma_ucm_cmd_hdr(
            cmd: UInt32(RDMA_USER_CM_CMD_LISTEN), in: UInt16(MemoryLayout<rdma_ucm_listen>.size), out: 0)
        let bytes = withUnsafeBytes(of: header) { Array($0) } + withUnsafeBytes(of: request) { Array($0) }
        #expect(bytes.withUnsafeBytes { program.node.write(second, $0) } == EINVAL)
    }

    @Test("Without a device no address can be bound or resolved, and options are checked")
    func steps() throws {
        let program = Program()
        let number = try program.create().get()
        let address = SocketAddress(host: .init(low: 0xFFFF_7F00_0001), port: 9)
        var bind = rdma_ucm_bind()
        (bind.id, bind.addr_size) = (number, 16)
        var body = withUnsafeBytes(of: bind) { Array($0) }
        withUnsafeBytes(of: address.storage) { body.replaceSubrange(8..<24, with: $0[..<16]) }
        #expect(program.write(RDMA_USER_CM_CMD_BIND, body) == ENODEV)
        body[4] = 28
        #expect(program.write(RDMA_USER_CM_CMD_BIND, body) == EINVAL)
        // AF_IB.
        (body[4], body[8]) = (48, 27)
        #expect(program.write(RDMA_USER_CM_CMD_BIND, body) == EINVAL)
        #expect(
            program.write(RDMA_USER_CM_CMD_RESOLVE_ROUTE, rdma_ucm_resolve_route(id: number, timeout_ms: 1)) == EINVAL)
        #expect(program.write(RDMA_USER_CM_CMD_DISCONNECT, rdma_ucm_disconnect(id: number)) == EINVAL)
        var value: Int32 = 1
        withUnsafeMutablePointer(to: &value) { value in
            var option = rdma_ucm_set_option()
            (option.id, option.optval, option.optlen) = (number, UInt64(UInt(bitPattern: value)), 4)
            option.optname = UInt32(RDMA_UCM_OPTION_ID_AFONLY)
            #expect(program.write(RDMA_USER_CM_CMD_SET_OPTION, option) == 0)
            option.optname = UInt32(RDMA_UCM_OPTION_ID_TOS)
            #expect(program.write(RDMA_USER_CM_CMD_SET_OPTION, option) == EINVAL)
            option.optname = 77
            #expect(program.write(RDMA_USER_CM_CMD_SET_OPTION, option) == ENOSYS)
        }
        // No event waits.
        var event = rdma_ucm_event_resp()
        let code = withUnsafeMutablePointer(to: &event) {
            program.write(
                RDMA_USER_CM_CMD_GET_EVENT, rdma_ucm_get_event(response: UInt64(UInt(bitPattern: $0))),
                room: MemoryLayout<rdma_ucm_event_resp>.size)
        }
        #expect(code == EAGAIN)
    }

    @Test("The error of a device that does not open is that of the command")
    func device() throws {
        var device = DeviceDescription(name: "soft0", kind: .software)
        device.interfaceIndex = if_nametoindex("lo")
        let program = Program(devices: [device], error: .resourceTemporarilyUnavailable)
        var bind = rdma_ucm_bind()
        (bind.id, bind.addr_size) = (try program.create().get(), 16)
        var body = withUnsafeBytes(of: bind) { Array($0) }
        let address = SocketAddress(host: .init(low: 0xFFFF_7F00_0001), port: 9)
        withUnsafeBytes(of: address.storage) { body.replaceSubrange(8..<24, with: $0[..<16]) }
        #expect(program.write(RDMA_USER_CM_CMD_BIND, body) == EAGAIN)
    }

    @Test("A command without an address for its response has no effect")
    func responses() throws {
        let program = Program()
        var create = rdma_ucm_create_id()
        create.ps = 0x106
        #expect(program.write(RDMA_USER_CM_CMD_CREATE_ID, create, room: 4) == EFAULT)
        let number = try program.create().get()
        #expect(number == 0)
        var destroy = rdma_ucm_destroy_id()
        destroy.id = number
        #expect(program.write(RDMA_USER_CM_CMD_DESTROY_ID, destroy, room: 4) == EFAULT)
        var migrate = rdma_ucm_migrate_id()
        (migrate.id, migrate.fd) = (number, UInt32(program.descriptor))
        #expect(program.write(RDMA_USER_CM_CMD_MIGRATE_ID, migrate, room: 4) == EFAULT)
        #expect(program.destroy(number) == 0)
    }

    @Test("The count that the caller has read for a GET_EVENT that is refused is put back")
    func count() {
        let program = Program()
        var count: UInt64 = 0
        #expect(read(program.descriptor, &count, 8) == -1)
        // Too little room, and no address.
        #expect(program.write(RDMA_USER_CM_CMD_GET_EVENT, rdma_ucm_get_event(response: 8), room: 8) == ENOSPC)
        #expect(program.write(RDMA_USER_CM_CMD_GET_EVENT, rdma_ucm_get_event(response: 0), room: 400) == EFAULT)
        for _ in 0..<2 { #expect(read(program.descriptor, &count, 8) == 8 && count == 1) }
        #expect(read(program.descriptor, &count, 8) == -1)
    }
}
