import CMProtocol
import Synchronization

/// Passes the fuzzer's input to the parser of messages of the connection manager, and to an endpoint that listens and
/// connects.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCMMessages(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: start, count: count))
    guard let message = try? CMMessage(parsing: bytes) else { return 0 }
    guard (try? CMMessage(parsing: message.bytes)) == message else { fatalError("a written message reads otherwise") }
    _ = IPAddresses(parsing: Array(bytes.dropFirst(164)))
    receive(message)
    return 0
}

/// An endpoint with a listener and one connection of each side takes the message twice, and time passes.
private func receive(_ message: CMMessage) {
    let path = CMPath(local: PortGID(low: 1), remote: PortGID(low: 2), device: 0)
    let count = Atomic<UInt64>(0)
    var endpoint = CMEndpoint(random: { count.wrappingAdd(1, ordering: .relaxed).newValue })
    _ = try? endpoint.listen(serviceID: 0x0106_1C06, address: nil)
    let active = endpoint.connect(ConnectRequest(), on: path, now: 0)
    var events: [CMEvent] = []
    for step in 1...4 {
        endpoint.receive(message, on: path, now: UInt64(step))
        while let event = endpoint.nextEvent() { events.append(event) }
        for event in events {
            switch event.kind {
            case .requested: try? endpoint.accept(event.identifier, ConnectReply(), now: UInt64(step))
            case .serviceRequested: try? endpoint.replyToService(event.identifier, ServiceReply(), now: UInt64(step))
            case .replied: try? endpoint.establish(event.identifier, now: UInt64(step))
            case .disconnected: try? endpoint.disconnect(event.identifier, now: UInt64(step))
            default: break
            }
        }
        while endpoint.nextTransmission() != nil {}
    }
    endpoint.release(active, now: 5)
    for event in events { endpoint.release(event.identifier, now: 5) }
    // With all timers expired, no connection is left.
    for _ in 0..<64 { if let deadline = endpoint.nextDeadline { endpoint.advance(to: deadline) } }
    if endpoint.connectionCount != 0 { fatalError("\(endpoint.connectionCount) connections do not end") }
}
