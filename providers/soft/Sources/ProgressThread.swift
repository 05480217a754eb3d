import CLinux
import ProviderKit
import RoCETransport
import Synchronization

/// The background progress thread of an open device: the descriptors that it sleeps on, and the flags that it shares
/// with the threads of the application. It sleeps until a packet, a timer, a change of the interface or a call wakes
/// it.
///
/// While the application polls, its threads run the engine, and the progress thread only checks that they continue to:
///
/// | mode | packets are received by | senders send wake-ups | the progress thread |
/// |------|-------------------------|-----------------------|---------------------|
/// | background | the progress thread | yes | sleeps until a packet arrives or a timer expires |
/// | foreground | the application's threads | no | checks every millisecond that a thread still runs the engine |
///
/// Polling and posting for 20 us without a pause of 50 us switches to the foreground. A millisecond without either, or
/// `ibv_req_notify_cq`, switches back to the background.
struct ProgressThread: ~Copyable {
    /// The eventfd(2) that wakes the thread; reading it never blocks.
    let wakeup: Int32
    /// The timerfd(2) of the next deadline.
    let timer: Int32
    /// A netlink socket that is readable when a link or an address of this host has changed. Negative where netlink
    /// sockets are forbidden: then the thread reads the interface once a second.
    let interfaces: Int32
    /// Whether the last reading of the interface failed, or left an address without a socket. The thread tries again
    /// after a second: a descriptor or the UDP port may be free then.
    let retriesInterface = Atomic<Bool>(false)
    /// The mode, see above.
    let isForeground = Atomic<Bool>(false)
    /// Set when the thread is to end.
    let stops = Atomic<Bool>(false)
    /// Counts the rounds of the application's threads.
    let rounds = Atomic<UInt64>(0)
    /// Counts the rounds of polling threads that found the engine's lock taken.
    let missedRounds = Atomic<UInt32>(0)
    /// Until when threads sleep instead of yielding the processor, in nanoseconds: a thread of another process runs on
    /// it.
    let sharedUntil = Atomic<UInt64>(0)
    /// The time after which a polling thread without work yields the processor, in nanoseconds.
    let yieldInterval = Atomic<UInt64>(longestYieldInterval)
    /// How long that lasts after the next yield that shows it, in nanoseconds.
    let sharingMemory = Atomic<UInt64>(shortestSharing)
    /// The time of the last `ibv_req_notify_cq`, in nanoseconds.
    let lastArm = Atomic<UInt64>(0)

    /// Returns nil, and sets errno, when a descriptor cannot be created.
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
        interfaces = linux_watch_interfaces()
    }

    deinit {
        linux_close(wakeup)
        linux_close(timer)
        if interfaces >= 0 { linux_close(interfaces) }
    }

    /// Whether the thread reads the interface once a second, without a report of a change.
    borrowing func pollsInterface() -> Bool { interfaces < 0 || retriesInterface.load(ordering: .relaxed) }

    /// Wakes the thread. May be called from any thread.
    borrowing func wake() { linux_eventfd_raise(wakeup) }
}

/// Points in time that the progress thread and the polling threads share, in nanoseconds of CLOCK_MONOTONIC; under the
/// context's lock.
struct ProgressTimes {
    /// The handle of the progress thread (`linux_start_thread`).
    var thread: UnsafeMutableRawPointer?
    /// When the timer expires; 0: it is not armed.
    var timerAt: UInt64 = 0
    /// When the current streak of polling and posting began, and its last round.
    var streakStart: UInt64 = 0
    var lastRound: UInt64 = 0
    /// When a thread last posted, or processed a packet while polling, and when one last yielded the processor.
    var lastWork: UInt64 = 0
    var lastYield: UInt64 = 0
    /// The number of the application's threads that sleep until a packet arrives.
    var sleepers = 0
    /// Whether the progress thread is to stay awake for a while: its last sleep was short.
    var lingers = false
    /// When the interface was last read without a report of a change.
    var lastInterfacePoll: UInt64 = 0
}

