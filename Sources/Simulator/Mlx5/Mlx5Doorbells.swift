import CSimulator

extension Mlx5Codec {
    /// Offset of the CQ arming doorbell in a UAR page.
    static var armOffset: UInt32 { 0x20 }

    /// Arms the queue if the program has rung its arming doorbell: the doorbell record has changed, or the doorbell in
    /// the UAR page is this queue's. Without traps only the last store to a page is visible. Returns whether a
    /// completion event is due.
    func readArmDoorbell(_ queue: CompletionQueue) -> Bool {
        let ring = ring(queue)
        let armWord = ring.record.second
        let isNew = armWord != ring.lastArm
        if !device.options.isTrapped {
            guard clearDoorbell(queue, ring, armWord) || isNew else { return false }
            arm(queue, ring, armWord)
        }
        return isDue(queue, ring)
    }

    private func isDue(_ queue: CompletionQueue, _ ring: Mlx5Completions) -> Bool {
        // The doorbell holds the consumer index: a CQE beyond that index raises the event at once.
        queue.notification == .next && ring.lastArm & 0xFF_FFFF != ring.producer & 0xFF_FFFF
    }

    private func arm(_ queue: CompletionQueue, _ ring: Mlx5Completions, _ armWord: UInt32) {
        ring.lastArm = armWord
        queue.notification = armWord & 1 << 24 != 0 ? .solicited : .next
    }

    /// Clears the doorbell of this queue in a UAR page; false when another store has replaced it.
    private func clearDoorbell(_ queue: CompletionQueue, _ ring: Mlx5Completions, _ armWord: UInt32) -> Bool {
        let doorbell = (UInt64(armWord) << 32 | UInt64(ring.number)).bigEndian
        for page in pages(queue.context).all {
            let place = page.bytes + Int(Mlx5Codec.armOffset)
            guard place.load(as: UInt64.self) == doorbell else { continue }
            place.storeBytes(of: 0, as: UInt64.self)
            return true
        }
        return false
    }

    // MARK: - Stores that were trapped

    /// Handles a store to a UAR page. The device runs before the program's next instruction.
    func ring(page: UInt32, offset: UInt32, size: UInt32, _ bytes: UnsafeRawBufferPointer) {
        do throws(Refusal) {
            try demand(
                size == 8, EINVAL, "a store of another size than a doorbell's, in bytes", has: Int(size), wants: 8)
            let value = UInt64(bigEndian: bytes.load(0, as: UInt64.self))
            if offset == Mlx5Codec.armOffset {
                try armed(value, page)
            } else {
                try sent(value, page, offset)
            }
        } catch {
            _ = device.record(error, of: "a doorbell")
        }
    }

    private func armed(_ value: UInt64, _ page: UInt32) throws(Refusal) {
        let number = UInt32(truncatingIfNeeded: value) & 0xFF_FFFF
        guard let queue = device.completionQueues.first(where: { ring($0).number == number }) else {
            throw Refusal(EINVAL, "there is no completion queue of this number", has: Int(number))
        }
        try demand(pages(queue.context).has(page), EINVAL, "a UAR page of another context", has: Int(page))
        let armWord = UInt32(truncatingIfNeeded: value >> 32)
        try demand(
            armWord == ring(queue).record.second, EINVAL, "the doorbell differs from the doorbell record",
            has: Int(armWord), wants: Int(ring(queue).record.second))
        arm(queue, ring(queue), armWord)
        device.run()
    }

    /// Handles a send doorbell: the first 8 bytes of a WQE, at the beginning of one of the two buffers of a bfreg. The
    /// rest of a WQE that is copied there (BlueFlame) is ignored.
    private func sent(_ value: UInt64, _ page: UInt32, _ offset: UInt32) throws(Refusal) {
        try demand(
            offset >= 0x800 && offset < 0xC00, EINVAL, "there is no doorbell at this offset of a page", has: Int(offset)
        )
        guard offset & 0xFF == 0 else { return }
        let number = UInt32(truncatingIfNeeded: value) >> 8
        guard let queuePair = device.queuePair(number: number) else {
            throw Refusal(EINVAL, "there is no queue pair of this number", has: Int(number))
        }
        try demand(pages(queuePair.context).has(page), EINVAL, "a UAR page of another context", has: Int(page))
        let queues = rings(queuePair)
        let index = UInt16(truncatingIfNeeded: value >> 40)
        let posted = UInt16(truncatingIfNeeded: queues.record.second)
        // The program writes the doorbell record before the doorbell.
        try demand(
            posted &- index >= 1 && UInt32(posted &- index) <= queues.sendWQEBBs, EINVAL,
            "a doorbell for a WQE that the doorbell record does not include yet", has: Int(index), wants: Int(posted))
        device.run()
    }
}
