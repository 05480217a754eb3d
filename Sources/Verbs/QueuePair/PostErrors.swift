import CIBVerbs
import CProviderABI
import SystemPackage

// The errors of posting. These functions are not inlined, so that the code of a successful post stays small.

extension QueuePair {
    @usableFromInline @inline(never)
    func sendFailure(_ opcode: UInt32, sgeCount: Int, _ code: Int32, posted: Int = 0) -> VerbsError {
        var errno = Errno(rawValue: abs(code))
        let isUnknown = isUnknownToIWARP(errno, opcode)
        // libsiw returns EINVAL.
        if isUnknown { errno = .notSupported }
        let advice: Advice =
            if isUnknown {
                .operationUnknownToIWARP(SendOperation.Opcode(rawValue: opcode))
            } else if let advice = operationAdvice(errno, opcode) {
                advice
            } else if sgeCount > Int(capabilities.maxSendSGE) {
                .tooManySGEs(given: Int32(clamping: sgeCount), limit: capabilities.maxSendSGE)
            } else if errno == .noMemory {
                .sendQueueFull(depth: capabilities.maxSendWR)
            } else {
                .general(errno)
            }
        return VerbsError(.postSend, errno, owner.object, advice, postedCount: posted)
    }

    @usableFromInline @inline(never)
    func inlineFailure(_ opcode: UInt32, _ byteCount: Int, _ code: Int32) -> VerbsError {
        guard byteCount > Int(capabilities.maxInlineData) else { return sendFailure(opcode, sgeCount: 0, code) }
        let advice = Advice.inlineTooLong(given: UInt32(clamping: byteCount), limit: capabilities.maxInlineData)
        return VerbsError(.postSend, Errno(rawValue: abs(code)), owner.object, advice)
    }

    /// Whether an iWARP device refused an operation that iWARP lacks (RFC 5040): those with immediate data and atomics,
    /// which RFC 7306 adds.
    private func isUnknownToIWARP(_ errno: Errno, _ opcode: UInt32) -> Bool {
        guard context.transportType == .iWARP else { return false }
        guard errno == .invalidArgument || errno == .notSupported else { return false }
        switch SendOperation.Opcode(rawValue: opcode) {
        case .sendWithImmediate, .writeWithImmediate, .compareAndSwap, .fetchAndAdd, .atomicWrite, .flush: return true
        default: return false
        }
    }

    private func operationAdvice(_ errno: Errno, _ opcode: UInt32) -> Advice? {
        guard errno == .invalidArgument || errno == .notSupported else { return nil }
        let opcode = SendOperation.Opcode(rawValue: opcode)
        if !opcode.isAllowed(on: type) { return .operation(opcode, unfitFor: type) }
        if opcode == .flush { return .text("struct ibv_send_wr has no operands of a flush: use postExtended") }
        // On iWARP the kernel moves the queue pair, and the state may be an old one.
        guard context.transportType != .iWARP else { return nil }
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

    /// Makes the error for a receive that the provider refused, after `posted` others.
    @inline(never)
    public func receiveFailure(sgeCount: Int, _ code: Int32, posted: Int) -> VerbsError {
        let errno = Errno(rawValue: abs(code))
        let advice: Advice =
            if raw.pointee.srq != nil {
                .text("the queue pair has a shared receive queue: post receives there")
            } else if lastKnownState == .reset, errno == .invalidArgument {
                .cannotReceive(in: lastKnownState)
            } else {
                .receive(
                    errno, sgeCount: sgeCount, limit: capabilities.maxReceiveSGE, depth: capabilities.maxReceiveWR)
            }
        return VerbsError(.postReceive, errno, owner.object, advice, postedCount: posted)
    }
}

extension SendOperation.Opcode {
    /// Whether queue pairs of this type support the operation (IBTA volume 1, table 43; ibv_post_send(3)).
    func isAllowed(on type: QueuePairType) -> Bool {
        switch self {
        case .send, .sendWithImmediate: type != .xrcReceive
        case .write, .writeWithImmediate:
            [.reliableConnection, .unreliableConnection, .xrcSend, .driver].contains(type)
        case .read, .compareAndSwap, .fetchAndAdd:
            [.reliableConnection, .xrcSend, .driver].contains(type)
        case .atomicWrite, .flush: [.reliableConnection, .driver].contains(type)
        case .sendWithInvalidate, .localInvalidate, .bindMemoryWindow:
            [.reliableConnection, .unreliableConnection, .xrcSend, .driver].contains(type)
        case .tso: [.unreliableDatagram, .rawPacket, .driver].contains(type)
        default: true
        }
    }
}
