import CProviderABI
import Glibc

/// One message of a provider (`rdma_core.log` of rdma_provider.h).
public struct LogMessage: Sendable, Hashable, Codable {
    /// The level of a message (`enum rdma_log_level`). Unknown values are kept: a provider may be newer than this core.
    public struct Level: RawRepresentable, Sendable, Hashable, Codable, Comparable {
        /// The value of `enum rdma_log_level`. Lower values are more severe.
        public var rawValue: UInt32

        /// A level of `enum rdma_log_level`.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// A request of the user failed (`RDMA_LOG_ERROR`).
        public static let error = Level(rawValue: RDMA_LOG_ERROR.rawValue)
        /// The provider works with a restriction that the user should remove (`RDMA_LOG_WARNING`).
        public static let warning = Level(rawValue: RDMA_LOG_WARNING.rawValue)
        /// Information for the user (`RDMA_LOG_INFO`).
        public static let info = Level(rawValue: RDMA_LOG_INFO.rawValue)
        /// Information for the author of the provider (`RDMA_LOG_DEBUG`).
        public static let debug = Level(rawValue: RDMA_LOG_DEBUG.rawValue)

        /// The more severe level is the lower one.
        public static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }

        private static let names = ["error", "warning", "info", "debug"]

        /// The level that has that name in `RDMA_LOG`.
        init?(name: String) {
            guard let index = Level.names.firstIndex(of: name) else { return nil }
            self.init(rawValue: UInt32(index))
        }

        /// `error`, `warning`, `info`, `debug`, or the number.
        public var name: String {
            Level.names.indices.contains(Int(rawValue)) ? Level.names[Int(rawValue)] : String(rawValue)
        }
    }

    /// The level of `RDMA_LOG`, up to which `ProviderLoader.standard` prints messages on standard error; nil: it prints
    /// none.
    package static var printedLevel: Level? {
        LoaderConfiguration.standard(builtIn: []).setting(.log).flatMap(Level.init(name:))
    }

    /// Level.
    public var level: Level
    /// Name of the provider, or `loader`.
    public var provider: String
    /// Text of the message, one line.
    public var text: String

    /// A message of `provider`.
    public init(level: Level, provider: String, text: String) {
        self.level = level
        self.provider = provider
        self.text = text
    }

    /// Prints the message by one write(2), so that lines of several threads do not mix.
    func writeToStandardError() {
        var line = "rdma: \(provider): \(level.name): \(text)\n"
        line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
