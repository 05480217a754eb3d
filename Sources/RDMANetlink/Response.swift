import Glibc

/// Collects the kernel's response to a request, datagram by datagram, until it is complete. It reads no socket.
struct Response<Value> {
    enum End: Equatable {
        case complete
        /// The kernel refused the request with that errno value.
        case refused(Int32)
        case malformed(MalformedMessage)
    }

    /// The sequence number of the request. Messages with another one are ignored.
    var sequence: UInt32 = 0
    private(set) var values: [Value] = []
    private(set) var end: End?
    private let isDump: Bool

    /// - Parameter isDump: Whether the response is a dump, which ends with `NLMSG_DONE`; otherwise it is one message.
    init(isDump: Bool) { self.isDump = isDump }

    /// Decodes the messages of a datagram. `read` returns the values of one payload.
    mutating func append(_ datagram: [UInt8], _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Value]) {
        do throws(MalformedMessage) {
            for message in try Message.all(in: datagram) where message.sequence == sequence && end == nil {
                switch message.kind {
                // A negative errno value, from -4095 to -1, or 0.
                case .end(let code): end = code < 0 ? .refused(0 &- code) : .complete
                case .overrun: end = .refused(ENOBUFS)
                case .data(_, let payload):
                    values += try read(payload)
                    if !isDump { end = .complete }
                }
            }
        } catch {
            end = .malformed(error)
        }
    }
}
