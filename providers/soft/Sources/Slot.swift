import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit

/// The slot of an open device, a number from 0 to 255. It is the top byte of the device's QPNs, so that (GID, QPN) is
/// unique on the host, and the destination QP of a packet names the device.
///
/// A device claims a slot by listening at an abstract AF_UNIX name (unix(7)) that contains the user ID and the number.
/// Such a name belongs to the network namespace, is in no file system, and ends with the process that binds it.
struct Slot: ~Copyable {
    /// The number of values of a byte.
    static let count = 256

    /// The number of the slot.
    let number: Int
    /// The socket that senders connect to; -1 where there is none: then no other process of this host can send to this
    /// one.
    let listener: Int32

    /// Claims a free slot. Where there is none, or AF_UNIX sockets are forbidden, it logs the error, and takes a random
    /// number that no process can connect to.
    init() {
        let start = Int(linux_random64() % UInt64(Self.count))
        // The search starts at a random slot, so that a released number is not reused at once.
        var error: Int32 = 0
        for offset in 0..<Self.count {
            let number = (start + offset) % Self.count
            let listener = Self.listen(number)
            if listener >= 0 {
                self.number = number
                self.listener = listener
                return
            }
            error = -listener
            if error != EADDRINUSE { break }
        }
        Self.warn(error)
        number = start
        listener = -1
    }

    deinit { if listener >= 0 { linux_close(listener) } }

    /// The abstract name of a slot.
    static func name(_ number: Int) -> InlineArray<64, CChar> {
        var name = InlineArray<64, CChar>(repeating: 0)
        withUnsafeMutableBytes(of: &name) { linux_slot_name(Int32(number), $0.baseAddress) }
        return name
    }

    /// Connects to the slot of another device. Returns a descriptor, or a negative errno value (`linux_local_connect`).
    static func connect(_ number: Int) -> Int32 {
        let name = name(number)
        return withUnsafeBytes(of: name) { linux_local_connect($0.baseAddress) }
    }

    private static func listen(_ number: Int) -> Int32 {
        let name = name(number)
        return withUnsafeBytes(of: name) { linux_local_listen($0.baseAddress) }
    }

    private static func warn(_ error: Int32) {
        if error == EADDRINUSE {
            var warning = MessageText("all 256 slots of user ")
            warning.append(Int(linux_effective_uid()))
            warning.append(
                " are taken on this host, so other processes of it may not reach this one: close devices, or see in")
            warning.append(" `ss -xlp` which processes hold the names swift-rdma-soft-*")
            warning.log(RDMA_LOG_WARNING)
            return
        }
        var warning = MessageText(
            "no AF_UNIX socket can be made, so other processes of this host may not reach this one: ")
        warning.append(error: error)
        if error == EAFNOSUPPORT {
            warning.append(
                "; a sandbox forbids it, such as RestrictAddressFamilies= of systemd, or the kernel lacks it")
        }
        warning.log(RDMA_LOG_WARNING)
    }
}
