import CLinux
import RoCETransport

/// The counters of an open device as text, for `verbs top` (`LINUX_LOCAL_COUNTERS`). The names are those of the kernel's
/// hw_counters where rxe or mlx5 has the counter.
struct CounterReport: ~Copyable {
    private let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: CounterReport.capacity)
    private(set) var count = 0

    private static let capacity = Int(LINUX_LOCAL_COUNTERS_SIZE)

    deinit { bytes.deallocate() }

    /// Appends a line.
    mutating func add(_ name: StaticString, _ value: UInt64) {
        let digits = UInt64.digits(of: value)
        guard count + name.utf8CodeUnitCount + digits + 2 <= Self.capacity else { return }
        append(UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        append(32)
        var rest = value
        for place in stride(from: count + digits - 1, through: count, by: -1) {
            bytes[place] = UInt8(48 + rest % 10)
            rest /= 10
        }
        count += digits
        append(10)
    }

    /// Appends the line of the device's name.
    mutating func addDevice(_ name: UnsafePointer<CChar>) {
        for byte in ("device " as StaticString).bytes { append(byte) }
        var next = name
        while next.pointee != 0, count < 128 {
            append(UInt8(bitPattern: next.pointee))
            next += 1
        }
        append(10)
    }

    private mutating func append(_ part: UnsafeBufferPointer<UInt8>) {
        for byte in part { append(byte) }
    }

    private mutating func append(_ byte: UInt8) {
        bytes[count] = byte
        count += 1
    }

    /// Sends the text. Without room in the connection it is dropped: the process that asked does not read.
    func send(on connection: Int32) {
        _ = linux_local_send(connection, bytes, count, nil, 0, -1)
    }

    /// The text, for tests.
    var text: [UInt8] { (0..<count).map { bytes[$0] } }
}

extension StaticString {
    fileprivate var bytes: UnsafeBufferPointer<UInt8> {
        UnsafeBufferPointer(start: utf8Start, count: utf8CodeUnitCount)
    }
}

extension UInt64 {
    /// The number of decimal digits.
    fileprivate static func digits(of value: UInt64) -> Int {
        var (rest, count) = (value, 1)
        while rest >= 10 {
            rest /= 10
            count += 1
        }
        return count
    }
}

extension ContextPointer {
    /// Sends the counters to a process that asked for them. Under the lock.
    @inline(never)
    func sendCounters(on connection: Int32) {
        var report = CounterReport()
        withUnsafeBytes(of: &pointee.verbs.context.device.pointee.name) { name in
            report.addDevice(name.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
        report.add(pointee.engine.counters)
        report.add(pointee.counters.pointee)
        report.add("gso_batches", guarded.pointee.sockets.segmentation.sentBatches)
        report.add("socket_drops", guarded.pointee.sockets.drops)
        report.send(on: connection)
    }
}

extension CounterReport {
    /// The counters of the engine.
    mutating func add(_ counters: Counters) {
        add("sent_pkts", counters.sentPackets)
        add("rcvd_pkts", counters.receivedPackets)
        add("sent_bytes", counters.sentBytes)
        add("rcvd_bytes", counters.receivedBytes)
        add("direct_requests", counters.directRequests)
        add("direct_bytes", counters.directBytes)
        add("retransmitted_pkts", counters.retransmittedPackets)
        add("local_ack_timeout_err", counters.timeouts)
        add("early_retransmissions", counters.probes)
        add("needless_retransmissions", counters.needlessProbes)
        add("rcvd_rnr_err", counters.rnrNAKsReceived)
        add("send_rnr_err", counters.rnrNAKsSent)
        add("rcvd_seq_err", counters.sequenceNAKsReceived)
        add("implied_nak_seq_err", counters.impliedNAKs)
        add("sent_naks", counters.naksSent)
        add("out_of_seq_request", counters.outOfSequence)
        add("held_requests", counters.heldRequests)
        add("duplicate_request", counters.duplicateRequests)
        add("stray_responses", counters.strayResponses)
        add("rcvd_cnps", counters.congestionNotifications)
        add("cq_overruns", counters.completionQueueOverruns)
        add("dropped_malformed", counters.droppedMalformed)
        add("dropped_no_qp", counters.droppedNoQueuePair)
        add("dropped_qp_state", counters.droppedState)
        add("dropped_address", counters.droppedAddress &+ counters.droppedServiceType)
        add("bad_pkey", counters.droppedPKey)
        add("qkey_violations", counters.droppedQKey)
        add("out_of_buffer", counters.droppedNoReceive)
        add("dropped_invalid", counters.droppedInvalid &+ counters.droppedTooLong &+ counters.droppedAccess)
    }

    /// The counters between the engine and its sockets and rings.
    mutating func add(_ counters: LinkCounters) {
        add("sent_datagrams", counters.sentDatagrams)
        add("rcvd_datagrams", counters.receivedDatagrams)
        add("gro_batches", counters.receivedBatches)
        add("sent_messages", counters.sentMessages)
        add("rcvd_messages", counters.receivedMessages)
        add("forwarded_pkts", counters.forwarded)
        add("rcvd_icrc_errors", counters.badICRC)
        add("rcvd_bad_length", counters.badLength)
        add("rcvd_bad_gid", counters.badAddress)
        add("rcvd_bad_mad", counters.badManagement)
        add("unreachable", counters.unreachable)
        add("ring_full", counters.ringFull)
    }
}
