import CSimulator

/// A CQE, of 64 or 32 bytes. All numbers are big endian, except `wrid`.
///
/// | bytes | contents |
/// |-------|----------|
/// | 0 ..< 4 | QPN (from bit 12), status (bits 5 to 9), type (bit 4; 1: of a send queue), opcode (bits 0 to 3) |
/// | 4 ..< 8 | length of the message |
/// | 8 ..< 12 | STag: invalidated; of a READ, that of its local memory |
/// | 12 ..< 16 | a receive's MSN; 14 ..< 16: a send's `wrid` |
/// | 16 ..< 20 | immediate data (64 bytes alone) |
/// | 20 ..< 24 | index of the WR in the adapter's table, with a shared receive queue (64 bytes alone) |
/// | last 8 | generation (bit 63), overflow (bit 62), timestamp (bits 0 to 59) |
struct Cxgb4CQE {
    var header: UInt32
    var length: UInt32 = 0
    var stag: UInt32 = 0
    /// Bytes 12 ..< 16 in the order of the CQE.
    var identifier: UInt32 = 0
    /// In the order of the CQE.
    var immediate: UInt32 = 0
    var index: UInt32 = 0
    var isSolicited = false

    init(queuePair: QueuePair, isReceive: Bool, opcode: UInt32, status: UInt32 = 0) {
        header = queuePair.number << 12 | status << 5 | (isReceive ? 0 : 1 << 4) | opcode
    }
}

/// Opcodes of CQEs (`enum fw_ri_wr_opcode`).
private enum CQEOpcode {
    static let write: UInt32 = 0
    static let readResponse: UInt32 = 2
    static let send: UInt32 = 3
    static let sendAndInvalidate: UInt32 = 4
    static let sendSolicitedAndInvalidate: UInt32 = 6
    static let terminate: UInt32 = 7
    static let writeImmediate: UInt32 = 8
    static let bind: UInt32 = 9
    static let invalidate: UInt32 = 11
}

extension Cxgb4Codec {
    func writeCompletion(_ completion: Completion, _ ring: Cxgb4Completions) {
        let cqe = completion.isReceive ? receiveCQE(completion) : sendCQE(completion)
        guard !completion.isReceive else { return put(cqe, ring) }
        let queues = queues(completion.queuePair)
        let isRead = completion.operation == .read && completion.status == IBV_WC_SUCCESS.rawValue
        if device.options.reorders && isRead && !device.isHeld {
            queues.delayed.append((cqe, ring))
            return
        }
        put(cqe, ring)
        writeDelayed(queues)
    }

    /// Writes the CQEs of READs that were overtaken.
    func writeDelayed(_ queues: Cxgb4Queues) {
        if queues.delayed.isEmpty { return }
        let all = queues.delayed
        queues.delayed = []
        for (cqe, ring) in all { put(cqe, ring) }
    }

    private func sendCQE(_ completion: Completion) -> Cxgb4CQE {
        let isRead = completion.operation == .read && completion.status == IBV_WC_SUCCESS.rawValue
        let type = UInt32(truncatingIfNeeded: completion.tag >> 16 & 0xF)
        var cqe = Cxgb4CQE(
            queuePair: completion.queuePair, isReceive: isRead,
            opcode: isRead ? CQEOpcode.readResponse : type != 0 ? type : opcode(completion), status: status(completion))
        cqe.length = completion.byteLength
        let stag = UInt32(truncatingIfNeeded: completion.tag >> 32)
        cqe.stag = isRead ? max(stag, 2) : stag
        // The CQE of a READ does not have its index.
        if !isRead { cqe.identifier = UInt32(UInt16(truncatingIfNeeded: completion.tag)) << 16 }
        return cqe
    }

    private func receiveCQE(_ completion: Completion) -> Cxgb4CQE {
        let queues = queues(completion.queuePair)
        let isWrite = completion.operation == .write
        let opcode =
            isWrite
            ? CQEOpcode.writeImmediate
            : !completion.invalidated
                ? CQEOpcode.send
                : completion.isSolicited ? CQEOpcode.sendSolicitedAndInvalidate : CQEOpcode.sendAndInvalidate
        var cqe = Cxgb4CQE(
            queuePair: completion.queuePair, isReceive: true, opcode: opcode, status: status(completion))
        cqe.length = completion.byteLength
        if completion.invalidated { cqe.stag = completion.immediate }
        cqe.identifier = queues.nextMSN.bigEndian
        queues.nextMSN &+= 1
        if isWrite { cqe.immediate = completion.immediate }
        if completion.queuePair.sharedReceives != nil { cqe.index = UInt32(truncatingIfNeeded: completion.tag) }
        cqe.isSolicited = completion.isSolicited
        return cqe
    }

