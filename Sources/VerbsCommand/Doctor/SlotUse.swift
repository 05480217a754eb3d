import CLinux
import Glibc

/// The number of this user's slots on this machine that are in use. Every open device of the provider soft holds one.
struct SlotUse: Sendable {
    static let count = 256

    /// Slots held by this user.
    var own = 0
    /// Slots held by sockets of other users that are bound to this user's socket names.
    var foreign = 0

    /// The current use on this machine.
    static func current() -> SlotUse {
        var use = SlotUse()
        for slot in 0..<CInt(count) {
            var name = [CChar](repeating: 0, count: 64)
            linux_slot_name(slot, &name)
            let listener = linux_local_listen(name)
            if listener >= 0 { close(listener) }
            guard listener == -EADDRINUSE else { continue }
            let connection = linux_local_connect(name)
            if connection >= 0 { close(connection) }
            if connection == -EPERM { use.foreign += 1 } else { use.own += 1 }
        }
        return use
    }

    /// The problems; empty if there is none.
    var findings: [Finding] {
        var findings: [Finding] = []
        if own + foreign == Self.count {
            findings.append(
                .error(
                    .system,
                    "all 256 slots of this user for soft devices are in use: processes of this machine may not reach each"
                        + " other",
                    try: "close devices, or end the processes that hold the slots: ss -xlp | grep swift-rdma-soft"))
        }
        if foreign > 0 {
            findings.append(
                .warning(
                    .system, "another user holds \(foreign) of this user's 256 slots for soft devices",
                    try:
                        "end the processes that hold the slots: ss -xlp | grep swift-rdma-soft; give a rootless container its"
                        + " own network namespace"))
        }
        return findings
    }
}
