import CSimulator

/// Opcodes of WRs (`enum fw_wr_opcodes` of Linux' drivers/net/ethernet/chelsio).
private enum Opcode {
    static let write: UInt8 = 0x14
    static let send: UInt8 = 0x15
    static let read: UInt8 = 0x16
    static let receive: UInt8 = 0x17
    static let bind: UInt8 = 0x18
    static let invalidate: UInt8 = 0x1A
    static let writeComplete: UInt8 = 0x21
}

/// Flags of WRs (`enum fw_ri_wr_flags`).
private enum Flag {
    static let completion: UInt8 = 0x01
    static let solicited: UInt8 = 0x04
    static let readFence: UInt8 = 0x08
    static let localFence: UInt8 = 0x10
    static let writeWithImmediate: UInt8 = 0x40
}

/// A WR: a header of 8 bytes, the fields of its opcode, and the payload. All numbers are big endian, except `wrid`.
///
/// | bytes | contents |
/// |-------|----------|
/// | 0 | opcode |
/// | 1 | flags |
/// | 2 ..< 4 | `wrid`: index of the WR, which its CQE carries |
/// | 7 | `len16`: length of the WR in units of 16 bytes |
///
/// | opcode | fields |
/// |--------|--------|
/// | WRITE | immediate data@8, length@16, STag@20, remote address@24, payload@32 |
/// | SEND | type@8, STag to invalidate@12, length@16, payload@32 |
/// | READ | local STag@16, local address@20, length@28, remote STag@32, remote address@36 |
/// | RECV | SGL@8 |
/// | BIND | flags@8, address type@10, access@11, STags of region@12 and window@16, length@24, address@32 |
/// | INV_LSTAG | STag@12 |
/// | WRITE_CMPL | of the SEND: flags@9, `wrid`@10, STag to invalidate@12, 16 bytes or one SGE@32; of the WRITE: length@16, STag@20, remote address@24, SGL@64 |
private struct Cxgb4Request {
    let queue: Cxgb4Queue
    let slot: UInt32

    init(_ queue: Cxgb4Queue) {
        self.queue = queue
        slot = queue.first
    }

    func byte(_ offset: Int) -> UInt8 { queue.byte(offset, from: slot) }
    func word(_ offset: Int) -> UInt32 { queue.word(offset, from: slot) }
    func quad(_ offset: Int) -> UInt64 { queue.quad(offset, from: slot) }
    func identifier(_ offset: Int) -> UInt16 { queue.identifier(offset, from: slot) }

    var opcode: UInt8 { byte(0) }
    var flags: UInt8 { byte(1) }
    var len16: Int { Int(byte(7)) }

    func demandZero(_ range: Range<Int>) throws(Refusal) {
        for offset in range {
            try demand(byte(offset) == 0, EINVAL, "a reserved byte of a WR is not zero, at", has: offset)
        }
    }

    func demandFlags(_ known: UInt8) throws(Refusal) {
        try demand(flags & ~known == 0, EINVAL, "flags that this WR does not have", has: Int(flags), wants: Int(known))
    }

    /// Checks `len16`.
    func demandLength(_ size: Int) throws(Refusal) {
        try demand(
            len16 == (size + 15) / 16, EINVAL, "a WR of another length, in units of 16 bytes", has: len16,
            wants: (size + 15) / 16)
    }
}

extension Cxgb4Codec {
    // MARK: - Send queues

    /// Decodes the WR at the head of the send queue.
    func decodeSend(_ queuePair: QueuePair, _ request: SendRequest) -> Bool {
        let queues = queues(queuePair)
        let queue = queues.sends
        guard !queues.isBroken, hasRequest(queue) else { return false }
        do throws(Refusal) {
            let wr = Cxgb4Request(queue)
            request.clear()
            if queue.isAtSend {
                try decodePairedSend(wr, request)
            } else {
                try checkHeader(wr, queue)
                try decode(wr, queues, request)
            }
            return true
        } catch {
            fault(queuePair, error)
            return false
        }
    }

    private func hasRequest(_ queue: Cxgb4Queue) -> Bool {
        if device.options.isTrapped { return queue.hasRequest(countsDoorbells: true) }
        return !hasStoppedDoorbells && queue.hasRequest(countsDoorbells: false)
    }

