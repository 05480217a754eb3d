import CNetlink
import Glibc

/// What is asked for: `enum rdma_nldev_command` of <rdma/rdma_netlink.h>.
struct RDMACommand {
    let rawValue: UInt32
    private init(_ command: rdma_nldev_command) { rawValue = command.rawValue }

    static let devices = Self(RDMA_NLDEV_CMD_GET)
    static let links = Self(RDMA_NLDEV_CMD_PORT_GET)
    static let system = Self(RDMA_NLDEV_CMD_SYS_GET)
    static let characterDevice = Self(RDMA_NLDEV_CMD_GET_CHARDEV)
    static let summary = Self(RDMA_NLDEV_CMD_RES_GET)
    static let queuePairs = Self(RDMA_NLDEV_CMD_RES_QP_GET)
    static let connections = Self(RDMA_NLDEV_CMD_RES_CM_ID_GET)
    static let completionQueues = Self(RDMA_NLDEV_CMD_RES_CQ_GET)
    static let memoryRegions = Self(RDMA_NLDEV_CMD_RES_MR_GET)
    static let protectionDomains = Self(RDMA_NLDEV_CMD_RES_PD_GET)
    static let contexts = Self(RDMA_NLDEV_CMD_RES_CTX_GET)
    static let sharedReceiveQueues = Self(RDMA_NLDEV_CMD_RES_SRQ_GET)
    static let counters = Self(RDMA_NLDEV_CMD_STAT_GET)

    /// Type of the message.
    var messageType: UInt16 { UInt16(truncatingIfNeeded: UInt32(RDMA_NL_NLDEV) << 10 | rawValue) }
}

/// A netlink socket of libnl's.
struct NetlinkSocket: ~Copyable {
    private let socket: OpaquePointer

    /// Opens a socket of that protocol (`NETLINK_…` of <linux/netlink.h>) that hears that group; throws the errno value.
    init(protocol number: Int32, group: Int32? = nil) throws(SocketFailure) {
        socket = try Self.open(number, group)
    }

    private static func open(_ number: Int32, _ group: Int32?) throws(SocketFailure) -> OpaquePointer {
        guard let socket = nl_socket_alloc() else { throw SocketFailure(errno: ENOMEM) }
        // libnl answers numbers of its own; the system's is still in errno.
        Glibc.errno = 0
        guard nl_connect(socket, number) == 0, group.map({ nl_socket_add_membership(socket, $0) }) ?? 0 == 0 else {
            let failure = SocketFailure(errno: Glibc.errno)
            nl_socket_free(socket)
            throw failure
        }
        // libnl has 32 KiB, which a host that starts many things overruns: the kernel tells of all its objects. As much as
        // it allows is enough.
        if group != nil { nl_socket_set_buffer_size(socket, 1 << 20, 0) }
        // A message of any size comes whole.
        nl_socket_enable_msg_peek(socket)
        return socket
    }

    deinit { nl_socket_free(socket) }

    /// Readable when a message waits.
    var descriptor: Int32 { nl_socket_get_fd(socket) }

    /// Sends a request; the answers have the sequence number that it returns.
    func send(type: UInt16, flags: Int32, payload: [(type: Int32, value: [UInt8])]) throws(SocketFailure) -> UInt32 {
        guard let message = nlmsg_alloc_simple(Int32(type), NLM_F_REQUEST | flags) else {
            throw SocketFailure(errno: ENOMEM)
        }
        defer { nlmsg_free(message) }
        for (type, value) in payload where nla_put(message, type, Int32(value.count), value) != 0 {
            throw SocketFailure(errno: EMSGSIZE)
        }
        return try send(message)
    }

    /// Asks for all network interfaces: the answers are like the events of the group.
    func requestInterfaces() throws(SocketFailure) {
        guard let message = nlmsg_alloc_simple(Int32(RTM_GETLINK), NLM_F_REQUEST | Int32(NLM_F_DUMP)) else {
            throw SocketFailure(errno: ENOMEM)
        }
        defer { nlmsg_free(message) }
        var header = ifinfomsg()
        nlmsg_append(message, &header, MemoryLayout<ifinfomsg>.size, Int32(NLMSG_ALIGNTO))
        _ = try send(message)
    }

    private func send(_ message: OpaquePointer) throws(SocketFailure) -> UInt32 {
        nl_socket_disable_auto_ack(socket)
        Glibc.errno = 0
        guard nl_send_auto(socket, message) >= 0 else { throw SocketFailure(errno: Glibc.errno) }
        return nlmsg_hdr(message)!.pointee.nlmsg_seq
    }

    /// The next datagram from the kernel; what other processes send is passed over. nil when none has come within
    /// `patience` milliseconds.
    func receive(patience: Int32) throws(SocketFailure) -> [UInt8]? {
        while true {
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = poll(&waiting, 1, patience)
            if ready < 0, Glibc.errno == EINTR { continue }
            guard ready > 0 else { return nil }
            var sender = sockaddr_nl()
            var buffer: UnsafeMutablePointer<UInt8>?
            Glibc.errno = 0
            let count = nl_recv(socket, &sender, &buffer, nil)
            defer { free(buffer) }
            guard count >= 0 else { throw SocketFailure(errno: Glibc.errno) }
            guard count > 0, let buffer, sender.nl_pid == 0 else { continue }
            return Array(UnsafeBufferPointer(start: buffer, count: Int(count)))
        }
    }
}

/// A call on a socket that failed.
struct SocketFailure: Error {
    let errno: Int32
}
