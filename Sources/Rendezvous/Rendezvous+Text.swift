// Values are sent as UTF-8 text, so that programs in other languages can read them.
extension Rendezvous {
    /// Sends the local value and returns the peer's. Both programs call it.
    ///
    /// - Parameters:
    ///   - value: The local value; at most ``maximumMessageSize`` bytes as text.
    ///   - timeout: The time limit for sending, and for the peer's value.
    public func exchange<Value: LosslessStringConvertible>(
        _ value: Value, timeout: Duration = defaultTimeout
    ) throws(RendezvousError) -> Value {
        try send(text: value.description, timeout: timeout)
        let text = try receiveText(timeout: timeout)
        guard let remote = Value(text) else {
            let reason = RendezvousError.Reason.unexpectedMessage("\"\(text.prefix(80))\" is not a \(Value.self)")
            throw RendezvousError(reason, operation: "receive from \(peerName)")
        }
        return remote
    }

    /// Sends one text message.
    public func send(text: String, timeout: Duration = defaultTimeout) throws(RendezvousError) {
        try send(bytes: Array(text.utf8), timeout: timeout)
    }

    /// Waits for the peer's next text message. Invalid UTF-8 is replaced (U+FFFD).
    public func receiveText(timeout: Duration = defaultTimeout) throws(RendezvousError) -> String {
        String(decoding: try receiveBytes(timeout: timeout), as: UTF8.self)
    }
}