    private func checkHeader(_ wr: Cxgb4Request, _ queue: Cxgb4Queue) throws(Refusal) {
        try wr.demandZero(4..<7)
        try demand(
            UInt32(wr.identifier(2)) == queue.index, EINVAL, "a WR of another index", has: Int(wr.identifier(2)),
            wants: Int(queue.index))
        queue.headSlots = UInt32((wr.len16 + 3) / 4)
        try demand(
            wr.len16 > 0 && queue.headSlots <= queue.slotsPerEntry, EINVAL,
            "a WR without length, or longer than an entry, in units of 16 bytes", has: wr.len16)
        if device.options.isTrapped {
            try demand(
                queue.headSlots <= queue.rung, EINVAL, "the doorbell is in the middle of a WR; announced slots",
                has: Int(queue.rung), wants: Int(queue.headSlots))
        }
        queue.isPair = wr.opcode == Opcode.writeComplete
    }

    private func decode(_ wr: Cxgb4Request, _ queues: Cxgb4Queues, _ request: SendRequest) throws(Refusal) {
        request.tag = UInt64(queues.sends.index)
        request.isSignaled = wr.flags & Flag.completion != 0
        request.isSolicited = wr.flags & Flag.solicited != 0
        switch wr.opcode {
        case Opcode.send:
            if wr.flags & Flag.readFence != 0 { writeDelayed(queues) }
            try decodeSendRequest(wr, request)
        case Opcode.write: try decodeWrite(wr, request)
        case Opcode.read: try decodeRead(wr, request)
        case Opcode.bind: try decodeBind(wr, request)
        case Opcode.invalidate: try decodeInvalidate(wr, request)
        case Opcode.writeComplete: try decodePairedWrite(wr, request)
        default: throw Refusal(EINVAL, "there is no such opcode of a WR in a send queue", has: Int(wr.opcode))
        }
    }

    private func decodeSendRequest(_ wr: Cxgb4Request, _ request: SendRequest) throws(Refusal) {
        try wr.demandFlags(Flag.completion | Flag.solicited | Flag.readFence)
        try wr.demandZero(20..<32)
        let type = wr.word(8)
        try demand((3...6).contains(type), EINVAL, "there is no such type of SEND", has: Int(type))
        try demand(
            request.isSolicited == (type >= 5), EINVAL, "the type of a SEND and its flag for solicited events differ",
            has: Int(type))
        request.operation = .send
        request.invalidates = type & 1 == 0
        request.invalidKey = wr.word(12)
        try demand(
            request.invalidates || request.invalidKey == 0, EINVAL, "an STag to invalidate, of a SEND without one",
            has: Int(request.invalidKey))
        request.tag |= UInt64(type) << 16
        try wr.demandLength(try decodePayload(wr, at: 32, length: wr.word(16), request))
    }

    private func decodeWrite(_ wr: Cxgb4Request, _ request: SendRequest) throws(Refusal) {
        try wr.demandFlags(
            Flag.completion | Flag.solicited | (hasWriteImmediate ? Flag.writeWithImmediate : 0))
        request.operation = .write
        request.hasImmediate = wr.flags & Flag.writeWithImmediate != 0
        // Bytes 12 ..< 16 have no meaning; libcxgb4 does not write them.
        request.immediate = wr.word(8).bigEndian
        try demand(
            request.hasImmediate || request.immediate == 0, EINVAL, "immediate data of a WRITE that has none",
            has: Int(request.immediate))
        request.remoteKey = wr.word(20)
        request.remoteAddress = wr.quad(24)
        try wr.demandLength(try decodePayload(wr, at: 32, length: wr.word(16), request))
    }

    private func decodeRead(_ wr: Cxgb4Request, _ request: SendRequest) throws(Refusal) {
        // The response always writes a CQE.
        try wr.demandFlags(0)
        try wr.demandZero(8..<16)
        try wr.demandZero(44..<48)
        try wr.demandLength(48)
        request.operation = .read
        request.isSignaled = true
        let length = wr.word(28)
        request.remoteKey = wr.word(32)
        request.remoteAddress = wr.quad(36)
        request.tag |= UInt64(wr.word(16)) << 32
        try demand(wr.word(16) > 1, EINVAL, "STag 0 or 1, which are the kernel driver's", has: Int(wr.word(16)))
        if length > 0 { _ = request.append(SGE(address: wr.quad(20), length: length, key: wr.word(16))) }
    }

