import CSimulator

/// A doorbell page (BAR2 of the adapter). T5 and T6: segments of 128 bytes, one for each queue of the page as far as
/// there is room; in those of other queues nothing is written, and the first segment's registers name the queue.
///
/// | bytes of a segment | T5, T6 |
/// |--------------------|--------|
/// | 8 ..< 12  | doorbell: slots (bits 0 to 12), QID within the page (from bit 15) |
/// | 20 ..< 24 | GTS: CQEs returned (bits 0 to 11), solicited only (12), timer (13 to 15), CQID within the page (from 16) |
/// | 64 ..< 128 | write-combining doorbell: a WR of one slot |
///
/// | bytes of the page | T4 |
/// |-------------------|----|
/// | 0 ..< 4 | doorbell: slots (bits 0 to 13), QID within the page (from bit 15) |
/// | 4 ..< 8 | GTS |
///
/// All of them are little endian.
extension Cxgb4Codec {
    private static var segmentSize: Int { 128 }
    private var gtsOffset: Int { isT4 ? 4 : 20 }

    /// Handles a store to a doorbell page. The device runs before the program's next instruction.
    func handleStore(_ number: UInt32, _ offset: Int, _ bytes: UnsafeRawBufferPointer) {
        guard pages.indices.contains(Int(number)), let page = pages[Int(number)] else {
            return refuse(Refusal(EINVAL, "a doorbell page of destroyed queues", has: Int(number)))
        }
        do throws(Refusal) {
            let segment = isT4 ? 0 : offset / Cxgb4Codec.segmentSize
            let position = offset - segment * Cxgb4Codec.segmentSize
            let isCombining = !isT4 && position >= 64
            if page.stored != 0 && !(isCombining && segment == page.segment) {
                page.stored = 0
                throw Refusal(
                    EINVAL, "the store before it has not filled its write-combining doorbell", has: page.segment)
            }
            if isCombining { return try combine(page, segment, position - 64, bytes) }
            try demand(
                bytes.count == 4, EINVAL, "a store of another size than a doorbell's, in bytes", has: bytes.count,
                wants: 4)
            let value = UInt32(littleEndian: bytes.load(0, as: UInt32.self))
            if position == gtsOffset {
                try returnCredits(page, segment, value)
            } else {
                try demand(
                    position == (isT4 ? 0 : 8), EINVAL, "there is no doorbell at this offset of a page", has: offset)
                try ring(page, segment, value)
            }
        } catch {
            refuse(error)
        }
        device.run()
    }

    private func refuse(_ refusal: Refusal) { _ = device.record(refusal, of: "a doorbell") }

    /// The QID of a doorbell: that of the segment, or in the first segment that of the value.
    private func number(_ page: Cxgb4Page, _ segment: Int, _ value: UInt32) throws(Refusal) -> UInt32 {
        try demand(
            value <= qidMask && (segment == 0 || value == 0), EINVAL,
            "a QID beyond the page, or in a queue's own segment",
            has: Int(value))
        return page.firstQID + UInt32(segment) + value
    }

    // MARK: - Send and receive queues

    private func ring(_ page: Cxgb4Page, _ segment: Int, _ value: UInt32) throws(Refusal) {
        try demand(
            value & (isT4 ? 0x4000 : 0x6000) == 0, EINVAL, "the type or the priority of a doorbell", has: Int(value))
        try ring(page, try number(page, segment, value >> 15), slots: value & (isT4 ? 0x3FFF : 0x1FFF))
    }

    private func ring(_ page: Cxgb4Page, _ qid: UInt32, slots: UInt32) throws(Refusal) {
        guard let queue = egressQueue(qid) else {
            throw Refusal(EINVAL, "there is no queue of this QID", has: Int(qid))
        }
        try demand(queue.page.context === page.context, EINVAL, "a queue of another context", has: Int(qid))
        try demand(!hasStoppedDoorbells, EINVAL, "a doorbell while db_off is set", has: Int(qid))
        ring(queue, slots)
    }

    /// Announces slots of a queue. A held device executes nothing, so the queue may wrap.
    private func ring(_ queue: Cxgb4Queue, _ slots: UInt32) {
        guard !device.isHeld else { return queue.rung = (queue.rung + slots) % queue.slots }
        guard queue.rung + slots <= queue.slots else {
            return fault(
                queue.owner,
                Refusal(
                    EINVAL, "the doorbell announces more slots than the queue has", has: Int(queue.rung + slots),
                    wants: Int(queue.slots)))
        }
        queue.rung += slots
    }

