import CIBVerbs
import CLinux
import CMProtocol
import CProviderABI
import CSoftExtension
import Glibc
import ProviderLoader
import SystemPackage

/// An open software device with its queue pair 1: the extension "soft-management" of rdma_soft.h.
package final class SoftwarePort: Sendable {
    let opened: OpenedDevice
    /// The top byte of the communication IDs of the device.
    package let number: UInt8
    /// The descriptor in which its messages arrive.
    let mailbox: Int32
    private nonisolated(unsafe) let functions: UnsafePointer<rdma_soft_management>

    /// Takes an open device, which it closes. Throws `EOPNOTSUPP` when its provider has no connection manager, and the
    /// error of its mailbox.
    init(_ opened: OpenedDevice) throws(Errno) {
        guard
            let found = opened.ops.pointee.query_extension?(
                opened.context, "soft-management", UInt32(RDMA_SOFT_MANAGEMENT_VERSION))
        else {
            _ = opened.close()
            throw .notSupported
        }
        linux_mark_process()
        self.opened = opened
        functions = found.assumingMemoryBound(to: rdma_soft_management.self)
        number = UInt8(truncatingIfNeeded: functions.pointee.device_number(opened.context))
        let given = functions.pointee.open(opened.context)
        mailbox = OwnDescriptors.keep(given < 0 ? -Glibc.errno : given)
        if mailbox < 0 {
            _ = opened.close()
            throw Errno(rawValue: -mailbox)
        }
    }

    deinit {
        if mailbox < 0 || linux_is_forked_child() { return }
        OwnDescriptors.close(mailbox)
        _ = opened.close()
    }

    /// The open device.
    var context: UnsafeMutablePointer<ibv_context> { opened.context }
    /// Node GUID in host byte order.
    var guid: UInt64 { opened.description.nodeGUID }

    /// Opens the mailbox of a service. Returns a descriptor, or a negative errno value.
    func listen(_ serviceID: UInt64, at gid: PortGID?) -> Int32 {
        let mailbox = functions.pointee.listen(context, serviceID, gid?.bytes)
        return OwnDescriptors.keep(mailbox >= 0 ? mailbox : -Glibc.errno)
    }

    /// Sends a message. Returns 0, or an errno value.
    func send(_ transmission: CMTransmission) -> Int32 {
        var way = rdma_soft_mad_way()
        withUnsafeMutableBytes(of: &way.source) { $0.copyBytes(from: transmission.path.local.bytes) }
        withUnsafeMutableBytes(of: &way.destination) { $0.copyBytes(from: transmission.path.remote.bytes) }
        return functions.pointee.send(context, &way, transmission.message.bytes)
    }

    /// The most datagrams that are received from a mailbox before others have their turn, and the lock is released.
    private static let mostDatagrams = 64

    /// Passes the messages in a mailbox to `body`, of at most `mostDatagrams` datagrams; those that are no message are
    /// skipped.
    func receive(
        from mailbox: Int32, _ body: (_ message: CMMessage, _ source: PortGID, _ destination: PortGID) -> Void
    ) {
        var way = rdma_soft_mad_way()
        var bytes = [UInt8](repeating: 0, count: Int(RDMA_SOFT_MAD_SIZE))
        for _ in 0..<Self.mostDatagrams {
            let code = functions.pointee.receive(context, mailbox, &way, &bytes)
            if code == EMSGSIZE { continue }
            guard code == 0 else { return }
            guard let message = try? CMMessage(parsing: bytes) else { continue }
            let source = withUnsafeBytes(of: way.source) { PortGID(bytes: $0) }
            let destination = withUnsafeBytes(of: way.destination) { PortGID(bytes: $0) }
            body(message, source, destination)
        }
    }

    /// A descriptor that is readable or reports POLLHUP when the process of the peer ends; a negative errno value for a
    /// peer on another host (`EHOSTUNREACH`), and for a process that has ended (`ECONNREFUSED`).
    func watch(_ gid: PortGID, _ communicationID: UInt32) -> Int32 {
        let watch = functions.pointee.watch(context, gid.bytes, communicationID)
        return watch >= 0 ? watch : -Glibc.errno
    }

    /// The index of the entry of the GID table with that address; nil where there is none.
    func index(of gid: PortGID) -> UInt8? {
        firstEntry { $0 == gid }.map { UInt8(clamping: $0.index) }
    }

    /// The first address in the GID table, one of the given family if there is one; nil when the table is empty.
    func firstAddress(isIPv4: Bool) -> PortGID? {
        (firstEntry { $0 != .zero && $0.isIPv4 == isIPv4 } ?? firstEntry { $0 != .zero })?.gid
    }

    private func firstEntry(where isWanted: (PortGID) -> Bool) -> (index: UInt32, gid: PortGID)? {
        guard let port = attributes else { return nil }
        for index in 0..<UInt32(clamping: port.gid_tbl_len) {
            var entry = ibv_gid_entry()
            let code = opened.ops.pointee.query_gid_ex?(
                context, 1, index, &entry, 0, MemoryLayout<ibv_gid_entry>.size)
            let gid = withUnsafeBytes(of: entry.gid) { PortGID(bytes: $0) }
            if code == 0 && isWanted(gid) { return (index, gid) }
        }
        return nil
    }

    /// The attributes of its only port; nil when the device does not return them.
    var attributes: ibv_port_attr? {
        var port = ibv_port_attr()
        let code = opened.ops.pointee.query_port?(context, 1, &port, MemoryLayout<ibv_port_attr>.size)
        return code == 0 ? port : nil
    }

    /// The most RDMA reads and atomics at a time of a queue pair, as responder and as initiator.
    var depthLimits: (responder: UInt8, initiator: UInt8) {
        var device = ibv_device_attr_ex()
        let code = opened.ops.pointee.query_device_ex?(
            context, nil, &device, MemoryLayout<ibv_device_attr_ex>.size)
        guard code == 0 else { return (0, 0) }
        return (
            UInt8(clamping: device.orig_attr.max_qp_rd_atom), UInt8(clamping: device.orig_attr.max_qp_init_rd_atom)
        )
    }
}
