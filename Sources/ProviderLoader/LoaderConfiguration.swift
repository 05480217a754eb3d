import CIBVerbs
import CLinux
import CProviderABI
import CProviderCore
import Glibc

/// A provider that is linked into the program.
public struct BuiltInProvider: Sendable {
    /// `rdma_provider_entry_function` of rdma_provider.h.
    public typealias EntryPoint =
        @convention(c) (UnsafePointer<rdma_core>?, UnsafeMutablePointer<rdma_reason>?) -> UnsafePointer<rdma_provider>?

    /// Name (`rdma_provider.name`). A replacement has it in the `driver` line of its driver file.
    public let name: String
    /// The entry point, `rdma_provider_entry_<name>`. It is called once in a process.
    public let entry: EntryPoint

    /// The provider of that name, whose description `entry` returns.
    public init(name: String, entry: EntryPoint) {
        self.name = name
        self.entry = entry
    }
}

/// The directories, environment, identity and built-in providers of a `ProviderLoader`.
public struct LoaderConfiguration: Sendable {
    /// The override directory: its driver files rank before those of the main directory.
    public var overrideDirectory: String
    /// The main directory of driver files.
    public var mainDirectory: String
    /// The directory of libraries: a relative `library` line in a driver file of those two begins here.
    public var providerDirectory: String
    /// Path of sysfs. `SYSFS_PATH` of the environment takes precedence.
    public var sysfsPath: String
    /// The environment variables. The loader reads `RDMA_DRIVER_PATH`, `RDMA_PROVIDER`, `SYSFS_PATH` and `RDMA_LOG`.
    public var environment: [String: String]
    /// Whether the process runs with more privileges than its caller has (`AT_SECURE` of getauxval(3): set-user-ID,
    /// set-group-ID, file capabilities). The loader then ignores the environment, and files that root does not own.
    public var isPrivileged: Bool
    /// The user whose files are accepted besides root's.
    public var userID: UInt32
    /// The group of that user.
    public var groupID: UInt32
    /// The providers that are linked into the program, in rank order.
    public var builtIn: [BuiltInProvider]
    /// Returns the driver IDs (`enum rdma_driver_id`) by device name; called once for each snapshot. For a device that
    /// is missing in the result, its kernel driver and its name decide. Not called with `SYSFS_PATH`, which may
    /// describe other devices than the kernel's.
    public var driverIDs: @Sendable () -> [String: UInt32]
    /// Receives every message that a provider logs in this process (`rdma_core.log`), on the provider's thread. It must
    /// neither block nor call a loader.
    public var logHandler: (@Sendable (LogMessage) -> Void)?

    /// The directories and identity of this process with an empty environment and no built-in provider.
    public init() {
        let etc = String(cString: rdma_configuration_directory())
        overrideDirectory = etc + "/override.d"
        mainDirectory = etc
        providerDirectory = String(cString: rdma_provider_directory())
        sysfsPath = "/sys"
        environment = [:]
        isPrivileged = linux_is_privileged() != 0
        userID = geteuid()
        groupID = getegid()
        builtIn = []
        driverIDs = { [:] }
        logHandler = nil
    }

    /// The configuration for ordinary programs: the environment of the process, driver IDs from the kernel's netlink,
    /// and messages on standard error up to the level that `RDMA_LOG` names (`error`, `warning`, `info` or `debug`;
    /// without it nothing is printed).
    public static func standard(builtIn: [BuiltInProvider]) -> LoaderConfiguration {
        var configuration = LoaderConfiguration()
        configuration.builtIn = builtIn
        configuration.driverIDs = kernelDriverIDs
        for name in Setting.allCases {
            if let value = getenv(name.rawValue) {
                configuration.environment[name.rawValue] = String(cString: value)
            }
        }
        if let level = configuration.setting(.log).flatMap(LogMessage.Level.init(name:)) {
            configuration.logHandler = { message in
                if message.level <= level { message.writeToStandardError() }
            }
        }
        return configuration
    }

    /// The environment variables that the loader reads.
    enum Setting: String, CaseIterable {
        case driverPath = "RDMA_DRIVER_PATH"
        case provider = "RDMA_PROVIDER"
        case sysfsPath = "SYSFS_PATH"
        case log = "RDMA_LOG"
    }

    /// The value of a variable, unless it is empty or the process is privileged.
    func setting(_ name: Setting) -> String? {
        guard !isPrivileged, let value = environment[name.rawValue], !value.isEmpty else { return nil }
        return value
    }
}
