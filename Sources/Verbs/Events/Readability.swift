import SystemPackage

/// Lets the task wait until a descriptor is readable; no thread is blocked meanwhile. The caller keeps the
/// object that owns the descriptor alive.
///
/// - Parameters:
///   - descriptor: The file descriptor.
///   - deadline: The end of the wait; nil waits without limit.
///   - verb: The verb that an error names.
///   - object: The object that an error names.
/// - Returns: False after the deadline or when the task is cancelled.
/// - Throws: The errno of a wait that the system refuses.
package func waitUntilReadable(
    _ descriptor: Int32, until deadline: ContinuousClock.Instant? = nil, for verb: Verb, _ object: VerbsObject
) async throws(VerbsError) -> Bool {
    let waiter = Waiter()
    let token: Reactor.Token
    switch Reactor.shared.whenReadable(descriptor, { waiter.finish(.ready) }) {
    case .success(let registered): token = registered
    case .failure(let failure): throw VerbsError(verb, errno: Errno(rawValue: failure.code), object: object)
    }
    switch await waiter.outcome(until: deadline) {
    case .ready: return true
    case .cancelled, .timedOut:
        Reactor.shared.cancel(token)
        return false
    case .failed(let error): throw error
    }
}
