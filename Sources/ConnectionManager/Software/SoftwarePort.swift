import CIBVerbs
import CMProtocol
import CSoftExtension
import Glibc
import SystemPackage
import Verbs

/// An open software device with its queue pair 1: the extension "soft-management" of rdma_soft.h.
final class SoftwarePort: Sendable {
    let context: Context
    /// The top byte of the communication IDs of the device.
    let number: UInt8
    /// The descriptor in which its messages arrive.
    let mailbox: Int32
    private nonisolated(unsafe) let functions: UnsafePointer<rdma_soft_management>

    /// Opens a device. Throws its errors; `EOPNOTSUPP` when its provider has no connection manager.
    init(_ device: Device) throws(VerbsError) {
        context = try device.open()
        guard
            let found = context.providerExtension("soft-management", version: UInt32(RDMA_SOFT_MANAGEMENT_VERSION))
        else {
            throw VerbsError(
                .openDevice, errno: .notSupported, object: VerbsObject("device", device: device.name),
                hint: "its provider has no connection manager: exchange endpoints with the module Rendezvous")
        }
        functions = found.assumingMemoryBound(to: rdma_soft_management.self)
        number = UInt8(truncatingIfNeeded: functions.pointee.device_number(context.unsafeRaw))
        mailbox = functions.pointee.open(context.unsafeRaw)
        if mailbox < 0 {
            throw VerbsError(
                .openDevice, errno: Errno(rawValue: Glibc.errno), object: VerbsObject("device", device: device.name))
        }
    }

    deinit { close(mailbox) }

    /// Opens the mailbox of a service. Returns a descriptor, or a negative errno value.
    func listen(_ serviceID: UInt64, at gid: GID?) -> Int32 {
        let mailbox = functions.pointee.listen(context.unsafeRaw, serviceID, gid?.bytes)
        return mailbox >= 0 ? mailbox : -Glibc.errno
    }

    /// Sends a message. Returns 0, or an errno value.
    func send(_ transmission: CMTransmission) -> Int32 {
        var way = rdma_soft_mad_way()
        withUnsafeMutableBytes(of: &way.source) { $0.copyBytes(from: GID(transmission.path.local).bytes) }
        withUnsafeMutableBytes(of: &way.destination) { $0.copyBytes(from: GID(transmission.path.remote).bytes) }
        return functions.pointee.send(context.unsafeRaw, &way, transmission.message.bytes)
    }

    /// The most datagrams that are received from a mailbox before others have their turn, and the lock is released.
    private static let mostDatagrams = 64

    /// Passes the messages in a mailbox to `body`, of at most `mostDatagrams` datagrams; those that are no message are
    /// skipped.
    func receive(from mailbox: Int32, _ body: (_ message: CMMessage, _ source: GID, _ destination: GID) -> Void) {
        var way = rdma_soft_mad_way()
        var bytes = [UInt8](repeating: 0, count: Int(RDMA_SOFT_MAD_SIZE))
        for _ in 0..<Self.mostDatagrams {
            let code = functions.pointee.receive(context.unsafeRaw, mailbox, &way, &bytes)
            if code == EMSGSIZE { continue }
            guard code == 0 else { return }
            guard let message = try? CMMessage(parsing: bytes),
                let source = withUnsafeBytes(of: way.source, { GID(bytes: $0) }),
                let destination = withUnsafeBytes(of: way.destination, { GID(bytes: $0) })
            else { continue }
            body(message, source, destination)
        }
    }

    /// A descriptor that is readable or reports POLLHUP when the process of the peer ends; a negative errno value for a
    /// peer on another host (`EHOSTUNREACH`), and for a process that has ended (`ECONNREFUSED`).
    func watch(_ gid: GID, _ communicationID: UInt32) -> Int32 {
        let watch = functions.pointee.watch(context.unsafeRaw, gid.bytes, communicationID)
        return watch >= 0 ? watch : -Glibc.errno
    }

    /// The entry of the GID table with that address.
    func entry(_ gid: GID) -> PortAddress? { (try? context.addresses())?.first { $0.gid == gid } }
}

extension GID {
    init(_ gid: PortGID) { self.init(prefix: gid.high, interfaceID: gid.low) }
}

extension PortGID {
    init(_ gid: GID) { self.init(high: gid.prefix, low: gid.interfaceID) }
}
