import CSimulator

// Who lets a device run: a test by steps, or a thread.

extension Device {
    /// Takes what has come over the wire, and runs, until there is nothing left of either. How many requests were carried
    /// out.
    func step() -> Int {
        let before = carriedOut
        steps += 1
        while takeStep() {}
        return carriedOut - before
    }

    /// Takes some of what has come over the wire, and runs. Whether anything was on the wire, or is now.
    private func takeStep() -> Bool {
        let before = transmitted
        let arrivals = receiveMessages()
        run()
        if arrivals == 0 { giveUp() }
        return arrivals > 0 || transmitted != before
    }

    // MARK: - The thread

    /// Starts the thread, if the device is to have one: at the first opening, so that a program which never opens it has
    /// none, nor one that makes another process of itself before.
    func startRunning() {
        guard options.isFree, !isRunning else { return }
        rest = Device.shortestRest
        isRunning = sim_start_thread(Int32(index))
    }

    /// One step of the thread: how long it may rest, in nanoseconds; negative: it ends.
    func runFreely() -> Int64 {
        guard !contexts.isEmpty, !isDead else {
            isRunning = false
            return -1
        }
        let before = (carriedOut, completed)
        steps += 1
        _ = takeStep()
        // To hear that a peer is not ready is no progress: the longer that goes on, the more rarely it is asked again.
        rest = (carriedOut, completed) != before ? Device.shortestRest : min(rest + rest / 16, Device.longestRest)
        return rest
    }

    private static let shortestRest: Int64 = 20_000
    /// After a tenth of a second without anything to do.
    private static let longestRest: Int64 = 5_000_000
}
