import Glibc

/// CLOCK_MONOTONIC, in nanoseconds: a read costs no system call.
enum Clock {
    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(bitPattern: Int64(time.tv_sec)) &* 1_000_000_000 &+ UInt64(bitPattern: Int64(time.tv_nsec))
    }

    /// Waits so many nanoseconds, or until a signal comes.
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

/// How to wait for what comes in a microsecond, mostly: poll on; then let others run, who may be the ones that are
/// waited for; then sleep a little.
struct Patience {
    private var polls = 0

    /// Something has come.
    mutating func reset() { polls = 0 }

    /// Nothing has come. Answers whether it is time to look at the clock.
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
