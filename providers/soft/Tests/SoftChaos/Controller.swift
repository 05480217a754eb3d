import Glibc

/// Starts two peers, lets them exchange data for one epoch after the other, and does harm meanwhile.
final class Controller {
    /// The harm of an epoch.
    private enum Harm: String, CaseIterable {
        /// Nothing.
        case calm
        /// SIGSTOP and SIGCONT.
        case stop
        /// Deregistration of memory that the other peer accesses.
        case revoke
        /// The same while the other peer is stopped, most often in the middle of a copy.
        case revokeWhileStopped = "revoke-while-stopped"
        /// Destruction of queue pairs.
        case destroy
        /// SIGKILL, then deregistration by the survivor.
        case kill
        /// SIGSTOP, deregistration, SIGKILL.
        case killWhileStopped = "kill-while-stopped"
        /// New processes with small limits.
        case limits
        /// New processes while /dev/shm is full, or read-only.
        case sharedMemory = "shared-memory"
    }

    private let isVerbose: Bool
    private var random: Random
    private let folder: SharedMemoryFolder?
    private var peers: [Child] = []
    private var epochNumber: UInt64
    private var counts: [Harm: Int] = [:]
    private var statuses: [UInt32: Int] = [:]
    private var operations = 0
    private var bytes = 0
    private var revoked = 0
    private var busy = 0
    private var processes = 0
    private var refused = 0
    /// What happens now, for the message of a failure.
    private(set) var now = "the start"

    /// - Parameter isVerbose: Whether to print each epoch with its duration.
    init(seed: UInt64, folder: SharedMemoryFolder?, isVerbose: Bool) {
        self.isVerbose = isVerbose
        self.folder = folder
        random = Random(seed: seed)
        epochNumber = (Random.mix(seed) >> 32) << 16
    }

