import CLinux

// The functions of libibverbs answer in three ways: an errno value, -1 and errno, or a negative errno value; which one
// it is may depend on the C provider behind them. The waist knows the first only (rdma_provider.h, chapter 3).

/// Calls a function that answers 0 when it has succeeded, and says why not as the waist wants it.
@inline(__always)
func status(_ call: () -> Int32) -> Int32 {
    linux_set_errno(0)
    let answer = call()
    return answer == 0 ? 0 : errorNumber(answer)
}

/// Calls a function that answers nil and errno when it has failed.
@inline(__always)
func object<Object>(_ call: () -> UnsafeMutablePointer<Object>?) -> UnsafeMutablePointer<Object>? {
    linux_set_errno(0)
    if let made = call() { return made }
    let error = linux_errno()
    // Some C providers refuse an attribute without a word.
    linux_set_errno(error == 0 ? EINVAL : canonical(error))
    return nil
}

/// The errno value in an answer that is not 0.
func errorNumber(_ answer: Int32) -> Int32 {
    if answer > 0 { return canonical(answer) }
    let error = linux_errno()
    if answer == -1 && error != 0 { return canonical(error) }
    // -1 without errno: a record cut short, a file of sysfs that holds no number.
    return answer == -1 ? EIO : canonical(0 &- answer)
}

/// What is not supported has one name in the waist; older C providers and kernels have two.
private func canonical(_ error: Int32) -> Int32 {
    error == ENOSYS ? EOPNOTSUPP : error
}

/// Copies as much of a struct as the caller knows, and zeroes what the caller knows beyond it.
func copyOut<Value>(_ value: Value, to place: UnsafeMutableRawPointer?, size: Int) {
    guard let place else { return }
    withUnsafeBytes(of: value) { bytes in
        let common = min(size, bytes.count)
        place.copyMemory(from: bytes.baseAddress!, byteCount: common)
        (place + common).initializeMemory(as: UInt8.self, repeating: 0, count: size - common)
    }
}
