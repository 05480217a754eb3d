import SystemPackage

/// Lets the task wait until a descriptor is readable; no thread is blocked meanwhile. Who calls holds the object that
/// owns the descriptor.
///
/// - Parameters:
///   - descriptor: what to wait for.
///   - deadline: until when; nil waits for ever.
///   - verb: whose answer is awaited, for the error.
///   - object: what it is about, for the error.
/// - Returns: false when the time is over or the task is cancelled.
/// - Throws: when the system has no room for one more wait.
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
