import CIBVerbs
import CKernelABI
import CLinux
import Glibc
import KernelVerbs
import Synchronization

/// A fake kernel: records the bytes of every uverbs command, and returns the result that the test sets.
public final class FakeKernel: @unchecked Sendable {
    // Unchecked: each test uses its own instance from one thread.

    /// An ioctl, with the attributes after its header.
    public struct Call {
        public struct Attribute {
            public let id: UInt16
            public let length: UInt16
            public let flags: UInt16
            /// `ib_uverbs_attr.data`: an inline value, or the address of the value.
            public let data: UInt64
            /// The address of the `ib_uverbs_attr`, valid until the call returns.
            public let address: UnsafeMutableRawPointer
        }

        public let header: ib_uverbs_ioctl_hdr
        public let attributes: [Attribute]

        public var object: UInt32 { UInt32(header.object_id) }
        public var method: UInt32 { UInt32(header.method_id) }

        public func attribute(_ id: some BinaryInteger) -> Attribute? { attributes.first { $0.id == UInt16(id) } }

        /// The command number of INVOKE_WRITE.
        public var command: UInt64? {
            object == UVERBS_OBJECT_DEVICE.rawValue && method == UVERBS_METHOD_INVOKE_WRITE.rawValue
                ? attribute(UVERBS_ATTR_WRITE_CMD.rawValue)?.data : nil
        }
    }

    /// The commands that a device sent when it was opened.
    public private(set) var probe: Call?
    public var calls: [Call] = []
    public var writes: [[UInt8]] = []
    /// The bytes of all attributes of the last ioctl, by id, copied before it returned.
    public var inputs: [UInt16: [UInt8]] = [:]
    public var onCall: (Call) -> Int32 = { _ in 0 }
    /// Called with each command; writes its result.
    public var onWrite: ([UInt8], UnsafeMutableRawPointer?) -> Int32 = { _, _ in 0 }

    private static let all = Mutex<[Int32: FakeKernel]>([:])
    /// The next number above every open descriptor. A counter, because tests that run in parallel must not get the
    /// same kernel.
    private static let next = Atomic<Int32>(0x4000_0000)
    /// The descriptor of the uverbs node. It is not an open descriptor: closing it has no effect, and mmap(2) fails
    /// with EBADF.
    public let descriptor: Int32

    /// A kernel for devices that `open` opens.
    /// - Parameter byteCount: Size of the memory that can be mapped from the node; the opened device closes the node.
    public init(mapping byteCount: Int = 0) {
        descriptor = byteCount > 0 ? memfd(byteCount) : Self.next.wrappingAdd(1, ordering: .relaxed).oldValue
        Self.all.withLock { $0[descriptor] = self }
    }

    /// Opens a device on this kernel. The commands of its probe are not kept.
    public func open(returning result: Int32 = ENOSPC, driver: rdma_driver_id = RDMA_DRIVER_RXE) -> KernelDevice {
        onCall = { _ in result }
        let device = KernelDevice(descriptor: descriptor, driver: driver, calls: Self.systemCalls)
        probe = calls.first
        calls = []
        onCall = { _ in 0 }
        return device
    }

    private static let systemCalls = SystemCalls(
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
            let response = command.count < 16 ? 0 : command.load(8, as: UInt64.self)
            return kernel.onWrite(command, UnsafeMutableRawPointer(bitPattern: UInt(response)))
        })
}

extension FakeKernel.Call {
    init(reading request: UnsafeMutableRawPointer) {
        header = request.loadUnaligned(as: ib_uverbs_ioctl_hdr.self)
        attributes = (0..<Int(header.num_attrs)).map { index in
            let address = request + 24 + 16 * index
            return Attribute(
                id: address.load(as: UInt16.self), length: address.load(fromByteOffset: 2, as: UInt16.self),
                flags: address.load(fromByteOffset: 4, as: UInt16.self),
                data: address.load(fromByteOffset: 8, as: UInt64.self), address: address)
        }
    }
}

extension FakeKernel.Call.Attribute {
    /// The value of an input attribute: up to 8 bytes inline, otherwise at the address in `data`.
    public var bytes: [UInt8] {
        let source = length > 8 ? UnsafeMutableRawPointer(bitPattern: UInt(data))! : address + 8
        return [UInt8](UnsafeRawBufferPointer(start: source, count: Int(length)))
    }

    /// Returns a handle, in `ib_uverbs_attr.data`.
    public func set(_ value: UInt64) { address.storeBytes(of: value, toByteOffset: 8, as: UInt64.self) }

    /// Writes an output attribute to the address in `ib_uverbs_attr.data`.
    public func respond<Value: BitwiseCopyable>(_ value: Value) {
        UnsafeMutableRawPointer(bitPattern: UInt(data))!.storeBytes(of: value, as: Value.self)
    }
}

extension [UInt8] {
    /// Loads a field of a command, unaligned.
    public func load<Value: BitwiseCopyable>(_ offset: Int, as type: Value.Type) -> Value {
        withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }
}

/// Creates a memory file of zeros.
private func memfd(_ byteCount: Int) -> Int32 {
    let descriptor = linux_memory_file("uverbs")
    precondition(descriptor >= 0 && linux_resize_file(descriptor, UInt64(byteCount)) == 0)
    return descriptor
}