    private func decodeBind(_ wr: Cxgb4Request, _ request: SendRequest) throws(Refusal) {
        try wr.demandFlags(Flag.completion | Flag.localFence)
        try demand(wr.byte(8) & ~0x60 == 0, EINVAL, "unknown bits of qpbinde", has: Int(wr.byte(8)))
        try demand(wr.byte(10) == 1, EINVAL, "addresses that are not virtual", has: Int(wr.byte(10)))
        try demand(wr.byte(11) & ~0xF == 0, EINVAL, "unknown bits of mem_perms", has: Int(wr.byte(11)))
        try wr.demandZero(20..<24)
        try wr.demandZero(40..<48)
        try wr.demandLength(48)
        request.operation = .bind
        request.window.regionKey = wr.word(12)
        request.window.key = wr.word(16)
        request.window.length = wr.quad(24)
        request.window.address = wr.quad(32)
        let access: [(UInt8, UInt32)] = [
            (1, IBV_ACCESS_REMOTE_WRITE.rawValue), (2, IBV_ACCESS_REMOTE_READ.rawValue),
        ]
        for (bit, flag) in access where wr.byte(11) & bit != 0 { request.window.access |= flag }
    }

    private func decodeInvalidate(_ wr: Cxgb4Request, _ request: SendRequest) throws(Refusal) {
        try wr.demandFlags(Flag.completion | Flag.localFence)
        try wr.demandZero(8..<12)
        try wr.demandLength(16)
        request.operation = .invalidate
        request.window.key = wr.word(12)
        request.tag |= UInt64(wr.word(12)) << 32
    }

    // MARK: - WRITE_CMPL: a WRITE and a SEND of 16 bytes

    private func decodePairedWrite(_ wr: Cxgb4Request, _ request: SendRequest) throws(Refusal) {
        try demand(hasWriteComplete, EINVAL, "this adapter has no WRITE_CMPL")
        try wr.demandFlags(Flag.completion)
        try wr.demandZero(8..<9)
        try wr.demandZero(56..<64)
        request.operation = .write
        request.remoteKey = wr.word(20)
        request.remoteAddress = wr.quad(24)
        try demand(wr.byte(64) == DataType.list, EINVAL, "a WRITE_CMPL writes an SGL", has: Int(wr.byte(64)))
        let size = try decodePayload(wr, at: 64, length: wr.word(16), request)
        try demand(
            request.sgeCount <= 4 && request.length > 0, EINVAL, "a WRITE_CMPL has up to 4 SGEs, and data",
            has: request.sgeCount)
        try wr.demandLength(size)
    }

    private func decodePairedSend(_ wr: Cxgb4Request, _ request: SendRequest) throws(Refusal) {
        let queue = wr.queue
        try demand(
            UInt32(wr.identifier(10)) == queue.index, EINVAL, "the SEND of a WRITE_CMPL has another index",
            has: Int(wr.identifier(10)), wants: Int(queue.index))
        try demand(
            wr.byte(9) & ~Flag.completion == 0, EINVAL, "flags that this SEND does not have", has: Int(wr.byte(9)))
        request.tag = UInt64(queue.index)
        request.isSignaled = wr.byte(9) & Flag.completion != 0
        request.operation = .send
        request.invalidKey = wr.word(12)
        request.invalidates = request.invalidKey != 0
        if wr.byte(32) == DataType.immediate {
            try wr.demandZero(33..<39)
            try demand(wr.byte(39) == 16, EINVAL, "the SEND of a WRITE_CMPL has 16 bytes", has: Int(wr.byte(39)))
            request.isInline = true
            for offset in 40..<56 { append(wr.byte(offset), request) }
            return
        }
        try demand(
            wr.byte(32) == DataType.list && wr.word(32) & 0xFFFF == 1, EINVAL,
            "the SEND of a WRITE_CMPL has one SGE")
        try wr.demandZero(33..<34)
        try wr.demandZero(36..<40)
        try demand(wr.word(44) == 16, EINVAL, "the SEND of a WRITE_CMPL has 16 bytes", has: Int(wr.word(44)), wants: 16)
        _ = request.append(SGE(address: wr.quad(48), length: 16, key: wr.word(40)))
    }

