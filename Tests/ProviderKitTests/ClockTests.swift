import CLinux
import Glibc
import Testing

@Suite("linux_clock")
struct ClockTests {
    @Test(
        "A reading that is used again never goes back, is never ahead of the clock, and follows it",
        arguments: [true, false])
    func readings(usesCounter: Bool) {
        var clock = linux_clock()
        linux_clock_init(&clock)
        if !usesCounter { clock.span = 0 }
        let start = linux_monotonic_ns()
        var last = linux_clock_ns(&clock)
        #expect(last >= start, "the first reading is a new one")
        for _ in 0..<100_000 {
            let time = linux_clock_ns(&clock)
            let now = linux_monotonic_ns()
            guard time >= last, time <= now else {
                Issue.record("\(time) ns after \(last) ns, at \(now) ns")
                return
            }
            last = time
        }
        // The counter has 1024 ticks in less than 50 ms at any frequency above 20 kHz.
        while linux_monotonic_ns() < last + 50_000_000 { usleep(1000) }
        let before = linux_monotonic_ns()
        #expect(linux_clock_ns(&clock) >= before)
    }
}
