import RoCEWire

// Unreliable connections (IBTA volume 1, 9.8.2): without acknowledgements; a message with a lost packet is dropped.

extension Core {
    /// Writes the next packet of a UC queue pair, and completes a work request with its last packet.
    mutating func emitUnreliable(_ pair: Pair, to target: UnsafeMutableRawPointer) -> Int {
        guard pair.pointee.isSending, passLocal(pair) else { return 0 }
        let current = pair.pointee.requester.current
        guard pair.pointee.send.has(current) else { return 0 }
        let entry = pair.pointee.sendWQE(current)
        if current == pair.pointee.requester.started {
            guard pair.pointee.state == .readyToSend else { return 0 }
            let status = begin(entry, pair)
            guard status == .success else {
                failCurrent(pair, status)
                return 0
            }
        }
        let byteCount = emitData(entry, pair, to: target)
        guard byteCount != 0 else { return 0 }
        let next = pair.pointee.requester.next
        pair.pointee.requester.una = next
        pair.pointee.requester.high = next
        if next == entry.pointee.firstPSN &+ entry.pointee.packets {
            pair.pointee.requester.current = current &+ 1
            completeOldestSend(pair, status: .success)
            reportDrained(pair)
        }
        return byteCount
    }

    /// Receives a UC packet. A gap in the PSNs drops the message that it is in; the next message starts with its own
    /// PSN (IBTA volume 1, 9.8.2).
    mutating func receiveUnreliable(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let bth = packet.headers.bth
        let isGap = bth.psn != pair.pointee.responder.expected
        pair.pointee.responder.expected = bth.psn.next
        if bth.opcode.startsMessage {
            pair.pointee.responder.message = bth.opcode.operation
        } else if isGap || bth.opcode.operation != pair.pointee.responder.message {
            return dropMessage(pair, .invalid)
        }
        guard hasLegalLength(pair, packet) else { return dropMessage(pair, .invalid) }
        if bth.opcode.operation == .send {
            receiveUnreliableSend(pair, packet, payload: payload)
        } else {
            receiveUnreliableWrite(pair, packet, payload: payload)
        }
    }

    /// Drops the packet and the rest of its message. A receive work request that is held is used for the next message.
    private mutating func dropMessage(_ pair: Pair, _ reason: DropReason) {
        switch reason {
        case .invalid: counters.droppedInvalid &+= 1
        case .noReceive: counters.droppedNoReceive &+= 1
        case .tooLong: counters.droppedTooLong &+= 1
        case .access: counters.droppedAccess &+= 1
        }
        pair.pointee.responder.message = Responder.betweenMessages
    }

    private enum DropReason {
        case invalid, noReceive, tooLong, access
    }

    private mutating func receiveUnreliableSend(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let opcode = packet.headers.bth.opcode
        if opcode.startsMessage {
            if faults != nil, failsByFault(pair, opcode) { return }
            guard takeReceive(pair) else { return dropMessage(pair, .noReceive) }
            pair.pointee.responder.received = 0
        }
        switch place(pair, packet, payload: payload) {
        case .success: break
        // The sender caused it: it must not end the queue pair of a receiver to which it may not even be connected.
        case .localLengthError: return dropMessage(pair, .tooLong)
        // The receiver caused it: an SGE of its receive work request is not valid (IBTA volume 1, 9.9.3, class A
        // fault).
        case let status:
            failReceive(pair, status: status)
            return enterError(pair)
        }
        if opcode.endsMessage {
            pair.pointee.responder.message = Responder.betweenMessages
            finishReceive(pair, packet, opcode: .receive)
        }
    }

    private mutating func receiveUnreliableWrite(_ pair: Pair, _ packet: TransportPacket, payload: UnsafeRawPointer) {
        let opcode = packet.headers.bth.opcode
        if opcode.startsMessage && openWrite(pair, packet.headers.reth) != .success {
            return dropMessage(pair, .access)
        }
        guard fitsWrite(pair, packet) else { return dropMessage(pair, .invalid) }
        let hasImmediate = opcode.headers.contains(.immDt)
        if hasImmediate, faults != nil, failsByFault(pair, opcode) { return }
        if hasImmediate && !takeReceive(pair) { return dropMessage(pair, .noReceive) }
        guard write(pair, packet, payload: payload) else { return dropMessage(pair, .access) }
        guard opcode.endsMessage else { return }
        pair.pointee.responder.message = Responder.betweenMessages
        if hasImmediate {
            pair.pointee.responder.received = pair.pointee.responder.writeLength
            finishReceive(pair, packet, opcode: .receiveWriteWithImmediate)
        }
    }
}
