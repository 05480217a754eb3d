import CNetlink
import Glibc

/// The command of a request: `enum rdma_nldev_command` of <rdma/rdma_netlink.h>.
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

/// A netlink socket of libnl (`struct nl_sock`).
struct NetlinkSocket: ~Copyable {
    private let socket: OpaquePointer

    /// Opens a socket of this protocol (`NETLINK_…` of <linux/netlink.h>), and joins the multicast group. Throws the
    /// errno value.
    init(protocol number: Int32, group: Int32? = nil) throws(SocketFailure) {
        socket = try Self.open(number, group)
    }

    private static func open(_ number: Int32, _ group: Int32?) throws(SocketFailure) -> OpaquePointer {
        guard let socket = nl_socket_alloc() else { throw SocketFailure(errno: ENOMEM) }
        // libnl returns error numbers of its own; errno still has the system's.
        Glibc.errno = 0
        var code = nl_connect(socket, number)
        if code == 0, let group { code = nl_socket_add_membership(socket, group) }
        guard code == 0 else {
            let failure = SocketFailure(libnl: code, errno: Glibc.errno)
            nl_socket_free(socket)
            throw failure
        }
        // libnl's receive buffer of 32 KiB overflows when a host adds many devices, since the group has the uevents of
        // all subsystems. The kernel limits the size to net.core.rmem_max.
        if group != nil { nl_socket_set_buffer_size(socket, 1 << 20, 0) }
        // libnl reads a message of any size as a whole.
        nl_socket_enable_msg_peek(socket)
        return socket
    }

    deinit { nl_socket_free(socket) }

    /// The descriptor, which is readable when a message is queued.
    var descriptor: Int32 { nl_socket_get_fd(socket) }

    /// Sends a request, and returns its sequence number, which the response has too.
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

    /// Requests all network interfaces. The response messages have the format of the group's events.
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
        let code = nl_send_auto(socket, message)
        guard code >= 0 else { throw SocketFailure(libnl: code, errno: Glibc.errno) }
        return nlmsg_hdr(message)!.pointee.nlmsg_seq
    }

    /// The next datagram from the kernel; datagrams of other processes are ignored. Nil when none arrives within
    /// `patience` milliseconds.
    func receive(patience: Int32) throws(SocketFailure) -> [UInt8]? {
        while true {
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            let ready = poll(&waiting, 1, patience)
            if ready < 0, Glibc.errno == EINTR { continue }
            guard ready >= 0 else { throw SocketFailure(errno: Glibc.errno) }
            guard ready > 0 else { return nil }
            var sender = sockaddr_nl()
            var buffer: UnsafeMutablePointer<UInt8>?
            Glibc.errno = 0
            let count = nl_recv(socket, &sender, &buffer, nil)
            defer { free(buffer) }
            guard count >= 0 else { throw SocketFailure(libnl: count, errno: Glibc.errno) }
            guard count > 0, let buffer, sender.nl_pid == 0 else { continue }
            return Array(UnsafeBufferPointer(start: buffer, count: Int(count)))
        }
    }
}

/// The error of a failed call on a socket.
struct SocketFailure: Error {
    let errno: Int32

    init(errno: Int32) { self.errno = errno }

    /// The error of a libnl function: the errno value of the failed system call; if no system call has failed, ENOMEM
    /// for `-NLE_NOMEM` and EIO for the other numbers of <netlink/errno.h>.
    init(libnl code: Int32, errno: Int32) {
        self.errno = errno != 0 ? errno : code == -NLE_NOMEM ? ENOMEM : EIO
    }
}
