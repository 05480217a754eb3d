import Glibc

/// CLOCK_MONOTONIC, in nanoseconds, read through the vDSO without a system call.
enum Clock {
    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(bitPattern: Int64(time.tv_sec)) &* 1_000_000_000 &+ UInt64(bitPattern: Int64(time.tv_nsec))
    }

    /// Sleeps for `nanoseconds`, or until a signal arrives.
    static func sleep(_ nanoseconds: UInt64) {
        var time = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        nanosleep(&time, nil)
    }

    /// The time of day, as ISO 8601 in UTC with milliseconds.
    static func timeOfDay() -> String {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        var fields = tm()
        gmtime_r(&time.tv_sec, &fields)
        var text = [CChar](repeating: 0, count: 32)
        let count = strftime(&text, text.count, "%Y-%m-%dT%H:%M:%S", &fields)
        let milliseconds = String(1000 + time.tv_nsec / 1_000_000).dropFirst()
        return String(decoding: text.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self) + ".\(milliseconds)Z"
    }
}

extension Duration {
    /// Nanoseconds, between 0 and 2^63.
    var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(min(seconds, 9_000_000_000)) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
    }
}

/// Measures a waiting time. Time in which this process did not run, because it was stopped or its machine was
/// suspended, does not count: the process could not receive from the peer then.
struct WaitTimer {
    /// The most that counts between two calls of `elapsed`, in nanoseconds.
    private static let longestStep: UInt64 = 500_000_000

    private var elapsed: UInt64 = 0
    private var last: UInt64

    init(since start: UInt64) { last = start }

    /// The counted nanoseconds until `now`. Call it more often than `longestStep`.
    mutating func elapsed(at now: UInt64) -> UInt64 {
        elapsed &+= min(now &- last, Self.longestStep)
        last = now
        return elapsed
    }
}

/// Backoff for polling loops whose events usually arrive within microseconds: at first no pause, then sched_yield(2),
/// so that the peer can run on the same processor, then sleeps of 50 us.
struct PollBackoff {
    private var polls = 0

    /// An event arrived.
    mutating func reset() { polls = 0 }

    /// No event arrived. Returns whether the caller should read the clock.
    mutating func pause() -> Bool {
        polls &+= 1
        switch polls {
        case ..<512: return false
        case ..<4096: sched_yield()
        default:
            var short = timespec(tv_sec: 0, tv_nsec: 50_000)
            nanosleep(&short, nil)
        }
        return true
    }
}
