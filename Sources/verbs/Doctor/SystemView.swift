import FoundationEssentials
import Glibc
import ProviderLoader
import SystemPackage

/// The machine as `verbs doctor` sees it. The checks are functions of this value alone, so that a test can show
/// them a machine with any fault.
struct SystemView: Sendable {
    /// What stands before every path: empty for the real machine.
    var root = ""
    var userID: UInt32
    /// The bytes of memory that may be pinned (RLIMIT_MEMLOCK); nil: no limit.
    var lockableMemory: UInt64?
    /// Whether the limit does not hold for this process (CAP_IPC_LOCK).
    var ignoresMemoryLimit = false
    var environment: [String: String]
    /// Why a file cannot be opened for reading and writing; nil if it can.
    var accessError: @Sendable (_ path: String) -> Errno?
    /// Why a UDP port cannot be bound on the loopback address; nil if it can.
    var bindError: @Sendable (_ port: UInt16) -> Errno?
    /// Why a shared library does not load, in the linker's words; nil if it does.
    var loadError: @Sendable (_ library: String) -> String?
    /// Devices, candidates and problems, as the loader reports them.
    var survey: Survey
    /// Why the kernel's netlink has told nothing of RDMA; nil: it has.
    var kernelObstacle: ToolError?
    /// Whether every network namespace sees every device; nil where it is not known.
    var sharesDevices: Bool?
    /// What opening each device showed.
    var openings: [Opening]

    /// A device that was opened, or could not be.
    struct Opening: Sendable {
        /// Whom a port's GIDs can be told to.
        enum Reach {
            /// It has none.
            case nobody
            /// They are link-local ones.
            case link
            /// One of them at least is global, stands for an IPv4 address, or is of InfiniBand.
            case beyondLink
        }

        struct Port: Sendable {
            var number: UInt8
            var isActive: Bool
            /// Such as `down`.
            var state: String
            /// How far its GIDs are known.
            var reach = Reach.beyondLink
            /// In bytes; 0 where it is not known.
            var activeMTU: UInt64
            var maximumMTU: UInt64
        }

        var device: String
        /// Network interface under the device, where one is known.
        var interface: String?
        var ports: [Port]
        /// Why it could not be opened, and what to try.
        var failure: ToolError?
    }

    /// The text of a file, or nil.
    func text(of path: String) -> String? {
        guard let data = FileManager.default.contents(atPath: root + path) else { return nil }
        return String(decoding: data, as: UTF8.self)
    }

    /// The names in a directory, sorted; empty if there is none.
    func names(in directory: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: root + directory)) ?? []).sorted()
    }

    func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: root + path) }

    /// Where sysfs is: the loader heeds the same variable.
    var sysfs: String { environment["SYSFS_PATH"].flatMap { $0.isEmpty ? nil : $0 } ?? "/sys" }

    /// The kernel's RDMA devices.
    var kernelDevices: [String] { names(in: sysfs + "/class/infiniband") }
}

extension SystemView {
    /// This machine.
    static func current(survey: Survey, openings: [Opening], kernel: KernelView) -> SystemView {
        var limit = rlimit()
        let known = getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit) == 0
        return SystemView(
            userID: geteuid(),
            lockableMemory: known && limit.rlim_cur != rlim_t.max ? UInt64(limit.rlim_cur) : nil,
            ignoresMemoryLimit: hasCapability(14),  // CAP_IPC_LOCK of <linux/capability.h>
            environment: ProcessInfo.processInfo.environment,
            accessError: { path in access(path, R_OK | W_OK) == 0 ? nil : Errno(rawValue: errno) },
            bindError: tryToBind,
            loadError: { name in
                guard dlopen(name, RTLD_LAZY | RTLD_LOCAL) == nil else { return nil }
                return dlerror().map { String(cString: $0) } ?? "unknown reason"
            },
            survey: survey, kernelObstacle: kernel.obstacle.map { ToolError($0) },
            sharesDevices: kernel.system?.sharesDevices, openings: openings)
    }

    /// Whether the process has that capability in effect (`CapEff` of proc(5)).
    private static func hasCapability(_ number: UInt64) -> Bool {
        guard let status = FileManager.default.contents(atPath: "/proc/self/status") else { return false }
        for line in String(decoding: status, as: UTF8.self).split(separator: "\n") where line.hasPrefix("CapEff:") {
            let mask = UInt64(line.dropFirst(7).trimmingPrefix { $0.isWhitespace }, radix: 16) ?? 0
            return mask >> number & 1 == 1
        }
        return false
    }

    /// Binds as the software device does: shared with whoever of the same user shares it too.
    private static func tryToBind(port: UInt16) -> Errno? {
        let descriptor = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
        guard descriptor >= 0 else { return Errno(rawValue: errno) }
        defer { close(descriptor) }
        var shares: CInt = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &shares, socklen_t(MemoryLayout<CInt>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return result == 0 ? nil : Errno(rawValue: errno)
    }
}
