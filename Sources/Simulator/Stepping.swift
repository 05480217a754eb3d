import CSimulator

// Running a device: in steps (`uverbs_sim_step`), or by a thread.

extension Device {
    /// Receives messages from the wire and executes WQEs until there are none left. Returns the number of executed
    /// WQEs.
    func step() -> Int {
        let before = executed
        steps += 1
        while runOnce() {}
        return executed - before
    }

    /// Receives some messages from the wire and runs. Returns whether messages were received or sent.
    private func runOnce() -> Bool {
        let before = transmitted
        let arrivals = receiveMessages()
        manager.run()
        run()
        if arrivals == 0 {
            failUnreachable()
            // Rarely: it looks at the port of every connection.
            if options.isIWARP && steps & 63 == 0 { abortUnreachable() }
            manager.endLostConnections(self)
        }
        return arrivals > 0 || transmitted != before
    }

    // MARK: - The thread

    /// Starts the thread of a `free` device when the device is first opened, so that a program that does not open it,
    /// or calls fork(2) before, has no thread.
    func startRunning() {
        guard options.runsInThread, !isRunning else { return }
        pause = Device.shortestPause
        isRunning = sim_start_thread(Int32(index))
    }

    /// One step of the thread. Returns the time to sleep before the next one, in nanoseconds; negative: the thread
    /// ends.
    func runFreely() -> Int64 {
        guard isInUse, !isDead else {
            isRunning = false
            return -1
        }
        let before = (executed, completed)
        steps += 1
        _ = runOnce()
        // An RNR NAK is no progress: the retries become rarer.
        pause = (executed, completed) != before ? Device.shortestPause : min(pause + pause / 16, Device.longestPause)
        return pause
    }

    private static let shortestPause: Int64 = 20_000
    /// Reached after about a tenth of a second without progress.
    private static let longestPause: Int64 = 5_000_000
}
