import CLinux
import FoundationEssentials
import Glibc
import ProviderLoader
import SystemPackage
import Verbs

/// The state of the machine that `verbs doctor` checks. The checks depend on this value alone, so that tests can
/// simulate any problem.
struct SystemView: Sendable {
    /// Prefix of every path: empty for the real machine.
    var root = ""
    var userID: UInt32
    /// The limit of pinned memory in bytes (RLIMIT_MEMLOCK); nil: no limit.
    var lockableMemory: UInt64?
    /// Whether this process is exempt from the limit (CAP_IPC_LOCK).
    var ignoresMemoryLimit = false
    var environment: [String: String]
    /// The error of opening a file for reading and writing; nil if it can be opened.
    var accessError: @Sendable (_ path: String) -> Errno?
    /// The error of binding a UDP port on the loopback address; nil if it can be bound.
    var bindError: @Sendable (_ port: UInt16) -> Errno?
    /// The dynamic linker's error when it loads a shared library; nil if the library loads.
    var loadError: @Sendable (_ library: String) -> String?
    /// The devices, candidates and problems that the loader reports.
    var survey: Survey
    /// The error of querying RDMA devices over netlink; nil: it succeeded.
    var kernelProblem: ToolError?
    /// Whether every network namespace sees every device (`rdma system show`: netns shared); nil: not known.
    var sharesDevices: Bool?
    /// Whether the kernel copies registered memory for a child of fork(2), or has no RDMA subsystem.
    var copiesOnFork = true
    /// The result of opening each device.
    var openings: [Opening]
    /// Network interfaces that have a software device which is opened on request only.
    var interfacesOnRequest: [String] = []
    /// The system calls and resources that every device needs.
    var probes: [SystemProbe] = []
    /// The slots of soft devices that are in use.
    var slots = SlotUse()
    /// The number of file descriptors that can still be opened; nil: there are enough.
    var freeDescriptors: Int?

    /// The result of opening a device.
    struct Opening: Sendable {
        /// The scope of a port's GIDs.
        enum Reach {
            /// The port has no GID.
            case noGID
            /// Every GID is link-local.
            case linkLocal
            /// The interface of an iWARP device has no routable IP address.
            case noAddress
            /// At least one GID is global, maps an IPv4 address, or belongs to an InfiniBand port.
            case routable
        }

        struct Port: Sendable {
            var number: UInt8
            var isActive: Bool
            /// The port state, such as `down`.
            var state: String
            /// The scope of its GIDs.
            var reach = Reach.routable
            /// In bytes; 0: not known.
            var activeMTU: UInt64
            /// In bytes.
            var maximumMTU: UInt64
        }

        var device: String
        /// Network interface of the device; nil: not known.
        var interface: String?
        /// Whether it is an iWARP device, to which GIDs and the path MTU mean nothing.
        var isIWARP = false
        var ports: [Port]
        /// The error if it could not be opened.
        var failure: ToolError?
    }

    /// The contents of a file; nil if it cannot be read.
    func text(of path: String) -> String? {
        guard let data = FileManager.default.contents(atPath: root + path) else { return nil }
        return String(decoding: data, as: UTF8.self)
    }

    /// The sorted names in a directory; empty if it does not exist.
    func names(in directory: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: root + directory)) ?? []).sorted()
    }

    func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: root + path) }

    /// Path of sysfs: `SYSFS_PATH`, which the loader honors too, or /sys.
    var sysfs: String { environment["SYSFS_PATH"].flatMap { $0.isEmpty ? nil : $0 } ?? "/sys" }

    /// The kernel's RDMA devices.
    var kernelDevices: [String] { names(in: sysfs + "/class/infiniband") }
}

extension SystemView {
    /// The state of this machine.
    static func current(
        survey: Survey, openings: [Opening], onRequest: [Device], kernel: KernelView
    ) -> SystemView {
        var limit = rlimit()
        let known = getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit) == 0
        return SystemView(
            userID: geteuid(),
            lockableMemory: known && limit.rlim_cur != rlim_t.max ? UInt64(limit.rlim_cur) : nil,
            ignoresMemoryLimit: linux_memlock_limit() == .max,
            environment: ProcessInfo.processInfo.environment,
            accessError: { path in access(path, R_OK | W_OK) == 0 ? nil : Errno(rawValue: errno) },
            bindError: tryToBind,
            loadError: { name in
                guard dlopen(name, RTLD_LAZY | RTLD_LOCAL) == nil else { return nil }
                return dlerror().map { String(cString: $0) } ?? "unknown error"
            },
            survey: survey, kernelProblem: kernel.error.map { ToolError($0) },
            sharesDevices: kernel.system?.sharesDevices,
            copiesOnFork: kernel.system.map { $0.copiesOnFork ?? false } ?? true, openings: openings,
            interfacesOnRequest: onRequest.compactMap(\.details.networkInterface), probes: SystemProbe.all(),
            slots: SlotUse.current(), freeDescriptors: SystemProbe.freeDescriptors())
    }

    /// Binds the port as the software device does: with SO_REUSEPORT, shared with other sockets of the user that set
    /// it.
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
