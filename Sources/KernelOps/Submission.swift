import CIBVerbs
import CKernelABI
import CLinux
import CProviderABI
import KernelVerbs
import ProviderKit

// Arguments that all functions of the table have, and those that submit any command.

/// The open node of a `struct rdma_kernel *`.
@inline(__always)
func node(_ kernel: OpaquePointer?) -> OpenNodePointer? { kernel.map { OpenNodePointer($0) } }

/// The driver's private data of a command.
/// - Throws: EINVAL for a length without an address, one that is not a multiple of 4, or one above 65,532 bytes.
func driverData(_ udata: UnsafePointer<rdma_udata>?) throws(KernelError) -> DriverData {
    guard let udata else { return .none }
    // The fields of the first version, which every provider has: a later one may have more.
    let first = MemoryLayout<rdma_udata>.offset(of: \.out)! + MemoryLayout<UnsafeMutableRawPointer>.size
    guard udata.pointee.size >= first, isLength(udata.pointee.in_len),
        isLength(udata.pointee.out_len), udata.pointee.in_len == 0 || udata.pointee.in != nil,
        udata.pointee.out_len == 0 || udata.pointee.out != nil
    else { throw .invalidArgument }
    return DriverData(
        input: UnsafeRawBufferPointer(start: udata.pointee.in, count: Int(udata.pointee.in_len)),
        output: UnsafeMutableRawBufferPointer(start: udata.pointee.out, count: Int(udata.pointee.out_len)))
}

private func isLength(_ length: UInt32) -> Bool { length % 4 == 0 && length <= 65_532 }

/// `execute_ioctl`.
func executeIoctl(
    kernel: OpaquePointer?, object: UInt16, method: UInt16, attributes: UnsafeMutablePointer<ib_uverbs_attr>?,
    count: UInt32
) -> Int32 {
    guard let node = node(kernel), count == 0 || attributes != nil else { return EINVAL }
    return errno { () throws(KernelError) in
        try node.pointee.kernel.call(
            object: object, method: method, UnsafeMutableBufferPointer(start: attributes, count: Int(count)))
    }
}

/// `execute_write`.
func executeWrite(
    kernel: OpaquePointer?, command: UInt32, request: UnsafeRawPointer?, requestSize: UInt32,
    response: UnsafeMutableRawPointer?, responseSize: UInt32, udata: UnsafePointer<rdma_udata>?
) -> Int32 {
    guard let node = node(kernel), let request, response != nil || responseSize == 0 else { return EINVAL }
    return errno { () throws(KernelError) in
        try node.pointee.kernel.call(
            WriteCommand(rawValue: command),
            request: UnsafeRawBufferPointer(start: request, count: Int(requestSize)),
            response: UnsafeMutableRawBufferPointer(start: response, count: Int(responseSize)),
            driver: try driverData(udata))
    }
}
