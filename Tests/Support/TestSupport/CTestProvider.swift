import Foundation

/// The provider in Tests/CProvider, written in C from rdma_provider.h alone, which lists the loopback device `ctest0`. Its multicast GIDs are commands to the device; see `Command`.
public enum CTestProvider {
    /// Path of the library. It is compiled once per process.
    /// - Throws: `Compiler.Failure`.
    public static func library() throws -> String { try built.get() }

    private static let built = Result { () throws -> String in
        // Not in the checkout, which may be writable by others: the loader would reject the library. A static value is
        // never released, so atexit removes the directory.
        _ = atexit { (try? directory.get())?.remove() }
        let library = try directory.get().path("ctest.so")
        try Compiler.run("/bin/sh", [Compiler.packageRoot + "/Tests/CProvider/build.sh", library])
        return library
    }

    private static let directory = Result { try TemporaryDirectory() }

    /// Writes a driver file `ctest.driver`, with `list-devices yes`: its library lists `ctest0`.
    /// - Parameters:
    ///   - directory: The directory for `RDMA_DRIVER_PATH` or for `LoaderConfiguration`.
    ///   - relative: A directory within it.
    ///   - lines: Further lines, such as `critical yes`.
    /// - Returns: path of the driver file.
    @discardableResult
    public static func writeDriverFile(
        in directory: TemporaryDirectory, _ relative: String = "", lines: [String] = []
    ) throws -> String {
        let standard = [
            "driver ctest", "library \(try library())", "version 1.0", "vendor swift-rdma tests", "provider-abi 0.9",
            "list-devices yes",
        ]
        let text = (standard + lines).map { $0 + "\n" }.joined()
        return try directory.write(text, to: relative.isEmpty ? "ctest.driver" : "\(relative)/ctest.driver")
    }

    /// A command to the device: the GID of a multicast group, executed when a queue pair joins the group.
    public enum Command: Sendable {
        /// Raise this asynchronous event (`enum ibv_event_type`) of the queue pair, its receive completion queue, its
        /// shared receive queue or the port. 8, `IBV_EVENT_DEVICE_FATAL`: the device is removed. Posted work requests
        /// are flushed, and all calls except destroy calls fail with EIO.
        case raise(event: UInt8)
        /// Complete the next send work request with this status (`enum ibv_wc_status`; not 0), also with a status that
        /// verbs.h does not define.
        case complete(status: UInt8)

        /// The 16 bytes of the GID, in network byte order.
        public var gid: [UInt8] {
            let prefix: [UInt8] = [0xff, 0x0e] + Array("ctest".utf8) + [UInt8](repeating: 0, count: 7)
            return switch self {
            case .raise(let event): prefix + [1, event]
            case .complete(let status): prefix + [2, status]
            }
        }
    }
}