/// A pause longer than this ends a streak of polling and posting. Nanoseconds, as all times here.
private let streakBreak: UInt64 = 50_000
/// A longer streak switches to the foreground.
private let streakLength: UInt64 = 20_000
/// The time for which the device stays in the background after `ibv_req_notify_cq`: the application is about to sleep.
private let armMemory: UInt64 = 2_000_000
/// The index of the netlink socket in the list of descriptors that the thread waits on.
private let interfacesIndex = 1
/// The interval at which the thread reads the interface when the kernel cannot report changes.
private let interfacePollInterval: UInt64 = 1_000_000_000
/// The interval at which the thread wakes in the foreground.
private let tick: Int64 = 1_000_000
/// A thread that polls an empty completion queue yields the processor some time after its last post or packet, and again
/// after each such time: the peer may need it to respond. It is the shorter one while yields let others run, and the longer one
/// while a yield returns within `shortYield`, which means that no other thread waits for the processor.
private let shortestYieldInterval: UInt64 = 1_000
private let longestYieldInterval: UInt64 = 10_000
private let shortYield: UInt64 = 1_500
/// A yield that takes longer means that the processor has other work, which runs for a time slice of some milliseconds.
/// From then on, a polling thread sleeps until a packet arrives, since a thread that wakes soon gets the processor back.
/// It yields again after a while, to find out whether the other work has ended: the shortest time at first, and twice as
/// long each time that it has not.
private let longYield: UInt64 = 200_000
private let shortestSharing: UInt64 = 5_000_000
private let longestSharing: UInt64 = 160_000_000
/// The longest such sleep: another thread may complete the work requests that this one waits for.
private let longestSleep: UInt64 = 1_000_000
/// The progress thread stays awake for this time after a packet when its last sleep was shorter.
private let lingerTime: UInt64 = 50_000
/// After this time it looks at its other descriptors: a change of the interface, a call.
private let longestLinger: UInt64 = 5_000_000
/// The time after which connections are accepted again when accept(2) has failed.
private let listenRetry: UInt64 = 100_000_000

// MARK: - Progress in the application's threads

extension ContextPointer {
    /// Runs the engine after a post if its lock is free. Otherwise the thread that holds the lock reads the doorbell.
    @inline(__always)
    func progressAfterPost(to pair: QueuePair) {
        if pointee.lock.tryLock() {
            pointee.engine.serve(pair)
            runAfterPost()
            if !pointee.engine.doorbellIsRung { return }
        } else {
            pair.ringDoorbell()
        }
        progressAfterPost()
    }

    /// Runs the engine after doorbells were rung if its lock is free. Otherwise the thread that holds the lock reads them.
    @inline(never)
    func progressAfterPost() {
        while true {
            guard pointee.lock.tryLock() else { return }
            runAfterPost()
            // A thread may have posted after the last round, when the lock was taken.
            if !pointee.engine.doorbellIsRung { return }
        }
    }

    /// Under the lock, which it releases.
    @inline(__always)
    private func runAfterPost() {
        let now = currentTime()
        sendFirstRun(now: now)
        guarded.pointee.link.receivedInPoll = false
        noteRound(now)
        let isBusy = pump(now: now, receivesDatagrams: false, afterPost: true)
        guarded.pointee.times.lastWork = now
        settle(now: now, isBusy: isBusy)
        pointee.lock.unlock()
    }

    /// Runs the engine if its lock is free. Called under the lock of a completion queue that is empty. That lock is kept while a
    /// few messages are received, of whatever queue pair: taking it again would be a part of their latency. The rest is done
    /// without it, since the thread may sleep there.
    /// - Parameter unlock: Releases the lock of the completion queue. It is called at most once.
    /// - Returns: Whether the lock was released, and whether an acknowledgement is held now, which is to be sent if there is
    ///   still no completion.
    @inline(__always)
    func progressWhilePolling(unlocking unlock: () -> Void) -> (unlocked: Bool, holds: Bool) {
        guard pointee.waiting.load(ordering: .relaxed) == 0, pointee.lock.tryLock() else {
            unlock()
            letOthersRun()
            return (true, false)
        }
        let now = currentTime()
        noteRound(now)
        let before = guarded.pointee.link.packetCount
        guarded.pointee.link.held.isNew = false
        let isDone = receiveFirstRuns(now: now)
        var isBusy = false
        if !isDone {
            unlock()
            isBusy = pump(now: now, receivesDatagrams: false, mayHold: true)
        }
        settle(now: now, isBusy: isBusy)
        let didWork = guarded.pointee.link.packetCount != before
        guarded.pointee.link.receivedInPoll = didWork
        let yields = shouldYield(now: now, didWork: didWork)
        // One that was held before waits for its time.
        let holds = guarded.pointee.link.held.isNew && guarded.pointee.link.held.since != 0
        pointee.lock.unlock()
        let isRung = pointee.engine.doorbellIsRung
        guard yields || isRung else { return (!isDone, holds) }
        if isDone { unlock() }
        if yields { giveWay(since: now) }
        if isRung || pointee.engine.doorbellIsRung { progressAfterPost() }
        return (true, holds)
    }

