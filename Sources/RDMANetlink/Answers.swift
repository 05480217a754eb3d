import Glibc

/// What the kernel answers to a request, datagram by datagram, until it is complete. A function of bytes alone.
struct Answers<Value> {
    enum End: Equatable {
        case complete
        /// The kernel refused with that errno value.
        case refused(Int32)
        case malformed(MalformedMessage)
    }

    /// The sequence number of the request: messages with another one are not for it.
    var sequence: UInt32 = 0
    private(set) var values: [Value] = []
    private(set) var end: End?
    private let isDump: Bool

    /// - Parameter isDump: whether the kernel says when it has told everything; otherwise one message is the answer.
    init(isDump: Bool) { self.isDump = isDump }

    mutating func take(_ datagram: [UInt8], _ read: (ArraySlice<UInt8>) throws(MalformedMessage) -> [Value]) {
        do throws(MalformedMessage) {
            for message in try Message.all(in: datagram) where message.sequence == sequence && end == nil {
                switch message.kind {
                // Negative errno values, down to -4095; the kernel has no greater ones.
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
