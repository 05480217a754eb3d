import CLinux
import ProviderKit
import RoCETransport
import Synchronization

/// Who looks after an open device when nobody calls it: a thread that sleeps until a packet, a timer or a call wakes
/// it.
///
/// It keeps out of the way of an application that polls. There are two modes:
///
/// | mode | who looks for packets | senders ring the bell | the thread |
/// |------|-----------------------|-----------------------|------------|
/// | background | the thread | yes | sleeps until something comes, or a timer is due |
/// | foreground | those who poll | no | looks every millisecond whether they still do |
///
/// Polling without a break for some microseconds leads to the foreground; a millisecond without polling, or
/// `ibv_req_notify_cq`, back to the background.
struct Watch: ~Copyable {
    /// Wakes the thread; its reading never waits.
    let wakeup: Int32
    let timer: Int32
    let isForeground = Atomic<Bool>(false)
    let stops = Atomic<Bool>(false)
    /// Counts rounds of those who poll.
    let rounds = Atomic<UInt64>(0)
    /// When a completion queue was last armed.
    let lastArm = Atomic<UInt64>(0)

    /// Nil and errno when there is no descriptor left.
    init?() {
        let wakeup = linux_wakeup()
        let timer = linux_timer()
        guard wakeup >= 0, timer >= 0 else {
            if wakeup >= 0 { linux_close(wakeup) }
            if timer >= 0 { linux_close(timer) }
            linux_set_errno(-min(wakeup, timer))
            return nil
        }
        self.wakeup = wakeup
        self.timer = timer
    }

    deinit {
        linux_close(wakeup)
        linux_close(timer)
    }

    /// Any thread: has the thread look.
    borrowing func wake() { linux_eventfd_raise(wakeup) }
}

/// What the thread and those who poll know of time; under the context's lock.
struct WatchTimes {
    /// The thread.
    var thread: UnsafeMutableRawPointer?
    /// When the timer goes off; 0: never.
    var timerAt: UInt64 = 0
    /// When polling without a break began, and when it was last seen.
    var streakStart: UInt64 = 0
    var lastPoll: UInt64 = 0
    /// When those who poll last found something, and last gave way.
    var lastWork: UInt64 = 0
    var lastYield: UInt64 = 0
}

/// A pause longer than this ends a streak of polling.
private let streakBreak: UInt64 = 50_000
/// So long a streak leads to the foreground.
private let streakLength: UInt64 = 20_000
/// An application that arms its queues goes to sleep: no foreground for this long afterwards.
private let armMemory: UInt64 = 2_000_000
/// How often the thread looks in the foreground.
private let tick: Int64 = 1_000_000
/// Who polls in vain for longer than this lets others have the processor now and then: the one whose answer is waited
/// for may need it.
private let yieldAfter: UInt64 = 10_000
private let yieldInterval: UInt64 = 10_000
/// How soon a packet that waits for room in a ring is tried again.
private let heldRetry: UInt64 = 50_000
/// How often the rings of dead senders are looked for.
private let reclaimInterval: UInt64 = 1_000_000_000

// MARK: - Progress in the application's threads

extension ContextPointer {
    /// Runs the engine if its lock is free; if not, whoever holds it sees what was posted. After a post.
    @inline(__always)
    func progressAfterPost() {
        while true {
            guard pointee.lock.tryLock() else { return }
            let now = linux_monotonic_ns()
            let isBusy = pump(now: now, receivesDatagrams: false)
            settle(now: now, isBusy: isBusy)
            pointee.lock.unlock()
            // Somebody may have posted after we looked, and found the lock taken.
            if !pointee.engine.doorbellIsRung { return }
        }
    }

    /// Runs the engine if its lock is free. For one who found a completion queue empty.
    @inline(__always)
    func progressWhilePolling() {
        guard pointee.waiting.load(ordering: .relaxed) == 0, pointee.lock.tryLock() else {
            linux_spin_hint()
            return
        }
        let now = linux_monotonic_ns()
        notePolling(now)
        let before = guarded.pointee.link.packetCount
        let isBusy = pump(now: now, receivesDatagrams: false)
        settle(now: now, isBusy: isBusy)
        let givesWay = wantsToYield(now: now, didWork: guarded.pointee.link.packetCount != before)
        pointee.lock.unlock()
        if givesWay { linux_yield() }
        if pointee.engine.doorbellIsRung { progressAfterPost() }
    }

    @inline(__always)
    private func wantsToYield(now: UInt64, didWork: Bool) -> Bool {
        if didWork { guarded.pointee.times.lastWork = now }
        guard now &- guarded.pointee.times.lastWork > yieldAfter,
            now &- guarded.pointee.times.lastYield > yieldInterval
        else { return false }
        guarded.pointee.times.lastYield = now
        return true
    }

