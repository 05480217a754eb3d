import CLinux
import ProviderKit

// The functions of libibverbs report errors in three ways, depending on the C provider: a positive errno value, -1 with
// errno, or a negative errno value. The provider ABI has only the first (rdma_provider.h, chapter 3).

/// Calls a function that returns 0 on success. Returns 0 or a positive errno value.
@inline(__always)
func status(_ call: () -> Int32) -> Int32 {
    linux_set_errno(0)
    let result = call()
    return result == 0 ? 0 : errorNumber(result)
}

/// Calls a function that returns nil and sets errno on failure. Maps errno as `status` does.
@inline(__always)
func object<Object>(_ call: () -> UnsafeMutablePointer<Object>?) -> UnsafeMutablePointer<Object>? {
    linux_set_errno(0)
    if let created = call() { return created }
    let error = linux_errno()
    // Some C providers return nil without setting errno.
    if error == 0 { return failure(EINVAL, "the device's C provider in libibverbs refused without an errno value") }
    linux_set_errno(canonical(error))
    return nil
}

/// The positive errno value of a result that is not 0.
func errorNumber(_ result: Int32) -> Int32 {
    if result > 0 { return canonical(result) }
    let error = linux_errno()
    if result == -1 && error != 0 { return canonical(error) }
    // -1 without errno, such as a short read or a sysfs file without a number.
    return result == -1 ? EIO : canonical(0 &- result)
}

/// Maps ENOSYS to EOPNOTSUPP: the provider ABI has one errno for an unsupported function, older C providers and kernels
/// two.
private func canonical(_ error: Int32) -> Int32 {
    error == ENOSYS ? EOPNOTSUPP : error
}

/// Copies a struct to the caller's struct of `size` bytes: truncates it, or zeroes the remaining bytes.
func copyOut<Value>(_ value: Value, to destination: UnsafeMutableRawPointer?, size: Int) {
    guard let destination else { return }
    withUnsafeBytes(of: value) { bytes in
        let common = min(size, bytes.count)
        destination.copyMemory(from: bytes.baseAddress!, byteCount: common)
        (destination + common).initializeMemory(as: UInt8.self, repeating: 0, count: size - common)
    }
}
