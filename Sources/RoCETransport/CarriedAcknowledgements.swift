import RoCEWire

// Acknowledgements between two engines of one host that a request carries (`OutgoingPacket.acknowledged`). A program that
// answers a message with a message needs no ACK packet then: its answer has the acknowledgement, in the same cache line. It
// is one more copy of an ACK of IBTA volume 1, 9.7.5.1, and means the same.

extension Core {
    /// Whether the acknowledgement that waits may wait longer: a single one, an ACK, to an engine of this host. Inlined: a call
    /// of a getter would copy the whole struct.
    @inline(__always)
    var mayHoldAcknowledgements: Bool {
        guard let link = acknowledgements.first else { return true }
        return link.pointee.next == nil && hasPlainAcknowledgement(link.pointee.owner)
    }

    /// Whether all that waits to be sent is an acknowledgement that may wait longer. A queue pair in the list of requests may
    /// have nothing to send.
    @inline(__always)
    var hasOnlyAcknowledgement: Bool {
        guard acknowledgements.first != nil, mayHoldAcknowledgements, readResponses.first == nil, !doorbells.isRung
        else { return false }
        guard let link = requests.first else { return true }
        let pair = link.pointee.owner
        return link.pointee.next == nil && !pair.pointee.send.has(pair.pointee.requester.current)
    }

    /// Whether the next response of a queue pair is an ACK, which a request to the same peer can carry.
    @inline(__always)
    private func hasPlainAcknowledgement(_ pair: Pair) -> Bool {
        pair.pointee.isNextResponseACK && pair.pointee.type == .rc
            && pair.pointee.attributes.path.tag == Path.sameHost && faults == nil
    }

    /// Takes the acknowledgement of a queue pair, for a request that it sends; nil when there is none that a request can
    /// carry.
    @inline(__always)
    mutating func takeAcknowledgement(_ pair: Pair) -> PSN? {
        guard hasPlainAcknowledgement(pair) else { return nil }
        acknowledgements.remove(pair.pointee.links + QueuePairStorage.acknowledgements)
        defer { pair.pointee.responder.acknowledgement = nil }
        return pair.pointee.responder.acknowledgement?.psn
    }

    /// Queues an acknowledgement again that a packet carried, unless a later answer is queued. The packet may have waited
    /// since before the queue pair was reset or destroyed: then the PSN is one that was not received since.
    mutating func separateAcknowledgement(_ psn: PSN, queuePair number: UInt32) {
        guard let pair = queuePair(number), pair.pointee.type == .rc, psn.precedes(pair.pointee.responder.expected),
            pair.pointee.responder.acknowledgement == nil, pair.pointee.isReceiving
        else { return }
        answer(pair, psn, .ack)
    }

    /// Receives an acknowledgement that a packet of the peer carries. One for a queue pair that does not exist, or does not
    /// send, has no effect: the packet itself is counted by its reason.
    mutating func receiveAcknowledgement(
        _ psn: PSN, of packet: UnsafeRawBufferPointer, from source: PacketSource, now: UInt64
    ) {
        guard packet.count >= BTH.byteCount, let start = packet.baseAddress else { return }
        let bth = BTH(at: start)
        guard bth.transportVersion == 0, let pair = queuePair(bth.destinationQPN), pair.pointee.isSending
        else { return }
        guard bth.opcode.transport == .reliableConnection, pair.pointee.type == .rc,
            pair.pointee.attributes.path.tag == Path.sameHost,
            source.source == pair.pointee.attributes.path.destination,
            source.destination == pair.pointee.attributes.path.source, matchesPartition(bth.pkey)
        else {
            counters.droppedMalformed &+= 1
            return
        }
        receiveCarried(psn, pair, now: now)
    }
}

extension QueuePairStorage {
    /// Whether the next response in the list of acknowledgements is an ACK: no NAK, and no response of a READ or atomic.
    @inline(__always)
    var isNextResponseACK: Bool {
        responder.acknowledgement?.syndrome.kind == .ack && responder.sendingResource == responder.endResource
    }
}
