import FoundationEssentials
import Verbs

// The two sides of `verbs` talk in JSON: a person can read along, and fields can be added.
extension Rendezvous {
    /// Hands this side's value over and returns the other side's: both call it.
    ///
    /// - Parameters:
    ///   - value: at most ``maximumMessageSize`` bytes as JSON.
    ///   - timeout: how long to wait for the peer's value.
    func exchange<Value: Codable>(
        _ value: Value, timeout: Duration = Rendezvous.defaultTimeout
    ) throws(RendezvousError) -> Value {
        try send(value, timeout: timeout)
        return try receive(Value.self, timeout: timeout)
    }

    /// Sends one value.
    func send<Value: Encodable>(
        _ value: Value, timeout: Duration = Rendezvous.defaultTimeout
    ) throws(RendezvousError) {
        let message: [UInt8]
        do {
            message = Array(try JSONEncoder().encode(value))
        } catch {
            throw RendezvousError(.unexpectedMessage("\(Value.self): \(error)"), operation: "send to \(peerName)")
        }
        try send(bytes: message, timeout: timeout)
    }

    /// Waits for the peer's next value.
    func receive<Value: Decodable>(
        _ type: Value.Type, timeout: Duration = Rendezvous.defaultTimeout
    ) throws(RendezvousError) -> Value {
        try decode(type, from: receiveBytes(timeout: timeout))
    }

    /// The peer's next value if all of it has arrived, else nil. Throws if the peer has gone.
    func receiveIfAvailable<Value: Decodable>(_ type: Value.Type) throws(RendezvousError) -> Value? {
        guard let message = try receiveBytesIfAvailable() else { return nil }
        return try decode(type, from: message)
    }

    private func decode<Value: Decodable>(
        _ type: Value.Type, from message: [UInt8]
    ) throws(RendezvousError) -> Value {
        do {
            return try JSONDecoder().decode(type, from: Data(message))
        } catch {
            throw RendezvousError(.unexpectedMessage("no \(type): \(error)"), operation: "receive from \(peerName)")
        }
    }
}
