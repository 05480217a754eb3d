import CSimulator

extension Mlx5Codec {
    /// Where a request for an event is written on a doorbell page.
    static var armOffset: UInt32 { 0x20 }

    /// Looks whether the program has asked for an event: the doorbell record has changed, or the page says so. Without
    /// traps only the last store to a page can be seen.
    func looksAtDoorbell(_ queue: CompletionQueue) -> Bool {
        let ring = ring(queue)
        let wish = ring.record.second
        let isNew = wish != ring.lastWish
        if !device.options.isTrapped {
            guard takesDoorbell(queue, ring, wish) || isNew else { return false }
            arm(queue, ring, wish)
        }
        return isDue(queue, ring)
    }

    private func isDue(_ queue: CompletionQueue, _ ring: Mlx5Completions) -> Bool {
        // It tells how far the program had polled: what has come since makes the event at once.
        queue.notification == .next && ring.lastWish & 0xFF_FFFF != ring.producer & 0xFF_FFFF
    }

    private func arm(_ queue: CompletionQueue, _ ring: Mlx5Completions, _ wish: UInt32) {
        ring.lastWish = wish
        queue.notification = wish & 1 << 24 != 0 ? .solicited : .next
    }

    /// The doorbell of this queue, if it is the last one that was written to a page.
    private func takesDoorbell(_ queue: CompletionQueue, _ ring: Mlx5Completions, _ wish: UInt32) -> Bool {
        let doorbell = (UInt64(wish) << 32 | UInt64(ring.number)).bigEndian
        for page in pages(queue.context).all {
            let place = page.bytes + Int(Mlx5Codec.armOffset)
            guard place.load(as: UInt64.self) == doorbell else { continue }
            place.storeBytes(of: 0, as: UInt64.self)
            return true
        }
        return false
    }

    // MARK: - Stores that were trapped

    /// A store to a page: what it asks for is done before the program's next instruction.
    func ring(page: UInt32, offset: UInt32, size: UInt32, _ bytes: UnsafeRawBufferPointer) {
        do throws(Refusal) {
            try demand(
                size == 8, EINVAL, "a store of another size than a doorbell has, in bytes", has: Int(size), wants: 8)
            let value = UInt64(bigEndian: bytes.load(0, as: UInt64.self))
            if offset == Mlx5Codec.armOffset {
                try armed(value, page)
            } else {
                try sent(value, page, offset)
            }
        } catch {
            _ = device.keep(error, of: "a doorbell")
        }
    }

    private func armed(_ value: UInt64, _ page: UInt32) throws(Refusal) {
        let number = UInt32(truncatingIfNeeded: value) & 0xFF_FFFF
        guard let queue = device.completionQueues.first(where: { ring($0).number == number }) else {
            throw Refusal(EINVAL, "there is no completion queue of this number", has: Int(number))
        }
        try demand(pages(queue.context).has(page), EINVAL, "the page of another context", has: Int(page))
        let wish = UInt32(truncatingIfNeeded: value >> 32)
        try demand(
            wish == ring(queue).record.second, EINVAL, "the doorbell says something else than its record",
            has: Int(wish), wants: Int(ring(queue).record.second))
        arm(queue, ring(queue), wish)
        device.run()
    }

    /// A doorbell of sends: the first 8 bytes of a request, at the beginning of a half of a register. What follows of a
    /// request that is copied there (BlueFlame) rings no more.
    private func sent(_ value: UInt64, _ page: UInt32, _ offset: UInt32) throws(Refusal) {
        try demand(
            offset >= 0x800 && offset < 0xC00, EINVAL, "there is no doorbell at this offset of a page", has: Int(offset)
        )
        guard offset & 0xFF == 0 else { return }
        let number = UInt32(truncatingIfNeeded: value) >> 8
        guard let queuePair = device.queuePair(number: number) else {
            throw Refusal(EINVAL, "there is no queue pair of this number", has: Int(number))
        }
        try demand(pages(queuePair.context).has(page), EINVAL, "the page of another context", has: Int(page))
        let queues = rings(queuePair)
        let index = UInt16(truncatingIfNeeded: value >> 40)
        let posted = UInt16(truncatingIfNeeded: queues.record.second)
        // The record comes first: a device that reads it finds the request in it.
        try demand(
            posted &- index >= 1 && UInt32(posted &- index) <= queues.sendBlocks, EINVAL,
            "a doorbell for a request that its record does not have yet", has: Int(index), wants: Int(posted))
        device.run()
    }
}
