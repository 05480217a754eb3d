import CIBVerbs
import CKernelABI
import CSimulator
import CSimulatorABI
import Glibc
import KernelVerbs
import Simulator
import Testing

/// A provider, correct or faulty, that a test controls: it sends commands to a simulated device in this process,
/// through KernelVerbs or byte by byte.
final class Driver {
    let device: Int32
    let descriptor: Int32
    let kernel: KernelDevice
    private(set) var async: Int32 = -1

    /// Creates and opens a device.
    init(_ description: String) throws {
        device = uverbs_sim_create(description)
        try #require(device >= 0)
        descriptor = sim_open(device)
        try #require(descriptor >= 0)
        kernel = KernelDevice(
            descriptor: descriptor, driver: Driver.identifier(description),
            calls: SystemCalls(
                ioctl: { sim_ioctl($0, 0xC018_1B01, $1) }, write: { sim_write($0, $1, $2) }))
        // `KernelDevice.init` probes with a command without room for its response, which is refused.
        uverbs_sim_forgive(device)
    }

    deinit {
        sim_close_events(descriptor)
        sim_close(descriptor)
    }

    private static func identifier(_ description: String) -> rdma_driver_id {
        switch description.prefix(4) {
        case "hfi1": RDMA_DRIVER_HFI1
        case "mlx5": RDMA_DRIVER_MLX5
        default: RDMA_DRIVER_CXGB4
        }
    }

    /// The reason of the last refusal.
    var refusal: String { String(cString: uverbs_sim_refusal(device)) }

    /// Expects that `body` fails with an errno value, and that the reason contains `why`.
    func expectRefusal(
        _ error: Int32, _ why: String, sourceLocation: SourceLocation = #_sourceLocation,
        _ body: () throws -> Void
    ) {
        uverbs_sim_forgive(device)
        #expect(sourceLocation: sourceLocation) {
            try body()
        } throws: {
            ($0 as? KernelError)?.rawValue == error
        }
        #expect(refusal.contains(why), "\(refusal)", sourceLocation: sourceLocation)
    }

    // MARK: - Bytes

    /// Writes a command: header, struct, driver data. Returns the errno value.
    func write(
        _ command: UInt32, words: Int? = nil, _ body: [UInt8], answer: UnsafeMutableRawBufferPointer? = nil,
        answerWords: Int? = nil
    ) -> Int32 {
        var bytes: [UInt8] = []
        bytes.append(command)
        bytes.append(UInt16(words ?? (8 + body.count) / 4))
        bytes.append(UInt16(answerWords ?? (answer?.count ?? 0) / 4))
        bytes += body
        return bytes.withUnsafeBytes { sim_write(descriptor, $0.baseAddress, $0.count) }
    }

    /// Calls the simulator's mmap(2). Returns the errno value.
    func map(_ offset: UInt64, _ length: Int, private isPrivate: Bool = false) -> Int32 {
        var mapping = sim_mapping()
        return sim_mmap(
            descriptor, length, PROT_READ | PROT_WRITE, isPrivate ? MAP_PRIVATE : MAP_SHARED, offset, &mapping)
    }
}

extension [UInt8] {
    /// Appends the bytes of a value.
    mutating func append<Value: BitwiseCopyable>(_ value: Value) {
        Swift.withUnsafeBytes(of: value) { self.append(contentsOf: $0) }
    }
}
