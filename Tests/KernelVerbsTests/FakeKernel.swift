import CIBVerbs
import CKernelABI
import Glibc
import KernelVerbs
import Synchronization

/// A kernel that a test plays: it sees every command byte for byte, and answers what the test says.
final class FakeKernel: @unchecked Sendable {
    // Unchecked: a test uses its own from one thread.

    /// An ioctl, with the attributes behind its header.
    struct Call {
        struct Attribute {
            let id: UInt16
            let length: UInt16
            let flags: UInt16
            /// What lies in the attribute itself.
            let data: UInt64
            /// Where it lies, until the call returns.
            let place: UnsafeMutableRawPointer
        }

        let header: ib_uverbs_ioctl_hdr
        let attributes: [Attribute]

        var object: UInt32 { UInt32(header.object_id) }
        var method: UInt32 { UInt32(header.method_id) }

        func attribute(_ id: some BinaryInteger) -> Attribute? { attributes.first { $0.id == UInt16(id) } }

        /// The number of the command that goes with INVOKE_WRITE.
        var command: UInt64? {
            object == UVERBS_OBJECT_DEVICE.rawValue && method == UVERBS_METHOD_INVOKE_WRITE.rawValue
                ? attribute(UVERBS_ATTR_WRITE_CMD.rawValue)?.data : nil
        }
    }

    /// What a device asked when it was opened.
    private(set) var probe: Call?
    var calls: [Call] = []
    var writes: [[UInt8]] = []
    /// The bytes of all IN attributes of the last ioctl, by id, which are gone when it returns.
    var inputs: [UInt16: [UInt8]] = [:]
    var onCall: (Call) -> Int32 = { _ in 0 }
    /// Gets the command, and where its answer goes.
    var onWrite: ([UInt8], UnsafeMutableRawPointer?) -> Int32 = { _, _ in 0 }

    private static let all = Mutex<[Int32: FakeKernel]>([:])
    private let descriptor: Int32

    init() {
        descriptor = Self.all.withLock { all in
            // No open descriptor has such a number: closing it does no harm.
            let number = 0x4000_0000 + (all.keys.max().map { $0 - 0x4000_0000 + 1 } ?? 0)
            return number
        }
        Self.all.withLock { $0[descriptor] = self }
    }

    /// A device that is opened on this kernel. It probes; what it asks then is forgotten.
    func open(answering answer: Int32 = ENOSPC, driver: rdma_driver_id = RDMA_DRIVER_RXE) -> KernelDevice {
        onCall = { _ in answer }
        let device = KernelDevice(descriptor: descriptor, driver: driver, calls: Self.edge)
        probe = calls.first
        calls = []
        onCall = { _ in 0 }
        return device
    }

    private static let edge = SystemCalls(
        ioctl: { descriptor, request in
            let kernel = FakeKernel.all.withLock { $0[descriptor]! }
            let call = Call(reading: request!)
            kernel.calls.append(call)
            kernel.inputs = [:]
            for attribute in call.attributes where attribute.length > 0 {
                kernel.inputs[attribute.id] = attribute.bytes
            }
            return kernel.onCall(call)
        },
        write: { descriptor, bytes, count in
            let kernel = FakeKernel.all.withLock { $0[descriptor]! }
            let command = [UInt8](UnsafeRawBufferPointer(start: bytes, count: count))
            kernel.writes.append(command)
            let answer = command.count < 16 ? 0 : command.load(8, as: UInt64.self)
            return kernel.onWrite(command, UnsafeMutableRawPointer(bitPattern: UInt(answer)))
        })
}

extension FakeKernel.Call {
    init(reading request: UnsafeMutableRawPointer) {
        header = request.loadUnaligned(as: ib_uverbs_ioctl_hdr.self)
        attributes = (0..<Int(header.num_attrs)).map { index in
            let place = request + 24 + 16 * index
            return Attribute(
                id: place.load(as: UInt16.self), length: place.load(fromByteOffset: 2, as: UInt16.self),
                flags: place.load(fromByteOffset: 4, as: UInt16.self),
                data: place.load(fromByteOffset: 8, as: UInt64.self), place: place)
        }
    }
}

extension FakeKernel.Call.Attribute {
    /// As the kernel reads an input: up to 8 bytes from the attribute itself, else where it points.
    var bytes: [UInt8] {
        let source = length > 8 ? UnsafeMutableRawPointer(bitPattern: UInt(data))! : place + 8
        return [UInt8](UnsafeRawBufferPointer(start: source, count: Int(length)))
    }

    /// As the kernel answers a handle.
    func set(_ value: UInt64) { place.storeBytes(of: value, toByteOffset: 8, as: UInt64.self) }

    /// As the kernel answers a value: where the attribute points.
    func answer<Value: BitwiseCopyable>(_ value: Value) {
        UnsafeMutableRawPointer(bitPattern: UInt(data))!.storeBytes(of: value, as: Value.self)
    }
}

extension [UInt8] {
    /// A field of a command.
    func load<Value: BitwiseCopyable>(_ offset: Int, as type: Value.Type) -> Value {
        withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }
}
