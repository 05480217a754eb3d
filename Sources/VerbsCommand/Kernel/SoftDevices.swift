import CLinux
import FoundationEssentials
import Glibc

/// The open devices of the provider soft: of all processes of this user in this network namespace. Each is asked for its
/// counters over a connection to its slot, which stays open from one sample to the next, so that a sample wakes a
/// process once.
final class SoftDevices {
    /// The counters of an open device.
    struct Sample {
        var slot: Int
        var process: UInt32?
        /// The name of the device; nil: the process did not answer.
        var device: String?
        var values: [String: UInt64] = [:]
        /// In nanoseconds of `Clock`.
        var time: UInt64

        /// Reads an answer: see LINUX_LOCAL_COUNTERS. Lines of another form are ignored.
        mutating func read(_ text: some Collection<UInt8>) {
            device = "?"
            for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
                guard let space = line.firstIndex(of: " ") else { continue }
                let (name, value) = (String(line[..<space]), line[line.index(after: space)...])
                if name == "device" { device = String(value) } else { values[name] = UInt64(value) }
            }
        }

        /// The increase per second since `before` by counter name, without counters that did not change.
        func rates(since before: Sample) -> [String: Double] {
            let seconds = Double(max(time &- before.time, 1)) / 1e9
            var rates: [String: Double] = [:]
            for (name, value) in values {
                guard let old = before.values[name], value > old else { continue }
                rates[name] = Double(value - old) / seconds
            }
            return rates
        }
    }

    /// How long all devices together may take to answer. A process that is stopped never does.
    static let patience: UInt64 = 300_000_000

    /// The connections, by slot; -1: none.
    private var connections = [CInt](repeating: -1, count: SlotUse.count)

    deinit { for connection in connections where connection >= 0 { close(connection) } }

    /// Asks all devices, and waits at most `patience`.
    func sample() -> [Sample] {
        var samples: [Sample] = []
        for slot in connections.indices where ask(slot) {
            let process = linux_local_process(connections[slot])
            samples.append(
                Sample(slot: slot, process: process > 0 ? UInt32(process) : nil, device: nil, time: Clock.now()))
        }
        let deadline = Clock.now() &+ Self.patience
        var waiting = Array(samples.indices)
        while !waiting.isEmpty {
            let now = Clock.now()
            guard now < deadline else { break }
            var list = waiting.map { pollfd(fd: connections[samples[$0].slot], events: Int16(POLLIN), revents: 0) }
            _ = poll(&list, nfds_t(list.count), CInt((deadline - now) / 1_000_000 + 1))
            var silent: [Int] = []
            for (index, entry) in zip(waiting, list) {
                if entry.revents == 0 || !receive(&samples[index]) { silent.append(index) }
            }
            waiting = silent.filter { connections[samples[$0].slot] >= 0 }
        }
        // The answer to this question would be taken for that to the next one.
        for sample in samples where sample.device == nil { disconnect(sample.slot) }
        // A process that ended meanwhile has no device any more.
        return samples.filter { $0.device != nil || $0.process.map { kill(pid_t($0), 0) == 0 } ?? true }
    }

    /// Sends the question, on a new connection if there is none. Returns false when no device is open at this slot.
    private func ask(_ slot: Int) -> Bool {
        if connections[slot] >= 0 && linux_local_has_ended(connections[slot]) { disconnect(slot) }
        if connections[slot] < 0 {
            var name = [CChar](repeating: 0, count: 64)
            linux_slot_name(CInt(slot), &name)
            connections[slot] = max(linux_local_connect(name), -1)
        }
        guard connections[slot] >= 0 else { return false }
        var question: UInt64 = LINUX_LOCAL_COUNTERS
        // When the queue is full the process is stopped: it counts as silent.
        let error = linux_local_send(connections[slot], &question, MemoryLayout.size(ofValue: question), nil, 0, -1)
        if error != 0 && error != EAGAIN { disconnect(slot) }
        return connections[slot] >= 0
    }

    private func disconnect(_ slot: Int) {
        if connections[slot] >= 0 { close(connections[slot]) }
        connections[slot] = -1
    }

    /// Receives the answer. Returns false when there is none.
    private func receive(_ sample: inout Sample) -> Bool {
        var text = [UInt8](repeating: 0, count: Int(LINUX_LOCAL_COUNTERS_SIZE))
        var descriptor: CInt = -1
        let count = linux_local_receive(connections[sample.slot], &text, text.count, &descriptor)
        if descriptor >= 0 { close(descriptor) }
        guard count > 0 else {
            // A device of a version without counters closes the connection.
            if count != -EAGAIN { disconnect(sample.slot) }
            return false
        }
        sample.time = Clock.now()
        sample.read(text[..<Int(count)])
        return true
    }
}