    private func opcode(_ completion: Completion) -> UInt32 {
        switch completion.operation {
        case .write: completion.hasImmediate ? CQEOpcode.writeImmediate : CQEOpcode.write
        case .read: 1
        case .bind: CQEOpcode.bind
        case .invalidate: CQEOpcode.invalidate
        default: completion.invalidated ? CQEOpcode.sendAndInvalidate : CQEOpcode.send
        }
    }

    /// Status codes (`T4_ERR_…`). A synthetic completion may have any: `vendor_error`.
    private func status(_ completion: Completion) -> UInt32 {
        if completion.vendorError != 0 { return completion.vendorError & 0x1F }
        let table: [(ibv_wc_status, UInt32)] = [
            (IBV_WC_SUCCESS, 0), (IBV_WC_LOC_ACCESS_ERR, 1), (IBV_WC_LOC_PROT_ERR, 2), (IBV_WC_GENERAL_ERR, 5),
            (IBV_WC_LOC_LEN_ERR, 6), (IBV_WC_MW_BIND_ERR, 7), (IBV_WC_WR_FLUSH_ERR, 0xC),
        ]
        for (known, code) in table where known.rawValue == completion.status { return code }
        // An internal error, which libraries report as IBV_WC_FATAL_ERR.
        return 0x1F
    }

    /// Writes the CQE of the READ that the kernel driver of the initiator has sent: STag 1 marks it.
    func writeConnectionRead(_ queuePair: QueuePair) {
        var cqe = Cxgb4CQE(queuePair: queuePair, isReceive: true, opcode: CQEOpcode.readResponse)
        cqe.stag = 1
        put(cqe, ring(queuePair.sendCompletions))
    }

    func writeTerminate(_ queuePair: QueuePair) {
        put(
            Cxgb4CQE(queuePair: queuePair, isReceive: true, opcode: CQEOpcode.terminate),
            ring(queuePair.receiveCompletions))
    }

    // MARK: - The queue

    /// Writes a CQE; its last word, with the generation, is written last. A queue that is full is overwritten, with the
    /// overflow bit set: the library finds out.
    private func put(_ cqe: Cxgb4CQE, _ ring: Cxgb4Completions) {
        let place = cqePlace(ring)
        place.initializeMemory(as: UInt8.self, repeating: 0, count: ring.stride - 8)
        for (index, word) in [cqe.header.bigEndian, cqe.length.bigEndian, cqe.stag.bigEndian, cqe.identifier]
            .enumerated()
        {
            place.storeBytes(of: word, toByteOffset: 4 * index, as: UInt32.self)
        }
        if ring.stride == 64 {
            place.storeBytes(of: cqe.immediate, toByteOffset: 16, as: UInt32.self)
            place.storeBytes(of: cqe.index.bigEndian, toByteOffset: 20, as: UInt32.self)
        }
        clock &+= 0x10
        finish(place, ring, clock & 0x0FFF_FFFF_FFFF_FFFF, isSolicited: cqe.isSolicited)
    }

    /// Writes the bytes of a CQE of 64 bytes, with the QPN and the generation set; into a CQE of 32 bytes the first 24
    /// and the last 8 of them. Returns whether it raises an event on a queue that is armed for solicited completions
    /// only; nil when the queue is full.
    func writeCQE(_ bytes: UnsafeRawPointer, of queuePair: QueuePair, _ ring: Cxgb4Completions) -> Bool? {
        if ring.producer &- ring.consumer >= ring.count && !device.isHeld { return nil }
        let place = cqePlace(ring)
        place.copyMemory(from: bytes, byteCount: ring.stride - 8)
        let header = UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)) & 0xFFF | queuePair.number << 12
        place.storeBytes(of: header.bigEndian, as: UInt32.self)
        let last = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 56, as: UInt64.self))
        finish(place, ring, last & 0x7FFF_FFFF_FFFF_FFFF, isSolicited: false)
        return false
    }

    private func cqePlace(_ ring: Cxgb4Completions) -> UnsafeMutableRawPointer {
        ring.memory.bytes + Int(ring.producer % ring.count) * ring.stride
    }

    private func finish(
        _ place: UnsafeMutableRawPointer, _ ring: Cxgb4Completions, _ last: UInt64, isSolicited: Bool
    ) {
        // The generation begins with 1 and changes whenever the queue wraps.
        var last = last | (ring.producer / ring.count & 1 == 0 ? 1 << 63 : 0)
        if ring.countsDoorbells && ring.producer &- ring.consumer >= ring.count && !device.isHeld { last |= 1 << 62 }
        let words = (place + (ring.stride - 8)).assumingMemoryBound(to: UInt32.self)
        words[1] = UInt32(truncatingIfNeeded: last).bigEndian
        sim_store(words, UInt32(truncatingIfNeeded: last >> 32).bigEndian)
        ring.producer &+= 1
        if isSolicited { ring.lastSolicited = ring.producer }
    }
}
