import CIBVerbs
import CKernelABI
import CLinux
import Glibc
import KernelVerbs
import Synchronization

/// A kernel that a test plays: it sees every command byte for byte, and answers what the test says.
public final class FakeKernel: @unchecked Sendable {
    // Unchecked: a test uses its own from one thread.

    /// An ioctl, with the attributes behind its header.
    public struct Call {
        public struct Attribute {
            public let id: UInt16
            public let length: UInt16
            public let flags: UInt16
            /// What lies in the attribute itself.
            public let data: UInt64
            /// Where it lies, until the call returns.
            public let place: UnsafeMutableRawPointer
        }

        public let header: ib_uverbs_ioctl_hdr
        public let attributes: [Attribute]

        public var object: UInt32 { UInt32(header.object_id) }
        public var method: UInt32 { UInt32(header.method_id) }

        public func attribute(_ id: some BinaryInteger) -> Attribute? { attributes.first { $0.id == UInt16(id) } }

        /// The number of the command that goes with INVOKE_WRITE.
        public var command: UInt64? {
            object == UVERBS_OBJECT_DEVICE.rawValue && method == UVERBS_METHOD_INVOKE_WRITE.rawValue
                ? attribute(UVERBS_ATTR_WRITE_CMD.rawValue)?.data : nil
        }
    }

    /// What a device asked when it was opened.
    public private(set) var probe: Call?
    public var calls: [Call] = []
    public var writes: [[UInt8]] = []
    /// The bytes of all IN attributes of the last ioctl, by id, which are gone when it returns.
    public var inputs: [UInt16: [UInt8]] = [:]
    public var onCall: (Call) -> Int32 = { _ in 0 }
    /// Gets the command, and where its answer goes.
    public var onWrite: ([UInt8], UnsafeMutableRawPointer?) -> Int32 = { _, _ in 0 }

    private static let all = Mutex<[Int32: FakeKernel]>([:])
    /// Of the uverbs node. One that is no open descriptor: closing it does no harm, and mapping it is EBADF.
    public let descriptor: Int32

    /// A kernel that is asked by the devices that `open` opens.
    /// - Parameter byteCount: of the memory that can be mapped from the node; the device that is opened closes the node.
    public init(mapping byteCount: Int = 0) {
        descriptor =
            byteCount > 0 ? memfd(byteCount) : Self.all.withLock { max(0x4000_0000, ($0.keys.max() ?? 0) + 1) }
        Self.all.withLock { $0[descriptor] = self }
    }

    /// A device that is opened on this kernel. It probes; what it asks then is forgotten.
    public func open(answering answer: Int32 = ENOSPC, driver: rdma_driver_id = RDMA_DRIVER_RXE) -> KernelDevice {
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
    public var bytes: [UInt8] {
        let source = length > 8 ? UnsafeMutableRawPointer(bitPattern: UInt(data))! : place + 8
        return [UInt8](UnsafeRawBufferPointer(start: source, count: Int(length)))
    }

    /// As the kernel answers a handle.
    public func set(_ value: UInt64) { place.storeBytes(of: value, toByteOffset: 8, as: UInt64.self) }

    /// As the kernel answers a value: where the attribute points.
    public func answer<Value: BitwiseCopyable>(_ value: Value) {
        UnsafeMutableRawPointer(bitPattern: UInt(data))!.storeBytes(of: value, as: Value.self)
    }
}

extension [UInt8] {
    /// A field of a command.
    public func load<Value: BitwiseCopyable>(_ offset: Int, as type: Value.Type) -> Value {
        withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }
}

/// A nameless file of zeros.
private func memfd(_ byteCount: Int) -> Int32 {
    let descriptor = linux_memory_file("uverbs")
    precondition(descriptor >= 0 && linux_resize_file(descriptor, UInt64(byteCount)) == 0)
    return descriptor
}
