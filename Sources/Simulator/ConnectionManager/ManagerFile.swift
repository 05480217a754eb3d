import CSimulator

/// An open descriptor of /dev/infiniband/rdma_cm (`struct ucma_file`): the events of its identifiers. poll(2) reports
/// it as readable while an event is waiting.
final class ManagerFile {
    let descriptor: Int32
    let manager: ConnectionManager
    private(set) var events: [ManagerEvent] = []

    init(_ manager: ConnectionManager) throws(Refusal) {
        self.manager = manager
        descriptor = sim_counter()
        try demand(descriptor >= 0, -descriptor, "no descriptor is left for rdma_cm")
    }

    func add(_ event: ManagerEvent) {
        events.append(event)
        sim_count_up(descriptor)
    }

    func removeFirst() -> ManagerEvent {
        sim_count_down(descriptor)
        return events.removeFirst()
    }

    /// Removes the events for which `isWanted` is true, and returns them.
    func take(where isWanted: (ManagerEvent) -> Bool) -> [ManagerEvent] {
        let taken = events.filter(isWanted)
        events.removeAll(where: isWanted)
        for _ in taken { sim_count_down(descriptor) }
        return taken
    }
}

/// The events of `enum rdma_cm_event_type` (rdma/rdma_cma.h).
enum ManagerEventType: UInt32 {
    case addressResolved, addressError, routeResolved, routeError, connectRequest, connectResponse, connectError,
        unreachable, rejected, established, disconnected, deviceRemoval, multicastJoin, multicastError, addressChange,
        timeWaitExit
}

/// A waiting event (`struct ucma_event`).
struct ManagerEvent {
    /// The identifier that counts it; of a request, the listener.
    let identifier: Identifier
    /// The new identifier of a request.
    var request: Identifier?
    var membership: Membership?
    var response: rdma_ucm_event_resp
}

/// The contents of an event besides its type.
struct EventContents {
    var status: Int32 = 0
    var parameters = rdma_ucm_conn_param()
    var datagram = rdma_ucm_ud_param()
    var ece = rdma_ucm_ece()

    init(status: Int32 = 0) { self.status = status }

    /// Sets the private data: the bytes of a message, cut or padded to `size` bytes.
    mutating func setPrivateData(_ message: sim_cm_message, size: Int) {
        let count = min(size, Int(message.private_data_length))
        withUnsafeBytes(of: message.private_data) { data in
            let data = UnsafeRawBufferPointer(rebasing: data[..<count])
            withUnsafeMutableBytes(of: &parameters.private_data) { $0.copyMemory(from: data) }
            withUnsafeMutableBytes(of: &datagram.private_data) { $0.copyMemory(from: data) }
        }
        parameters.private_data_len = UInt8(size)
        datagram.private_data_len = UInt8(size)
    }
}

extension ConnectionManager {
    /// Adds an event of an identifier to its file. The identifier of a request has none before it is accepted.
    func raise(
        _ type: ManagerEventType, _ identifier: Identifier, _ contents: EventContents = EventContents(),
        membership: Membership? = nil
    ) {
        guard identifier.userID != 0 else { return }
        var response = Self.response(type, identifier, contents)
        if let membership {
            response.uid = membership.userID
            response.id = membership.number
        }
        identifier.file.add(ManagerEvent(identifier: identifier, membership: membership, response: response))
    }

    /// Adds the event of a request, which a listener receives.
    func raise(request: Identifier, _ listener: Identifier, _ contents: EventContents) {
        var response = Self.response(.connectRequest, request, contents)
        response.uid = listener.userID
        listener.file.add(ManagerEvent(identifier: listener, request: request, response: response))
    }

    private static func response(
        _ type: ManagerEventType, _ identifier: Identifier, _ contents: EventContents
    ) -> rdma_ucm_event_resp {
        var response = rdma_ucm_event_resp()
        response.uid = identifier.userID
        response.id = identifier.number
        response.event = type.rawValue
        response.status = UInt32(bitPattern: contents.status)
        if identifier.isDatagram {
            response.param.ud = contents.datagram
        } else {
            response.param.conn = contents.parameters
        }
        response.ece = contents.ece
        return response
    }
}
