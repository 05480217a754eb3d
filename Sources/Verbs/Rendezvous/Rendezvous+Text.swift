// Values travel as their text, in UTF-8: what one program writes another can read, in whatever language.
extension Rendezvous {
    /// Hands this side's value over and returns the other side's: both call it.
    ///
    /// - Parameters:
    ///   - value: at most ``maximumMessageSize`` bytes as text.
    ///   - timeout: how long to wait for the peer's value.
    public func exchange<Value: LosslessStringConvertible>(
        _ value: Value, timeout: Duration = defaultTimeout
    ) throws(RendezvousError) -> Value {
        try send(text: value.description, timeout: timeout)
        let text = try receiveText(timeout: timeout)
        guard let remote = Value(text) else {
            let reason = RendezvousError.Reason.unexpectedMessage("\"\(text.prefix(80))\" is no \(Value.self)")
            throw RendezvousError(reason, operation: "receive from \(peerName)")
        }
        return remote
    }

    /// Sends one message of text.
    public func send(text: String, timeout: Duration = defaultTimeout) throws(RendezvousError) {
        try send(bytes: Array(text.utf8), timeout: timeout)
    }

    /// Waits for the peer's next message of text. Bytes that are no UTF-8 are repaired.
    public func receiveText(timeout: Duration = defaultTimeout) throws(RendezvousError) -> String {
        String(decoding: try receiveBytes(timeout: timeout), as: UTF8.self)
    }
}