    /// Runs each kind of epoch once, and then random ones until the time is over.
    func run(seconds: Double) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        let harms = Harm.allCases.filter { $0 != .sharedMemory || folder != nil }
        // A copy in progress is interrupted only by chance, so these are the most frequent. The slow ones are rare: a
        // peer that is gone is noticed after the retries.
        let frequent: [Harm] = [.stop, .revoke, .revoke, .revokeWhileStopped, .revokeWhileStopped, .revokeWhileStopped]
        try startPeers()
        var next = harms.shuffled(using: &random)
        while !next.isEmpty || ContinuousClock.now < end {
            let harm = next.popLast() ?? (random.once(in: 8) ? harms : frequent).randomElement(using: &random)!
            let start = ContinuousClock.now
            try run(harm)
            if isVerbose { say("\(ContinuousClock.now - start): \(now)") }
        }
        now = "the end"
        try quitPeers()
        try folder?.set(.usual)
    }

    var summary: String {
        let epochs = Harm.allCases.map { "\($0.rawValue) \(counts[$0, default: 0])" }.joined(separator: ", ")
        let failed = statuses.sorted { $0.key < $1.key }.map { "\($0.value) with status \($0.key)" }.joined(
            separator: ", ")
        return """
            epochs: \(epochs)
            \(operations) operations verified, \(bytes >> 20) MiB compared; \(processes) processes, \(refused) of them refused by their limits
            \(revoked) regions revoked, \(busy) of them EBUSY at first; connections that ended: \(failed)
            """
    }

    // MARK: Processes

    private func startPeers(_ limits: Limits = Limits()) throws {
        peers = []
        for role in 0...1 { peers.append(try start(role, limits)) }
    }

    private func start(_ role: Int, _ limits: Limits = Limits()) throws -> Child {
        processes += 1
        let child = try Child(role: role, limits)
        if try child.firstAnswer([.ready, .refused]).kind == .ready { return child }
        guard limits.fileSize != nil || limits.descriptors != nil else { throw Failure("a device cannot be opened") }
        // With very few descriptors a device cannot be opened: an error, and the process ends by itself.
        let status = child.waitForExit()
        guard status == "status 3" else { throw Failure("a peer without a device ended with \(status)") }
        refused += 1
        return try start(role)
    }

    private func quitPeers() throws {
        for peer in peers {
            try peer.tell(Command(kind: .quit))
            let status = peer.waitForExit()
            guard status.isEmpty else { throw Failure("peer \(peer.role) ended: \(status)") }
        }
        peers = []
    }

    // MARK: Epochs

    private func run(_ harm: Harm) throws {
        counts[harm, default: 0] += 1
        epochNumber += 1
        let isSlow = [.destroy, .kill, .killWhileStopped].contains(harm)
        var epoch = Epoch(
            number: epochNumber, lanes: Int.random(in: 2...4, using: &random),
            depth: Int.random(in: 1...3, using: &random),
            sleeps: [random.once(in: 3), random.once(in: 3)])
        epoch.large = [.revokeWhileStopped, .killWhileStopped].contains(harm) || random.once(in: 2)
        // Where connections end, some of them end only after the retries.
        epoch.retries = harm == .destroy ? 3 : isSlow || harm == .revoke || harm == .revokeWhileStopped ? 1 : 7
        epoch.hasSharedWord = [.calm, .stop, .limits, .sharedMemory].contains(harm)
        if !isSlow && random.once(in: 4) { epoch.passive = Int.random(in: 0...1, using: &random) }
        now = "epoch \(counts.values.reduce(0, +)) (\(harm.rawValue), \(epoch))"
        guard harm != .limits else { return try runLimited(epoch) }
        if harm == .sharedMemory { try restart(harm) }

        try begin(epoch)
        pause(200)
        // The harm is done to one peer; the other one must notice, or must not.
        let victim = epoch.passive.map { 1 - $0 } ?? Int.random(in: 0...1, using: &random)
        var harmed: Set<Int> = []
        switch harm {
        case .calm, .sharedMemory: pause(200)
        case .limits: throw Failure("an epoch with limits is another function")
        case .stop: try stop(epoch)
        case .revoke: harmed = try revoke(epoch)
        case .revokeWhileStopped: harmed = try revokeWhileStopped(victim, epoch) { peers[victim].signal(SIGCONT) }
        case .destroy:
            let lane = Int.random(in: 0..<epoch.lanes, using: &random)
            harmed = [lane]
            try peers[victim].tell(Command(kind: .destroy, lane: lane))
            try peers[victim].answer(.destroyed)
            pause(5)
        case .kill:
            peers[victim].signal(SIGKILL)
            try survive(victim, epoch) { try revokeAll(at: 1 - victim, epoch) }
            return
        case .killWhileStopped:
            try survive(victim, epoch) {
                _ = try revokeWhileStopped(victim, epoch) { peers[victim].signal(SIGKILL) }
            }
            return
        }
        try end(epoch, harm, harmed)
    }

    /// An epoch of peers with small limits, after which there are new ones without.
    private func runLimited(_ epoch: Epoch) throws {
        do {
            try restart(.limits)
            try begin(epoch)
            pause(400)
            try end(epoch, .limits, [])
            try quitPeers()
        } catch let failure as Failure where "\(failure)".contains("EMFILE") {
            // With few descriptors any verb can fail; it says so.
            refused += 1
            for peer in peers {
                peer.signal(SIGKILL)
                _ = peer.waitForExit()
            }
        }
        try startPeers()
    }

    /// Sleeps for a random time, most often a short one.
    private func pause(_ milliseconds: Int) {
        let microseconds = Int.random(in: 0...milliseconds * 1000, using: &random)
        usleep(UInt32(random.once(in: 2) ? microseconds / 10 : microseconds))
    }

    private func begin(_ epoch: Epoch) throws {
        for peer in peers { try peer.tell(Command(kind: .open, epoch: epoch)) }
        let endpoints = try peers.map { try $0.answer(.opened).endpoints! }
        for peer in peers { try peer.tell(Command(kind: .connect, endpoints: endpoints[1 - peer.role])) }
        for peer in peers { try peer.answer(.connected) }
        for peer in peers { try peer.tell(Command(kind: .run)) }
    }

    /// New processes, with small limits or with another /dev/shm.
    private func restart(_ harm: Harm) throws {
        try quitPeers()
        try folder?.set(.usual)
        var limits = Limits()
        if harm == .sharedMemory {
            try folder?.set([.full, .readOnly].randomElement(using: &random)!)
        } else if random.once(in: 2) {
            limits.fileSize = [0, 4096, 300_000, 1 << 20].randomElement(using: &random)!
        } else {
            limits.descriptors = Int.random(in: 2...30, using: &random)
        }
        now += " with \(limits)"
        try startPeers(limits)
    }

    private func stop(_ epoch: Epoch) throws {
        for _ in 0..<Int.random(in: 2...12, using: &random) {
            let peer = peers[Int.random(in: 0...1, using: &random)]
            peer.signal(SIGSTOP)
            pause(30)
            peer.signal(SIGCONT)
            pause(10)
        }
    }

    private func revoke(_ epoch: Epoch) throws -> Set<Int> {
        let lanes = (0..<epoch.lanes).shuffled(using: &random)
        for lane in lanes {
            let peer = peers[epoch.passive ?? Int.random(in: 0...1, using: &random)]
            try peer.tell(Command(kind: .revoke, lane: lane))
            try peer.answer(.tried)
            try peer.answer(.revoked)
            revoked += 1
            pause(20)
        }
        return Set(lanes)
    }

    /// Stops a peer, tries to revoke the other's memory, lets the stopped peer go on (or kills it), and waits until the
    /// memory is revoked.
    private func revokeWhileStopped(_ victim: Int, _ epoch: Epoch, _ release: () -> Void) throws -> Set<Int> {
        let stopped = peers[victim]
        let other = peers[1 - victim]
        stopped.signal(SIGSTOP)
        pause(1)
        for lane in 0..<epoch.lanes {
            try other.tell(Command(kind: .revoke, lane: lane))
            // The verb returns although the peer is stopped.
            try other.answer(.tried)
        }
        pause(5)
        release()
        for _ in 0..<epoch.lanes {
            try other.answer(.revoked)
            revoked += 1
        }
        pause(5)
        return Set(0..<epoch.lanes)
    }

    private func revokeAll(at role: Int, _ epoch: Epoch) throws {
        for lane in 0..<epoch.lanes { try peers[role].tell(Command(kind: .revoke, lane: lane)) }
        for _ in 0..<epoch.lanes { try peers[role].answer(.revoked) }
        revoked += epoch.lanes
    }

    /// The survivor of a killed peer sees an error on each connection, and goes on with a new peer.
    private func survive(_ victim: Int, _ epoch: Epoch, _ meanwhile: () throws -> Void) throws {
        try meanwhile()
        peers[victim].kill()
        let survivor = peers[1 - victim]
        try survivor.answer(.allFailed)
        try survivor.tell(Command(kind: .halt))
        try survivor.answer(.drained)
        try survivor.tell(Command(kind: .report))
        let report = try survivor.answer(.report).report!
        note(report)
        for (index, lane) in report.lanes.enumerated() where ![5, 10, 12].contains(lane.status) {
            throw Failure("lane \(index) of the survivor ended with status \(lane.status)")
        }
        peers[victim] = try start(victim)
    }

    private func note(_ report: Report) {
        operations += report.operations
        bytes += report.bytes
        busy += report.busy
        for lane in report.lanes where lane.status != 0 { statuses[lane.status, default: 0] += 1 }
    }

    // MARK: The end of an epoch

    private func end(_ epoch: Epoch, _ harm: Harm, _ harmed: Set<Int>) throws {
        for peer in peers { try peer.tell(Command(kind: .halt)) }
        for peer in peers { try peer.answer(.drained) }
        for peer in peers { try peer.tell(Command(kind: .report)) }
        let reports = try peers.map { try $0.answer(.report).report! }
        for report in reports { note(report) }
        for peer in peers {
            while peer.hasAnswered(.allFailed) { try peer.answer(.allFailed) }
            for lane in 0..<epoch.lanes {
                try check(
                    reports[peer.role].lanes[lane], reports[1 - peer.role].lanes[lane], isHarmed: harmed.contains(lane),
                    "lane \(lane) of peer \(peer.role)", harm)
            }
        }
        // Of a connection that failed, it is not known which of the last increments were added.
        guard epoch.hasSharedWord, reports.allSatisfy({ $0.lanes.allSatisfy { $0.status == 0 } }) else { return }
        for role in 0...1 {
            let expected = reports[1 - role].lanes.reduce(reports[role].addedByProcessor) { $0 &+ $1.addedToShared }
            guard reports[role].sharedWord == expected else {
                throw Failure("the shared word of peer \(role) is \(reports[role].sharedWord), not \(expected)")
            }
        }
    }

    /// Compares what one peer has sent with what the other one has received.
    private func check(
        _ sender: Report.Lane, _ receiver: Report.Lane, isHarmed: Bool, _ name: String, _ harm: Harm
    ) throws {
        // 10: REM_ACCESS_ERR, of the request to revoked memory. 5: WR_FLUSH_ERR, of requests of a connection that the
        // peer's request has ended. 12: RETRY_EXC_ERR, when the peer's queue pair is gone, or is in ERR and its NAK was
        // lost, which happens when this peer has not had a processor for some milliseconds.
        // With few descriptors, a process may be unable to accept a connection for longer than the retries last.
        let allowed: Set<UInt32> =
            !isHarmed ? (harm == .limits ? [0, 12] : [0]) : harm == .destroy ? [0, 5, 12] : [0, 5, 10, 12]
        guard allowed.contains(sender.status) else { throw Failure("\(name) ended with status \(sender.status)") }
        guard (sender.sendsCompleted...sender.sendsPosted).contains(receiver.sendsReceived) || harm == .destroy else {
            throw Failure("\(name): \(sender.sendsCompleted) SENDs completed, \(receiver.sendsReceived) were received")
        }
        guard (sender.writesCompleted...sender.writesPosted).contains(receiver.writesReceived) || harm == .destroy
        else {
            throw Failure(
                "\(name): \(sender.writesCompleted) WRITEs with immediate completed, \(receiver.writesReceived) were received"
            )
        }
        // Requests are executed in order, so the word has the sum of the completed increments and of the first few others.
        guard let word = receiver.word else { return }
        var sum = sender.added
        var possible = [sum]
        for increment in sender.doubtful {
            sum &+= increment
            possible.append(sum)
        }
        guard possible.contains(word) else {
            throw Failure("\(name): the peer's word is \(word), not one of \(possible)")
        }
    }
}
