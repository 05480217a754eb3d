import CIBVerbs
import CLinux
import CProviderABI
import Glibc

/// A provider that is linked into the program.
public struct BuiltInProvider: Sendable {
    /// `rdma_provider_entry_function` of rdma_provider.h.
    public typealias EntryPoint =
        @convention(c) (UnsafePointer<rdma_core>?, UnsafeMutablePointer<rdma_reason>?) -> UnsafePointer<rdma_provider>?

    /// Name: the `driver` line that a replacement of it has.
    public let name: String
    /// `rdma_provider_entry_<name>`. The loader calls it once in a process.
    public let entry: EntryPoint

    /// The provider `name`, which `entry` answers.
    public init(name: String, entry: EntryPoint) {
        self.name = name
        self.entry = entry
    }
}

/// Where the loader looks, and what it believes.
public struct LoaderConfiguration: Sendable {
    /// Directory of driver files that go before those of the main directory.
    public var overrideDirectory: String
    /// The main directory of driver files.
    public var mainDirectory: String
    /// Directory to which a relative `library` in those two refers, and in which the default one lies.
    public var providerDirectory: String
    /// Where sysfs is. An environment's `SYSFS_PATH` goes before it.
    public var sysfsPath: String
    /// The environment variables: `RDMA_DRIVER_PATH`, `RDMA_PROVIDER`, `SYSFS_PATH` and `RDMA_LOG` count.
    public var environment: [String: String]
    /// The process runs with more privileges than its caller has (`AT_SECURE` of getauxval(3): set-user-ID,
    /// set-group-ID, file capabilities). The environment is then ignored, and so are files that root does not own.
    public var isPrivileged: Bool
    /// User whose files count beside root's.
    public var userID: UInt32
    /// Group of that user.
    public var groupID: UInt32
    /// The providers that are linked into the program, in rank order.
    public var builtIn: [BuiltInProvider]
    /// The kernel's driver numbers (`enum rdma_driver_id`) by device name, asked once for each survey. Empty
    /// where nothing knows them; a device's PCI function, kernel driver and name then decide. Not asked where the
    /// environment's `SYSFS_PATH` shows other devices than the kernel's.
    public var driverIDs: @Sendable () -> [String: UInt32]
    /// Gets every message that a provider logs in this process, on the provider's thread. It must neither
    /// block nor call a loader.
    public var logHandler: (@Sendable (LogMessage) -> Void)?

    /// The directories and identity of this process with an empty environment and no built-in provider.
    public init() {
        let etc = RDMA_CONFIGURATION_DIRECTORY
        overrideDirectory = etc + "/override.d"
        mainDirectory = etc
        providerDirectory = RDMA_PROVIDER_DIRECTORY
        sysfsPath = "/sys"
        environment = [:]
        isPrivileged = linux_is_privileged() != 0
        userID = geteuid()
        groupID = getegid()
        builtIn = []
        driverIDs = { [:] }
        logHandler = nil
    }

    /// What a program wants: everything from the process, driver numbers from the kernel's netlink, and messages on
    /// standard error from the level on that `RDMA_LOG` names (`error`, `warning`, `info` or `debug`; without it nothing is printed).
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