    /// Collects the stores to a write-combining doorbell. The last byte of the buffer rings it.
    private func combine(
        _ page: Cxgb4Page, _ segment: Int, _ position: Int, _ bytes: UnsafeRawBufferPointer
    ) throws(Refusal) {
        try demand(
            position + bytes.count <= 64 && bytes.count >= 8, EINVAL,
            "a store to a write-combining doorbell, of another size, in bytes", has: bytes.count)
        page.segment = segment
        let place = page.memory.bytes + segment * Cxgb4Codec.segmentSize + 64
        for index in 0..<bytes.count {
            place.storeBytes(of: bytes[index], toByteOffset: position + index, as: UInt8.self)
            page.stored |= 1 << UInt64(position + index)
        }
        guard page.stored == .max else { return }
        page.stored = 0
        let qid = try number(page, segment, 0)
        try ring(page, qid, slots: 1)
        if let queue = egressQueue(qid), !device.isHeld { try compare(queue, UnsafeRawPointer(place)) }
        device.run()
    }

    /// The adapter executes the copy in place of the queue's WR: they must not differ.
    private func compare(_ queue: Cxgb4Queue, _ copy: UnsafeRawPointer) throws(Refusal) {
        let slot = (queue.first + queue.rung - 1) % queue.slots
        let length = Int(copy.load(fromByteOffset: 7, as: UInt8.self)) * 16
        try demand(
            (16...64).contains(length), EINVAL, "a write-combining doorbell holds a WR of up to 64 bytes, in bytes",
            has: length)
        for offset in 0..<length {
            try demand(
                copy.load(fromByteOffset: offset, as: UInt8.self) == queue.byte(offset, from: slot), EINVAL,
                "the write-combining doorbell and the queue hold different WRs, from byte", has: offset)
        }
    }

    /// MODIFY_QP rings a doorbell of T4: at once, or when the doorbells are resumed.
    func ringFromKernel(_ queuePair: QueuePair, isReceive: Bool, slots: UInt32) throws(Refusal) {
        try demand(isT4, EINVAL, "only T4's driver rings doorbells")
        guard let queue = isReceive ? queues(queuePair).receives : queues(queuePair).sends else {
            throw Refusal(EINVAL, "the queue pair has a shared receive queue")
        }
        queue.withheld += slots & 0xFFFF
        if !hasStoppedDoorbells {
            release(queue)
            device.run()
        }
    }

    /// Rings for the slots that MODIFY_QP has announced.
    func release(_ queue: Cxgb4Queue) {
        let slots = queue.withheld
        queue.withheld = 0
        if slots > 0 { ring(queue, slots) }
    }

    // MARK: - Completion queues

    private func returnCredits(_ page: Cxgb4Page, _ segment: Int, _ value: UInt32) throws(Refusal) {
        let number = try number(page, segment, value >> 16)
        guard let queue = ingressQueue(number) else {
            throw Refusal(EINVAL, "there is no completion queue of this CQID", has: Int(number))
        }
        try demand(queue.context === page.context, EINVAL, "a queue of another context", has: Int(number))
        let ring = ring(queue)
        let credits = value & 0xFFF
        try demand(
            credits <= ring.producer &- ring.consumer || device.isHeld, EINVAL, "more returned CQEs than were written",
            has: Int(credits), wants: Int(ring.producer &- ring.consumer))
        try arm(queue, value)
        ring.consumer &+= credits
    }

    /// Timer 6 arms the queue, timer 7 does not.
    private func arm(_ queue: CompletionQueue, _ value: UInt32) throws(Refusal) {
        let timer = value >> 13 & 7
        try demand(timer >= 6, EINVAL, "a GTS doorbell with another timer", has: Int(timer))
        try demand(timer == 6 || value & 1 << 12 == 0, EINVAL, "a GTS doorbell for solicited events that does not arm")
        if timer == 6 { queue.notification = value & 1 << 12 != 0 ? .solicited : .next }
    }

    /// Whether an armed queue has CQEs that raise its event.
    ///
    /// Without traps the last store to the queue's page is visible, and the number of returned CQEs is not known: a CQE
    /// that is written after the store raises the event.
    func isDue(_ queue: CompletionQueue) -> Bool {
        let ring = ring(queue)
        if !device.options.isTrapped {
            let place = (ring.page.memory.bytes + gtsOffset).assumingMemoryBound(to: UInt32.self)
            let value = UInt32(littleEndian: sim_load(place))
            if value != 0 {
                sim_store(place, 0)
                do throws(Refusal) { try arm(queue, value) } catch { refuse(error) }
                ring.consumer = ring.producer
            }
        }
        switch queue.notification {
        case .none: return false
        case .next: return ring.producer != ring.consumer
        case .solicited: return Int32(bitPattern: ring.lastSolicited &- ring.consumer) > 0
        }
    }
}
