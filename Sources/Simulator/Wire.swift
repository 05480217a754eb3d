import CSimulator

/// A port's socket on the wire to the devices of other processes: it sends and receives messages, independent of their
/// contents. Messages to the port itself are sent over the wire too.
final class Wire {
    /// The result of sending a message.
    enum Sending {
        case sent
        /// The destination port's socket is full.
        case full
        /// There is no such port, or it is not open.
        case unreachable
    }

    /// The port's LID.
    let lid: UInt16
    private let directory: Text
    private var socket: Int32 = -1
    /// Acknowledgements that wait for room in the requester's socket: at most one for each of its queue pairs.
    private var waiting: [(message: sim_wire_message, payload: Int32, lid: UInt16)] = []
    private static let maxWaiting = 4096

    /// Allocates a LID on the wire.
    init(_ directory: Text) throws(Refusal) {
        let lid = sim_wire_join(directory.cString)
        try demand(lid > 0, -lid, "there is no wire in this directory")
        self.lid = UInt16(lid)
        self.directory = directory
    }

    deinit { close() }

    /// The socket, for ppoll(2); -1 while it is closed.
    var descriptor: Int32 { socket }

    func open() throws(Refusal) {
        guard socket < 0 else { return }
        socket = sim_wire_open(directory.cString, lid)
        try demand(socket >= 0, -socket, "the wire has no place for this port")
    }

    /// Sends the waiting acknowledgements, as far as there is room for them, and closes the port.
    func close() {
        guard socket >= 0 else { return }
        sendWaiting()
        for ack in waiting where ack.payload >= 0 { sim_discard(ack.payload) }
        waiting = []
        sim_wire_close(socket)
        socket = -1
    }

    /// Sends a message with its payload.
    func send(_ message: sim_wire_message, _ bytes: UnsafeRawBufferPointer, to lid: UInt16) -> Sending {
        let payload = bytes.count > 0 ? sim_payload(bytes.baseAddress, bytes.count) : -1
        if bytes.count > 0 && payload < 0 { return .full }
        defer { if payload >= 0 { sim_discard(payload) } }
        return send(message, payload, to: lid)
    }

    private func send(_ message: sim_wire_message, _ payload: Int32, to lid: UInt16) -> Sending {
        guard socket >= 0, lid != 0 else { return .unreachable }
        var message = message
        message.version = UInt16(SIM_WIRE_VERSION)
        message.size = UInt16(MemoryLayout<sim_wire_message>.size)
        message.source = self.lid
        switch sim_wire_send(directory.cString, socket, lid, &message, payload) {
        case 0: return .sent
        case EAGAIN: return .full
        default: return .unreachable
        }
    }

    /// Sends an acknowledgement, or queues it until the requester's socket has room.
    func sendAcknowledgement(_ message: sim_wire_message, _ bytes: UnsafeRawBufferPointer, to lid: UInt16) {
        guard waiting.isEmpty else { return enqueue(message, bytes, lid) }
        if case .full = send(message, bytes, to: lid) { enqueue(message, bytes, lid) }
    }

    private func enqueue(_ message: sim_wire_message, _ bytes: UnsafeRawBufferPointer, _ lid: UInt16) {
        guard waiting.count < Wire.maxWaiting else { return }
        let payload = bytes.count > 0 ? sim_payload(bytes.baseAddress, bytes.count) : -1
        waiting.append((message, payload, lid))
    }

    /// Sends the waiting acknowledgements. Returns false when a socket had no room for one of them.
    @discardableResult
    func sendWaiting() -> Bool {
        var isFull = false
        waiting.removeAll { ack in
            if case .full = send(ack.message, ack.payload, to: ack.lid) {
                isFull = true
                return false
            }
            if ack.payload >= 0 { sim_discard(ack.payload) }
            return true
        }
        return !isFull
    }

    /// Receives the next message; nil when there is none.
    ///
    /// - Parameter message: Receives the payload.
    func receive(_ message: Message) throws(Refusal) -> sim_wire_message? {
        guard socket >= 0 else { return nil }
        var header = sim_wire_message()
        var payload: Int32 = -1
        let size = sim_wire_receive(socket, &header, &payload)
        if size == 0 { return nil }
        defer { if payload >= 0 { sim_discard(payload) } }
        try check(header, size: size)
        try read(header, payload, into: message)
        return header
    }

    private func check(_ header: sim_wire_message, size: Int) throws(Refusal) {
        let right = MemoryLayout<sim_wire_message>.size
        try demand(size == right, EPROTO, "a message of another length, in bytes", has: size, wants: right)
        try demand(
            header.version == UInt16(SIM_WIRE_VERSION) && Int(header.size) == right, EPROTO,
            "a message of another version of the simulator", has: Int(header.version), wants: Int(SIM_WIRE_VERSION))
        try demand(header.source != 0, EPROTO, "a message without a source port")
        try demand(
            header.flags & ~UInt8(SIM_WIRE_FLAGS.rawValue) == 0, EPROTO, "unknown flags",
            has: Int(header.flags))
        try demand(
            header.length <= Device.longestMessage, EPROTO, "longer than the longest message, in bytes",
            has: Int(truncatingIfNeeded: header.length), wants: Int(Device.longestMessage))
        try demand(
            header.path_mtu >= 256 && header.path_mtu <= 4096, EPROTO, "there is no such path MTU",
            has: Int(header.path_mtu))
    }

    private func read(_ header: sim_wire_message, _ payload: Int32, into message: Message) throws(Refusal) {
        message.reserve(0)
        // A READ request has a length and no payload.
        guard payload >= 0 else { return }
        message.reserve(Int(header.length))
        message.count = Int(header.length)
        guard sim_payload_read(payload, message.bytes, message.count) else {
            message.count = 0
            throw Refusal(EPROTO, "a message whose payload is shorter than its length", has: Int(header.length))
        }
    }

    /// Calls `body` with the LID of every port on the wire, open or closed, this one included.
    func forEachPort(_ body: (UInt16) -> Void) {
        var other: UInt16 = 1
        while sim_wire_exists(directory.cString, other) {
            body(other)
            other += 1
        }
    }

    /// Whether this LID is allocated.
    func exists(_ lid: UInt16) -> Bool { lid != 0 && sim_wire_exists(directory.cString, lid) }

    /// Allocates a port of a port space among all processes on the wire. Returns an errno value.
    func claim(_ space: UInt16, _ port: UInt16) -> Int32 { sim_cm_claim(directory.cString, space, port, lid) }

    /// Shows to tests that a program listens at an allocated port.
    func showListener(_ space: UInt16, _ port: UInt16) { sim_cm_show_listener(directory.cString, space, port, lid) }

    func release(_ space: UInt16, _ port: UInt16) { sim_cm_release(directory.cString, space, port, lid) }

    /// The LID of the process that has a port; 0: none.
    func owner(_ space: UInt16, _ port: UInt16) -> UInt16 { sim_cm_owner(directory.cString, space, port) }

    /// Whether the port is open and its process exists.
    func isOpen(_ lid: UInt16) -> Bool { sim_wire_is_open(directory.cString, lid) }
}
