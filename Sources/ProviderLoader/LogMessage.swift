import CProviderABI
import Glibc

/// One line that a provider has logged (`rdma_core.log` of rdma_provider.h).
public struct LogMessage: Sendable, Hashable, Codable {
    /// How much it matters; open, since a provider may be newer than this core.
    public struct Level: RawRepresentable, Sendable, Hashable, Codable, Comparable {
        /// `enum rdma_log_level`; lower is graver.
        public var rawValue: UInt32

        /// A level of `enum rdma_log_level`.
        public init(rawValue: UInt32) {
            self.rawValue = rawValue
        }

        /// Something that the user asked for failed.
        public static let error = Level(rawValue: RDMA_LOG_ERROR.rawValue)
        /// It works, but not as it should.
        public static let warning = Level(rawValue: RDMA_LOG_WARNING.rawValue)
        /// Worth knowing.
        public static let info = Level(rawValue: RDMA_LOG_INFO.rawValue)
        /// For the provider's author.
        public static let debug = Level(rawValue: RDMA_LOG_DEBUG.rawValue)

        /// The graver level is the lower one.
        public static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }

        private static let names = ["error", "warning", "info", "debug"]

        /// The level that `RDMA_LOG` calls by that name.
        init?(name: String) {
            guard let index = Level.names.firstIndex(of: name) else { return nil }
            self.init(rawValue: UInt32(index))
        }

        /// `error`, `warning`, `info`, `debug`, or the number.
        public var name: String {
            Level.names.indices.contains(Int(rawValue)) ? Level.names[Int(rawValue)] : String(rawValue)
        }
    }

    /// How much it matters.
    public var level: Level
    /// Name of the provider, or `loader`.
    public var provider: String
    /// What it says.
    public var text: String

    /// A message of `provider`.
    public init(level: Level, provider: String, text: String) {
        self.level = level
        self.provider = provider
        self.text = text
    }

    /// One write, so that lines of several threads do not mix.
    func writeToStandardError() {
        var line = "rdma: \(provider): \(level.name): \(text)\n"
        line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
