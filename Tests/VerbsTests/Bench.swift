import CProviderABI
import ProviderLoader
import SoftProvider
import TestSupport
import Verbs

/// The devices that the tests run on: `ctest0`, a loopback device that the loaded provider in C lists (Tests/CProvider), and `soft0`, RoCEv2 in
/// software on the loopback interface.
enum Bench {
    static let devices = ["ctest0", "soft0"]

    /// A loader that finds only the test devices, not those of this host.
    static let loader: ProviderLoader = try! makeLoader()

    // Keeps the driver file until the process exits.
    private nonisolated(unsafe) static var kept: [AnyObject] = []

    private static func makeLoader() throws -> ProviderLoader {
        let drivers = try TemporaryDirectory()
        try CTestProvider.writeDriverFile(in: drivers)
        kept = [drivers]
        var configuration = LoaderConfiguration()
        configuration.sysfsPath = "/nonexistent"
        configuration.environment["RDMA_DRIVER_PATH"] = drivers.path
        configuration.builtIn = [
            BuiltInProvider(name: "soft", entry: { SoftProvider.providerEntry(core: $0, why: $1) })
        ]
        return ProviderLoader(configuration: configuration)
    }

    /// Opens a test device.
    static func open(_ name: String = "ctest0") throws(VerbsError) -> Context {
        try Device.named(name, from: loader).open()
    }
}

/// Two connected queue pairs of one device, each with its own completion queue and memory region.
struct Pair: ~Copyable {
    var left: Side
    var right: Side

    struct Side: ~Copyable {
        let region: MemoryRegion
        var completions: CompletionQueue
        var queuePair: QueuePair

        init(_ context: Context, _ kind: QueuePairType, _ capabilities: QueuePair.Capabilities) throws(VerbsError) {
            let domain = try context.makeProtectionDomain()
            let region = try domain.makeMemoryRegion(
                byteCount: 4096, access: [.localWrite, .remoteWrite, .remoteRead, .remoteAtomic])
            let completions = try context.makeCompletionQueue(
                capacity: 256, channel: try context.makeCompletionChannel())
            queuePair = try domain.makeQueuePair(kind, completions: completions, capabilities: capabilities)
            self.completions = completions
            self.region = region
        }

        mutating func next() throws(VerbsError) -> WorkCompletion {
            try completions.poll(timeout: .seconds(300))
        }
    }

    init(
        _ context: Context, _ kind: QueuePairType = .reliableConnection,
        _ capabilities: QueuePair.Capabilities = .init()
    ) throws(VerbsError) {
        let left = try Side(context, kind, capabilities)
        let right = try Side(context, kind, capabilities)
        let (here, there) = (try left.queuePair.endpoint(), try right.queuePair.endpoint())
        if kind == .unreliableDatagram {
            try left.queuePair.activate()
            try right.queuePair.activate()
        } else {
            try left.queuePair.connect(to: there)
            try right.queuePair.connect(to: here)
        }
        self.left = left
        self.right = right
    }
}

/// The error that `body` throws.
func failure(_ body: () throws(VerbsError) -> Void) -> VerbsError? {
    do throws(VerbsError) {
        try body()
        return nil
    } catch { return error }
}

/// Sends the loopback device in C a command (Tests/CProvider/README.md): `[1, event]` raises an asynchronous event,
/// `[2, status]` sets the status of the next send.
func sendCommand(_ command: [UInt8], to side: borrowing Pair.Side) throws {
    let gid = GID(bytes: [0xff, 0x0e] + Array("ctest".utf8) + [UInt8](repeating: 0, count: 7) + command)!
    try side.queuePair.attach(to: MulticastGroup(gid: gid))
}
