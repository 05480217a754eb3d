import Foundation

/// The provider in Tests/CProvider, written in C from rdma_provider.h alone: a loopback device whose names begin with
/// `ctest`.
///
/// Its multicast groups are orders to the device; see `Order`.
public enum CTestProvider {
    /// Path of the library. It is compiled once in a process.
    /// - Throws: `Compiler.Failure`.
    public static func library() throws -> String { try built.get() }

    private static let built = Result { () throws -> String in
        // Not below the checkout: the loader refuses what lies where others may write, and that is nobody's choice
        // in a shared one. What is static outlives every test, so the process itself removes it.
        _ = atexit { (try? directory.get())?.remove() }
        let library = try directory.get().path("ctest.so")
        try Compiler.run("/bin/sh", [Compiler.packageRoot + "/Tests/CProvider/build.sh", library])
        return library
    }

    private static let directory = Result { try TemporaryDirectory() }

    /// Writes a driver file `ctest.driver` that matches every `ctest*` device.
    /// - Parameters:
    ///   - directory: where; for `RDMA_DRIVER_PATH` or a directory of `LoaderConfiguration`.
    ///   - relative: a directory within it.
    ///   - lines: further lines, such as `critical yes`.
    /// - Returns: path of the driver file.
    @discardableResult
    public static func writeDriverFile(
        in directory: TemporaryDirectory, _ relative: String = "", lines: [String] = []
    ) throws -> String {
        let standard = [
            "driver ctest", "library \(try library())", "version 1.0", "vendor swift-rdma tests", "provider-abi 0.1",
            "match name ctest*",
        ]
        let text = (standard + lines).map { $0 + "\n" }.joined()
        return try directory.write(text, to: relative.isEmpty ? "ctest.driver" : "\(relative)/ctest.driver")
    }

    /// An order to the device: the GID of a multicast group. A queue pair that joins it gives the order.
    public enum Order: Sendable {
        /// Raise the asynchronous event of that number (`enum ibv_event_type`) about the queue pair, its receive
        /// completion queue, its shared receive queue or the port. 8, `IBV_EVENT_DEVICE_FATAL`: the device
        /// vanishes. What was posted is flushed, and all calls but the destroying ones answer EIO.
        case raise(event: UInt8)
        /// Complete the next send request with that status (`enum ibv_wc_status`; not 0), even one that verbs.h
        /// does not know.
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