    /// Another thread holds the lock. It may need the processor of this one to release it, so every 64th such round
    /// yields the processor: some microseconds after the first.
    @inline(never)
    private func letOthersRun() {
        let missed = pointee.progressThread.missedRounds.load(ordering: .relaxed) &+ 1
        pointee.progressThread.missedRounds.store(missed, ordering: .relaxed)
        if missed % 64 == 0 { linux_yield() } else { linux_spin_hint() }
    }

    /// Lets other threads of this processor run: yields, or sleeps until a packet arrives.
    @inline(never)
    private func giveWay(since now: UInt64) {
        if now < pointee.progressThread.sharedUntil.load(ordering: .relaxed),
            pointee.progressThread.isForeground.load(ordering: .relaxed)
        {
            return sleepUntilPacket()
        }
        let before = linux_monotonic_ns()
        _ = yieldIsShort(since: now)
        let isAlone = linux_monotonic_ns() &- before <= shortYield
        pointee.progressThread.yieldInterval.store(
            isAlone ? longestYieldInterval : shortestYieldInterval, ordering: .relaxed)
    }

    /// Yields the processor. Returns false, and notes it, when other work ran meanwhile.
    private func yieldIsShort(since now: UInt64) -> Bool {
        linux_yield()
        let after = linux_monotonic_ns()
        let memory = pointee.progressThread.sharingMemory.load(ordering: .relaxed)
        if after &- now <= longYield {
            pointee.progressThread.sharingMemory.store(max(memory / 2, shortestSharing), ordering: .relaxed)
            return true
        }
        pointee.progressThread.sharedUntil.store(after &+ memory, ordering: .relaxed)
        pointee.progressThread.sharingMemory.store(min(memory &* 2, longestSharing), ordering: .relaxed)
        return false
    }

    /// Sleeps in a thread of the application, in the foreground: until a packet arrives or a timer expires.
    private func sleepUntilPacket() {
        guard pointee.lock.tryLock() else { return }
        var descriptors = InlineArray<64, Int32>(repeating: -1)
        assert(Sockets.maxDescriptors < descriptors.count, "a descriptor for each socket, and the ready list")
        requestWakeups()
        let now = currentTime()
        let before = guarded.pointee.link.packetCount
        let isBusy = pump(now: now, receivesDatagrams: true)
        let isIdle = !isBusy && guarded.pointee.link.packetCount == before
        let wakeAt = min(now &+ longestSleep, nextDeadline(now: now) ?? .max)
        var count = 0
        if isIdle {
            descriptors[0] = guarded.pointee.senders.readyList
            withUnsafeMutableBytes(of: &descriptors) { list in
                let sockets = list.baseAddress!.assumingMemoryBound(to: Int32.self) + 1
                count = 1 + guarded.pointee.sockets.descriptors(into: sockets)
            }
        }
        guarded.pointee.times.sleepers += 1
        pointee.lock.unlock()
        if isIdle && wakeAt > now {
            withUnsafeBytes(of: &descriptors) { list in
                let list = list.baseAddress!.assumingMemoryBound(to: Int32.self)
                _ = linux_wait_any(list, Int32(count), Int64(wakeAt &- now))
            }
        }
        pointee.lock.lock()
        guarded.pointee.times.sleepers -= 1
        if guarded.pointee.times.sleepers == 0, pointee.progressThread.isForeground.load(ordering: .relaxed) {
            guarded.pointee.senders.setSleeping(false)
        }
        _ = pump(now: currentTime(), receivesDatagrams: true)
        unlock()
    }

    @inline(__always)
    private func shouldYield(now: UInt64, didWork: Bool) -> Bool {
        if didWork { guarded.pointee.times.lastWork = now }
        let interval = pointee.progressThread.yieldInterval.load(ordering: .relaxed)
        guard now &- guarded.pointee.times.lastWork > interval, now &- guarded.pointee.times.lastYield > interval
        else { return false }
        guarded.pointee.times.lastYield = now
        return true
    }