    @inline(__always)
    private func notePolling(_ now: UInt64) {
        pointee.watch.rounds.store(
            pointee.watch.rounds.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
        if now &- guarded.pointee.times.lastPoll > streakBreak { guarded.pointee.times.streakStart = now }
        guarded.pointee.times.lastPoll = now
        if pointee.watch.isForeground.load(ordering: .relaxed) { return }
        if now &- guarded.pointee.times.streakStart > streakLength { enterForeground(now) }
    }

    @inline(never)
    private func enterForeground(_ now: UInt64) {
        let armed = pointee.watch.lastArm.load(ordering: .relaxed)
        guard now &- armed > armMemory else { return }
        pointee.watch.isForeground.store(true, ordering: .relaxed)
        pointee.mailbox.sleeping.pointee.store(0, ordering: .relaxed)
        // From now on the thread only ticks.
        pointee.watch.wake()
    }

    /// `ibv_req_notify_cq`: the application is about to sleep.
    func noteArming() {
        pointee.watch.lastArm.store(linux_monotonic_ns(), ordering: .relaxed)
        guard pointee.watch.isForeground.exchange(false, ordering: .acquiringAndReleasing) else { return }
        pointee.watch.wake()
    }

    /// What every round ends with: someone must come back for what is left, and when the next timer is due.
    @inline(__always)
    private func settle(now: UInt64, isBusy: Bool) {
        if pointee.watch.isForeground.load(ordering: .relaxed) { return }
        if isBusy { pointee.watch.wake() }
        if let deadline = nextDeadline(now: now) { setTimer(deadline) }
    }

    @inline(__always)
    private func nextDeadline(now: UInt64) -> UInt64? {
        let held = guarded.pointee.link.heldPacket == nil ? nil : now &+ heldRetry
        guard let deadline = pointee.engine.nextDeadline else { return held }
        return min(deadline, held ?? deadline)
    }

    @inline(__always)
    private func setTimer(_ deadline: UInt64) {
        let current = guarded.pointee.times.timerAt
        if current != 0 && current <= deadline { return }
        guarded.pointee.times.timerAt = deadline
        linux_set_timer(pointee.watch.timer, max(deadline, 1))
    }
}

// MARK: - The thread

extension ContextPointer {
    /// Starts the thread. False and errno when that fails.
    func startWatch() -> Bool {
        pointee.lock.lock()
        defer { unlock() }
        guarded.pointee.times.thread = linux_start_thread(
            ("rdma soft" as StaticString).cString, { $0!.assumingMemoryBound(to: SoftContext.self).watchOver() }, self)
        return guarded.pointee.times.thread != nil
    }

    /// Ends the thread and waits for it.
    func stopWatch() {
        pointee.watch.stops.store(true, ordering: .releasing)
        pointee.watch.wake()
        pointee.lock.lock()
        let thread = guarded.pointee.times.thread
        unlock()
        linux_join_thread(thread)
    }

    private func watchOver() {
        // On a processor that sender and receiver share, each packet would take it from the sender: that sends one
        // packet for each wakeup. So it sends what it has, and is answered in one go.
        linux_prefer_batches()
        let descriptors = UnsafeMutablePointer<Int32>.allocate(capacity: 3 + DeviceLimits.gids)
        defer { descriptors.deallocate() }
        while !pointee.watch.stops.load(ordering: .acquiring) {
            if pointee.watch.isForeground.load(ordering: .acquiring) {
                tickInForeground(descriptors)
            } else if let count = runInBackground(descriptors) {
                linux_wait_any(descriptors, Int32(count), -1)
                linux_drain(pointee.watch.wakeup)
                if pointee.bell >= 0 { linux_silence_bell(pointee.bell) }
            }
        }
    }

    /// Sleeps a tick, and leads back to the background when nobody polled meanwhile. Those who poll look at the sockets
    /// only while datagrams come and go; at other times they are looked at here.
    private func tickInForeground(_ descriptors: UnsafeMutablePointer<Int32>) {
        let before = pointee.watch.rounds.load(ordering: .relaxed)
        // Its wakeup was raised to bring us here; only the next one counts.
        linux_drain(pointee.watch.wakeup)
        guard pointee.watch.isForeground.load(ordering: .acquiring) else { return }
        descriptors[0] = pointee.watch.wakeup
        pointee.lock.lock()
        let isQuiet = guarded.pointee.datagramsAreQuiet(at: linux_monotonic_ns())
        let count = isQuiet ? 1 + guarded.pointee.sockets.descriptors(into: descriptors + 1) : 1
        unlock()
        linux_wait_any(descriptors, Int32(count), tick)
        if pointee.watch.rounds.load(ordering: .relaxed) == before {
            pointee.watch.isForeground.store(false, ordering: .relaxed)
        } else if isQuiet {
            pointee.lock.lock()
            _ = pump(now: linux_monotonic_ns(), receivesDatagrams: true)
            unlock()
        }
    }

    /// Does all there is to do, and prepares for sleep.
    /// - Returns: how many descriptors there are to wait on; nil when it is not the time for sleep.
    private func runInBackground(_ descriptors: UnsafeMutablePointer<Int32>) -> Int? {
        pointee.lock.lock()
        defer { unlock() }
        let now = linux_monotonic_ns()
        linux_drain(pointee.watch.timer)
        guarded.pointee.times.timerAt = 0
        // Asking to be woken comes before the last look.
        pointee.mailbox.sleeping.pointee.store(1, ordering: .sequentiallyConsistent)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        if pump(now: now, receivesDatagrams: true) { return nil }
        if now &- guarded.pointee.link.lastReclaim > reclaimInterval {
            guarded.pointee.link.lastReclaim = now
            guarded.pointee.mailbox.reclaim(pointee.registry)
        }
        if let deadline = nextDeadline(now: now) { setTimer(deadline) }
        descriptors[0] = pointee.watch.wakeup
        descriptors[1] = pointee.watch.timer
        descriptors[2] = pointee.bell
        return 3 + guarded.pointee.sockets.descriptors(into: descriptors + 3)
    }
}
