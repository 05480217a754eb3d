import CIBVerbs
import SystemPackage

// The errors of posting. Out of line: the path that works should hold nothing of them.

extension QueuePair {
    @usableFromInline @inline(never)
    func sendFailure(_ opcode: UInt32, slices: Int, _ code: Int32, posted: Int = 0) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice: Advice =
            if let advice = operationAdvice(errno, opcode) {
                advice
            } else if slices > Int(capabilities.sendSlices) {
                .tooManySlices(given: Int32(clamping: slices), limit: capabilities.sendSlices)
            } else if errno == .noMemory {
                .sendQueueFull(depth: capabilities.sendRequests)
            } else {
                .general(errno)
            }
        return VerbsError(.postSend, errno, owner.object, advice, postedCount: posted)
    }

    @usableFromInline @inline(never)
    func inlineFailure(_ opcode: UInt32, _ byteCount: Int, _ code: Int32) -> VerbsError {
        guard byteCount > Int(capabilities.inlineBytes) else { return sendFailure(opcode, slices: 0, code) }
        let advice = Advice.inlineTooLong(given: UInt32(clamping: byteCount), limit: capabilities.inlineBytes)
        return VerbsError(.postSend, Errno(rawValue: abs(code)), owner.object, advice)
    }

    private func operationAdvice(_ errno: Errno, _ opcode: UInt32) -> Advice? {
        guard errno == .invalidArgument || errno == .notSupported else { return nil }
        let opcode = SendOperation.Opcode(rawValue: opcode)
        if !opcode.isAllowed(on: kind) { return .operation(opcode, unfitFor: kind) }
        let state = lastKnownState
        if errno == .invalidArgument, [.reset, .initialized, .readyToReceive].contains(state) {
            return .cannotSend(in: state)
        }
        return nil
    }
}

extension QueuePair: ReceiveQueue {
    /// Posts a chain of work requests through the provider's function, unchecked: ibv_post_recv(3).
    @inlinable @inline(__always)
    public mutating func unsafePostReceive(
        _ first: UnsafeMutablePointer<ibv_recv_wr>, _ refused: inout UnsafeMutablePointer<ibv_recv_wr>?
    ) -> Int32 {
        raw.pointee.context.pointee.ops.post_recv.unsafelyUnwrapped(raw, first, &refused)
    }

    /// The error for a receive that was refused, after `posted` others.
    @inline(never)
    public func receiveFailure(slices: Int, _ code: Int32, posted: Int) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice: Advice =
            if raw.pointee.srq != nil {
                .text("it takes its receives from a shared receive queue: post there")
            } else if lastKnownState == .reset, errno == .invalidArgument {
                .cannotReceive(in: lastKnownState)
            } else {
                .receive(
                    errno, slices: slices, limit: capabilities.receiveSlices, depth: capabilities.receiveRequests)
            }
        return VerbsError(.postReceive, errno, owner.object, advice, postedCount: posted)
    }
}

extension SendOperation.Opcode {
    /// Which transport service has which operation (IBTA volume 1, table 43; ibv_post_send(3)).
    func isAllowed(on kind: QueuePair.Kind) -> Bool {
        switch self {
        case .send, .sendWithImmediate: kind != .xrcReceive
        case .write, .writeWithImmediate:
            [.reliableConnection, .unreliableConnection, .xrcSend, .driver].contains(kind)
        case .read, .compareAndSwap, .fetchAndAdd, .atomicWrite:
            [.reliableConnection, .xrcSend, .driver].contains(kind)
        case .sendWithInvalidate, .localInvalidate, .bindMemoryWindow:
            [.reliableConnection, .unreliableConnection, .xrcSend, .driver].contains(kind)
        case .tso: [.unreliableDatagram, .rawPacket, .driver].contains(kind)
        default: true
        }
    }
}