    @inline(__always)
    private func noteRound(_ now: UInt64) {
        pointee.progressThread.rounds.store(
            pointee.progressThread.rounds.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
        if now &- guarded.pointee.times.lastRound > streakBreak { guarded.pointee.times.streakStart = now }
        guarded.pointee.times.lastRound = now
        if pointee.progressThread.isForeground.load(ordering: .relaxed) { return }
        if now &- guarded.pointee.times.streakStart > streakLength { enterForeground(now) }
    }

    @inline(never)
    private func enterForeground(_ now: UInt64) {
        let armed = pointee.progressThread.lastArm.load(ordering: .relaxed)
        guard now > armed &+ armMemory else { return }
        pointee.progressThread.isForeground.store(true, ordering: .relaxed)
        guarded.pointee.senders.setSleeping(false)
        // The thread now wakes once a tick only.
        pointee.progressThread.wake()
    }

    /// Switches to the background after `ibv_req_notify_cq`: the application is about to sleep.
    func noteArming() {
        pointee.progressThread.lastArm.store(linux_monotonic_ns(), ordering: .relaxed)
        guard pointee.progressThread.isForeground.exchange(false, ordering: .acquiringAndReleasing) else { return }
        pointee.progressThread.wake()
    }

    /// Ends a round of a thread of the application: makes the progress thread continue with the work that is left, and
    /// wake at the next deadline.
    @inline(__always)
    private func settle(now: UInt64, isBusy: Bool) {
        if pointee.progressThread.isForeground.load(ordering: .relaxed) { return }
        if isBusy { pointee.progressThread.wake() }
        if let deadline = nextDeadline(now: now) { setTimer(deadline) }
    }

    @inline(__always)
    private func nextDeadline(now: UInt64) -> UInt64? {
        let room =
            guarded.pointee.peers.fullCount == 0 ? nil : now &+ guarded.pointee.peers.retryDelay(now: now)
        let listen = guarded.pointee.senders.isAcceptPaused ? now &+ listenRetry : nil
        // A packet that a rule has delayed and that is due waits for room, too.
        let delayed = guarded.pointee.faults?.pointee.nextDeadline
        let faults = room == nil || delayed.map { $0 > now } ?? false ? delayed : nil
        let own = min(room ?? .max, listen ?? .max, faults ?? .max)
        let deadline = min(pointee.engine.nextDeadline ?? .max, own)
        return deadline == .max ? nil : deadline
    }

    @inline(__always)
    private func setTimer(_ deadline: UInt64) {
        let current = guarded.pointee.times.timerAt
        if current != 0 && current <= deadline { return }
        guarded.pointee.times.timerAt = deadline
        linux_set_timer(pointee.progressThread.timer, max(deadline, 1))
    }
}

// MARK: - The thread

extension ContextPointer {
    /// Starts the progress thread. Returns false, and sets errno, when that fails.
    func startProgressThread() -> Bool {
        pointee.lock.lock()
        defer { unlock() }
        guarded.pointee.times.thread = linux_start_thread(
            ("rdma soft" as StaticString).cString,
            { $0!.assumingMemoryBound(to: SoftContext.self).runProgressThread() }, self)
        return guarded.pointee.times.thread != nil
    }

    /// Ends the progress thread and waits for its end.
    func stopProgressThread() {
        pointee.progressThread.stops.store(true, ordering: .releasing)
        pointee.progressThread.wake()
        pointee.lock.lock()
        let thread = guarded.pointee.times.thread
        unlock()
        linux_join_thread(thread)
    }

    private func runProgressThread() {
        let descriptors = UnsafeMutablePointer<Int32>.allocate(capacity: 4 + Sockets.maxDescriptors)
        defer { descriptors.deallocate() }
        while !pointee.progressThread.stops.load(ordering: .acquiring) {
            if pointee.progressThread.isForeground.load(ordering: .acquiring) {
                tickInForeground(descriptors)
            } else if linger() {
                continue
            } else if let count = runInBackground(descriptors) {
                let longest = pointee.progressThread.pollsInterface() ? Int64(interfacePollInterval) : -1
                let start = linux_monotonic_ns()
                followChanges(linux_wait_any(descriptors, Int32(count), longest))
                noteSleep(linux_monotonic_ns() &- start)
                linux_drain(pointee.progressThread.wakeup)
            }
        }
    }

    /// Follows the interface when the kernel has reported a change, and once a second where the thread polls it.
    private func followChanges(_ ready: UInt64) {
        let isReported =
            ready & 1 << UInt64(interfacesIndex) != 0 && linux_interfaces_changed(pointee.progressThread.interfaces)
        guard isReported || pointee.progressThread.pollsInterface() else { return }
        pointee.lock.lock()
        defer { unlock() }
        if !isReported {
            let now = linux_monotonic_ns()
            guard now &- guarded.pointee.times.lastInterfacePoll >= interfacePollInterval else { return }
            guarded.pointee.times.lastInterfacePoll = now
        }
        // While its socket is open.
        sendHeldAcknowledgement()
        followInterface()
    }

