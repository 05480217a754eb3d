import FoundationEssentials

// Values travel as JSON: two versions of a program can add fields without losing each other, and a person
// can read along. It runs a few times per connection; its speed does not matter.
extension Rendezvous {
    /// Hands this side's value over and returns the other side's: both call it.
    ///
    /// - Parameters:
    ///   - value: at most ``maximumMessageSize`` bytes as JSON.
    ///   - timeout: how long to wait for the peer's value.
    public func exchange<Value: Codable>(
        _ value: Value, timeout: Duration = defaultTimeout
    ) throws(RendezvousError) -> Value {
        try send(value, timeout: timeout)
        return try receive(Value.self, timeout: timeout)
    }

    /// Sends one value.
    public func send<Value: Encodable>(
        _ value: Value, timeout: Duration = defaultTimeout
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
    public func receive<Value: Decodable>(
        _ type: Value.Type, timeout: Duration = defaultTimeout
    ) throws(RendezvousError) -> Value {
        try decode(type, from: receiveBytes(timeout: timeout))
    }

    /// The peer's next value if all of it has arrived, else nil. Throws if the peer has gone.
    public func receiveIfAvailable<Value: Decodable>(_ type: Value.Type) throws(RendezvousError) -> Value? {
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
