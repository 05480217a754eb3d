import Glibc
import Verbs

/// One of the two processes.
final class Peer {
    private let role: Int
    private let context: Context
    private let domain: ProtectionDomain
    private let channel: CompletionChannel
    private var queue: CompletionQueue
    private var input = LineReader(STDIN_FILENO)
    private var epoch = Epoch(number: 0, lanes: 0, depth: 0, sleeps: [false, false])
    private var lanes: [Lane] = []
    private var random = Random(seed: 0)
    /// Memory of earlier epochs that must not change.
    private var closed: [ClosedMemory] = []
    private var revoking: [Lane] = []
    private var isSending = false
    private var isDraining = false
    private var hasReportedFailure = false
    private var addedByProcessor: UInt64 = 0

    init(role: Int) throws {
        self.role = role
        context = try Device.named("soft0").open()
        domain = try context.makeProtectionDomain()
        channel = try context.makeCompletionChannel()
        queue = try context.makeCompletionQueue(capacity: 1024, channel: channel)
    }

    func run() throws {
        try answer(Answer(kind: .ready))
        while true {
            while let line = input.line(isReadable: isReadable(STDIN_FILENO, milliseconds: 0)) {
                let command = try decoded(Command.self, line)
                if command.kind == .quit { return }
                try execute(command)
            }
            // The controller has ended.
            if input.hasEnded { return }
            if try !work() { try wait() }
        }
    }

    private func answer(_ answer: Answer) throws { try writeAll(encoded(answer), to: STDOUT_FILENO) }

    // MARK: Commands

    private func execute(_ command: Command) throws {
        switch command.kind {
        case .open: try open(command.epoch!)
        case .connect:
            let peers = command.endpoints!
            for (lane, peer) in zip(lanes, peers) { try lane.connect(to: peer, shared: peers[0].memory) }
            try answer(Answer(kind: .connected))
        case .run: isSending = epoch.passive != role
        case .revoke:
            let lane = lanes[command.lane!]
            let isDone = try lane.revoke()
            try answer(Answer(kind: .tried, lane: lane.index))
            if isDone {
                try answer(Answer(kind: .revoked, lane: lane.index))
            } else {
                revoking.append(lane)
            }
        case .destroy:
            try lanes[command.lane!].destroy()
            try answer(Answer(kind: .destroyed, lane: command.lane))
        case .halt:
            isSending = false
            isDraining = true
        case .report: try report()
        case .quit: break
        }
    }

    private func open(_ epoch: Epoch) throws {
        for memory in closed { try memory.check() }
        closed = lanes.flatMap(\.closed)
        lanes = []
        revoking = []
        hasReportedFailure = false
        addedByProcessor = 0
        // Completions of destroyed queue pairs.
        while try queue.poll() != nil {}
        self.epoch = epoch
        random = Random(seed: epoch.number &* 4 &+ UInt64(role))
        lanes = try (0..<epoch.lanes).map { try Lane($0, role: role, epoch, domain, queue) }
        try answer(Answer(kind: .opened, endpoints: lanes.map { try $0.endpoint() }))
    }

    private func report() throws {
        // What has arrived before the peer's last request completed.
        while try poll() {}
        var report = Report()
        report.lanes = try lanes.map { try $0.finalReport() }
        if epoch.hasSharedWord { report.sharedWord = lanes[0].sharedWord }
        report.addedByProcessor = addedByProcessor
        report.operations = lanes.reduce(0) { $0 + $1.operationCount }
        report.bytes = lanes.reduce(0) { $0 + $1.byteCount }
        report.busy = lanes.reduce(0) { $0 + $1.busy }
        try answer(Answer(kind: .report, report: report))
    }

    // MARK: Traffic

    /// Posts, polls and retries once. Returns false when there was nothing to do.
    private func work() throws -> Bool {
        if isSending {
            for lane in lanes { try lane.post() }
            if epoch.hasSharedWord {
                let increment = random.next() >> 20
                lanes[0].addToOwnSharedWord(increment)
                addedByProcessor &+= increment
            }
        }
        let hasPolled = try poll()
        let waiting = revoking
        revoking = []
        for lane in waiting {
            if try lane.revoke() {
                try answer(Answer(kind: .revoked, lane: lane.index))
            } else {
                revoking.append(lane)
            }
        }
        if !lanes.isEmpty, !hasReportedFailure, lanes.allSatisfy(\.hasFailed) {
            hasReportedFailure = true
            try answer(Answer(kind: .allFailed))
        }
        if isDraining, lanes.allSatisfy({ $0.outstanding == 0 }) {
            isDraining = false
            try answer(Answer(kind: .drained))
        }
        return hasPolled
    }

    private func poll() throws -> Bool {
        var hasPolled = false
        for _ in 0..<32 {
            guard let completion = try queue.poll() else { break }
            hasPolled = true
            // Completions of a queue pair that has been destroyed do not count.
            let lane = lanes.first { $0.number == completion.queuePairNumber && $0.pair != nil }
            try lane?.complete(completion)
        }
        return hasPolled
    }

    /// Waits for an event or a command, without a time limit, so that an event that is lost is a hang.
    private func wait() throws {
        let isIdle = lanes.isEmpty || !isSending && !isDraining && epoch.passive == nil
        guard epoch.sleeps[role] || isIdle else { return }
        try queue.arm()
        // What has completed before that causes no event.
        if try work() { return }
        var entries = [
            pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0),
            pollfd(fd: channel.fileDescriptor.rawValue, events: Int16(POLLIN), revents: 0),
        ]
        _ = Glibc.poll(&entries, 2, revoking.isEmpty ? -1 : 1)
        if entries[1].revents != 0 { _ = try channel.wait(timeout: .zero) }
    }
}

func writeAll(_ bytes: [UInt8], to descriptor: Int32) throws {
    var start = 0
    while start < bytes.count {
        let count = bytes[start...].withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard count > 0 || errno == EINTR else { throw Failure("write: \(String(cString: strerror(errno)))") }
        start += max(count, 0)
    }
}