    /// Sleeps for one tick, and switches to the background when no thread polled meanwhile. Polling threads receive
    /// from the sockets only while datagrams are exchanged; at other times this thread does.
    private func tickInForeground(_ descriptors: UnsafeMutablePointer<Int32>) {
        let before = pointee.progressThread.rounds.load(ordering: .relaxed)
        // This wake-up is consumed; the next one ends the sleep.
        linux_drain(pointee.progressThread.wakeup)
        guard pointee.progressThread.isForeground.load(ordering: .acquiring) else { return }
        descriptors[0] = pointee.progressThread.wakeup
        pointee.lock.lock()
        descriptors[interfacesIndex] = pointee.progressThread.interfaces
        descriptors[2] = guarded.pointee.senders.readyList
        let now = currentTime()
        // Polling threads that sleep wait for the same packets: they would not see one that this thread takes.
        let isQuiet =
            guarded.pointee.datagramsAreQuiet(at: now)
            && now >= pointee.progressThread.sharedUntil.load(ordering: .relaxed)
        let count = isQuiet ? 3 + guarded.pointee.sockets.descriptors(into: descriptors + 3) : 2
        unlock()
        followChanges(linux_wait_any(descriptors, Int32(count), tick))
        if pointee.progressThread.rounds.load(ordering: .relaxed) == before {
            pointee.progressThread.isForeground.store(false, ordering: .relaxed)
        } else {
            pointee.lock.lock()
            if isQuiet || guarded.pointee.link.held.since != 0 {
                _ = pump(now: currentTime(), receivesDatagrams: true)
            }
            unlock()
        }
    }

    /// Stays awake for a while after a packet, since a sleep and a wake-up take longer than the time to the next packet
    /// while a peer sends many: looks for packets and yields the processor by turns.
    /// - Returns: Whether there were packets.
    private func linger() -> Bool {
        pointee.lock.lock()
        let lingers = guarded.pointee.times.lingers
        let first = guarded.pointee.link.packetCount
        if lingers { guarded.pointee.senders.setSleeping(false) }
        unlock()
        guard lingers else { return false }
        var count = first
        let start = linux_monotonic_ns()
        var last = start
        while !pointee.progressThread.stops.load(ordering: .relaxed),
            !pointee.progressThread.isForeground.load(ordering: .relaxed)
        {
            pointee.lock.lock()
            let now = currentTime()
            guard now < last &+ lingerTime, now < start &+ longestLinger else {
                unlock()
                break
            }
            _ = pump(now: now, receivesDatagrams: true)
            if guarded.pointee.link.packetCount != count { last = now }
            count = guarded.pointee.link.packetCount
            unlock()
            guard yieldIsShort(since: now) else { break }
        }
        pointee.lock.lock()
        guarded.pointee.times.lingers = false
        unlock()
        return count != first
    }

    /// Decides from the length of a sleep whether to stay awake after the packets that ended it.
    private func noteSleep(_ nanoseconds: UInt64) {
        guard nanoseconds < lingerTime,
            linux_monotonic_ns() >= pointee.progressThread.sharedUntil.load(ordering: .relaxed)
        else { return }
        pointee.lock.lock()
        guarded.pointee.times.lingers = true
        unlock()
    }

    /// Runs the engine until it is idle, and prepares for sleep.
    /// - Returns: The number of descriptors to wait on; nil when there is more work.
    private func runInBackground(_ descriptors: UnsafeMutablePointer<Int32>) -> Int? {
        pointee.lock.lock()
        defer { unlock() }
        let now = currentTime()
        linux_drain(pointee.progressThread.timer)
        guarded.pointee.times.timerAt = 0
        guarded.pointee.senders.listenAgain()
        // Wake-ups are requested before the rings are checked for the last time, so that no packet is missed.
        requestWakeups()
        if pump(now: now, receivesDatagrams: true) { return nil }
        guarded.pointee.senders.dropEnded()
        if let deadline = nextDeadline(now: now) { setTimer(deadline) }
        descriptors[0] = pointee.progressThread.wakeup
        descriptors[interfacesIndex] = pointee.progressThread.interfaces
        descriptors[2] = pointee.progressThread.timer
        descriptors[3] = guarded.pointee.senders.readyList
        return 4 + guarded.pointee.sockets.descriptors(into: descriptors + 4)
    }
}
