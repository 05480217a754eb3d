import CLinux
import Glibc
import Locking

/// Waits for descriptors on one thread for the whole process, so that no task blocks a thread of its own.
///
/// Each waiter holds the object that owns the descriptor, so that the descriptor is not closed during the wait.
package final class Reactor: Sendable {
    /// The reactor of this process.
    package static let shared = Reactor()

    /// Identifies one wait.
    package struct Token: Hashable, Sendable {
        let descriptor: Int32
        let number: UInt64
    }

    private struct State {
        var epoll: Int32 = -1
        var nextNumber: UInt64 = 0
        var handlers: [Int32: [UInt64: @Sendable () -> Void]] = [:]
    }

    private let state = Locked(State())

    private init() {}

    /// Calls `handler` once, on the reactor's thread, when the descriptor is readable or has failed.
    ///
    /// - Returns: Nil, with the errno in `error`, when the system has no resources for another descriptor.
    package func whenReadable(_ descriptor: Int32, _ handler: @escaping @Sendable () -> Void) -> Result<Token, Failure>
    {
        state.withLock { state in
            if state.epoll < 0 {
                guard let epoll = Reactor.start() else { return .failure(Failure(code: linux_errno())) }
                state.epoll = epoll
            }
            let isFirst = state.handlers[descriptor] == nil
            if isFirst, linux_epoll_add(state.epoll, descriptor) != 0 { return .failure(Failure(code: linux_errno())) }
            state.nextNumber += 1
            state.handlers[descriptor, default: [:]][state.nextNumber] = handler
            return .success(Token(descriptor: descriptor, number: state.nextNumber))
        }
    }

    /// An errno value.
    package struct Failure: Error {
        package let code: Int32
    }

    /// Cancels a wait. Its handler may be running, but is not called any more.
    package func cancel(_ token: Token) {
        state.withLock { state in
            guard state.handlers[token.descriptor]?.removeValue(forKey: token.number) != nil else { return }
            if state.handlers[token.descriptor]?.isEmpty == true {
                state.handlers[token.descriptor] = nil
                linux_epoll_remove(state.epoll, token.descriptor)
            }
        }
    }

    private func isReadable(_ descriptor: Int32) {
        let handlers = state.withLock { state in
            linux_epoll_remove(state.epoll, descriptor)
            return state.handlers.removeValue(forKey: descriptor)
        }
        for handler in (handlers ?? [:]).values { handler() }
    }

    /// Starts the thread: the epoll descriptor, or nil with errno set.
    private static func start() -> Int32? {
        let epoll = linux_epoll_create()
        guard epoll >= 0 else { return nil }
        let code = linux_start_detached_thread(
            { argument in Reactor.run(epoll: Int32(truncatingIfNeeded: Int(bitPattern: argument))) },
            UnsafeMutableRawPointer(bitPattern: Int(epoll)))
        guard code == 0 else {
            close(epoll)
            linux_set_errno(code)
            return nil
        }
        return epoll
    }

    private static func run(epoll: Int32) -> Never {
        while true {
            let descriptor = linux_epoll_wait_one(epoll)
            if descriptor >= 0 { shared.isReadable(descriptor) }
        }
    }
}