    // MARK: - Payloads

    /// Types of payload (`enum fw_ri_data_op`).
    private enum DataType {
        static let immediate: UInt8 = 0x81
        static let list: UInt8 = 0x83
    }

    /// Decodes inline data (length@4, bytes@8, zeros up to a multiple of 16) or an SGL (count@2; from 8 on STag, length
    /// and address of each SGE; 8 zeros). Returns the offset of its end in the WR.
    private func decodePayload(
        _ wr: Cxgb4Request, at start: Int, length: UInt32, _ request: SendRequest
    ) throws(Refusal) -> Int {
        try wr.demandZero(start + 1..<start + 2)
        if wr.byte(start) == DataType.immediate {
            try wr.demandZero(start + 2..<start + 4)
            let count = wr.word(start + 4)
            try demand(count <= 280, EINVAL, "inline data longer than 280 bytes", has: Int(count))
            try demand(
                count == length, EINVAL, "inline data of another length than the WR's", has: Int(count),
                wants: Int(length))
            request.isInline = true
            request.inlineData.reserve(280)
            for offset in 0..<Int(count) { append(wr.byte(start + 8 + offset), request) }
            let end = start + 8 + Int(count)
            // The library leaves the rest of an empty payload as it was.
            if count > 0 { try wr.demandZero(end..<(end + 15) & ~15) }
            return end
        }
        try demand(
            wr.byte(start) == DataType.list, EINVAL, "there is no such type of payload", has: Int(wr.byte(start)))
        let end = try decodeList(wr, at: start, most: 17) { request.append($0) }
        try demand(
            request.length == Int(length), EINVAL, "the SGEs have another length than the WR, in bytes",
            has: request.length,
            wants: Int(length))
        try wr.demandZero(end..<end + 8)
        return end
    }

    private func append(_ byte: UInt8, _ request: SendRequest) {
        var byte = byte
        if request.inlineData.count == 0 { request.inlineData.reserve(280) }
        request.inlineData.append(&byte, 1)
    }

    /// Decodes an SGL. Returns the offset of its end.
    private func decodeList(
        _ wr: Cxgb4Request, at start: Int, most: Int, _ append: (SGE) -> Bool
    ) throws(Refusal) -> Int {
        let count = Int(wr.word(start) & 0xFFFF)
        try wr.demandZero(start + 1..<start + 2)
        try wr.demandZero(start + 4..<start + 8)
        try demand(count <= most, EINVAL, "more SGEs than the WR has room for", has: count, wants: most)
        for index in 0..<count {
            let place = start + 8 + 16 * index
            let isAppended = append(SGE(address: wr.quad(place + 8), length: wr.word(place + 4), key: wr.word(place)))
            try demand(isAppended, EINVAL, "more SGEs than a device supports", has: count)
        }
        return start + 8 + 16 * count
    }

    // MARK: - Receive queues

    /// Consumes the next WR of a receive queue.
    func consume(_ queue: Cxgb4Queue, _ request: ReceiveRequest) -> Bool {
        if let queuePair = queue.owner, queuePair.kind == .queuePair,
            queues(unsafeDowncast(queuePair, to: QueuePair.self)).isBroken
        {
            return false
        }
        guard hasRequest(queue) else { return false }
        request.sgeCount = 0
        do throws(Refusal) {
            try decodeReceive(queue) { request.append($0) }
            request.tag = UInt64(queue.index)
            queue.retire()
            return true
        } catch {
            fault(queue.owner, error)
            return false
        }
    }

    private func decodeReceive(_ queue: Cxgb4Queue, _ append: (SGE) -> Bool) throws(Refusal) {
        let wr = Cxgb4Request(queue)
        try demand(
            wr.opcode == Opcode.receive, EINVAL, "there is no such opcode of a WR in a receive queue",
            has: Int(wr.opcode))
        try wr.demandZero(1..<2)
        try checkHeader(wr, queue)
        try demand(wr.byte(8) == DataType.list, EINVAL, "a receive WR has an SGL", has: Int(wr.byte(8)))
        try wr.demandLength(try decodeList(wr, at: 8, most: 4, append))
    }
}
