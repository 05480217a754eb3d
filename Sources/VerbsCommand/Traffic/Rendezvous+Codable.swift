import FoundationEssentials
import Rendezvous
import Verbs

// The peers of `verbs` exchange JSON: it is readable, and members can be added.
extension Rendezvous {
    /// Sends this process's value and returns the peer's. Both peers call it.
    ///
    /// - Parameters:
    ///   - value: At most ``maximumMessageSize`` bytes as JSON.
    ///   - timeout: How long to wait for the peer's value.
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

    /// The peer's next value if all of it has arrived, otherwise nil. Throws if the connection is closed.
    func receiveIfAvailable<Value: Decodable>(_ type: Value.Type) throws(RendezvousError) -> Value? {
        guard let message = try receiveBytesIfAvailable() else { return nil }
        return try decode(type, from: message)
    }

    /// Decodes a value from a message.
    func decode<Value: Decodable>(
        _ type: Value.Type, from message: [UInt8]
    ) throws(RendezvousError) -> Value {
        do {
            return try JSONDecoder().decode(type, from: Data(message))
        } catch {
            throw RendezvousError(.unexpectedMessage("not a \(type): \(error)"), operation: "receive from \(peerName)")
        }
    }
}
