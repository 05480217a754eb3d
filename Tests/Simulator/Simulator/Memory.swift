import CSimulator

extension Device {
    /// The address of memory that a key opens, or nil: unknown or closed key, foreign protection domain, outside of the
    /// region, or an access that was not granted.
    /// - Parameters:
    ///   - access: of `enum ibv_access_flags`, all of them wanted; 0 for reading locally.
    ///   - queuePair: whose peer asks, for windows.
    func resolve(
        key: UInt32, address: UInt64, length: UInt64, access: UInt32, domain: ProtectionDomain, queuePair: UInt32 = 0
    ) -> UnsafeMutableRawPointer? {
        guard let object = object(key: key) else { return nil }
        if object.kind == .window {
            let window = unsafeDowncast(object, to: MemoryWindow.self)
            guard window.key == key, window.domain === domain, let region = window.region,
                window.type == 1 || window.queuePair == queuePair,
                contains(address, length, window.address, window.length), window.access & access == access
            else { return nil }
            return translate(region, address, length)
        }
        let region = unsafeDowncast(object, to: MemoryRegion.self)
        guard region.key == key, region.domain === domain, region.access & access == access else { return nil }
        return translate(region, address, length)
    }

    private func translate(_ region: MemoryRegion, _ address: UInt64, _ length: UInt64) -> UnsafeMutableRawPointer? {
        guard contains(address, length, region.virtualAddress, region.length) else { return nil }
        return UnsafeMutableRawPointer(bitPattern: UInt(region.start &+ (address &- region.virtualAddress)))
    }

    private func contains(_ address: UInt64, _ length: UInt64, _ start: UInt64, _ size: UInt64) -> Bool {
        address >= start && address - start <= size && length <= size - (address - start)
    }

    /// Collects the data of a send request into `message`; false when a key does not open its memory.
    func gather(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
        if request.isInline {
            message.reserve(request.inlineData.count)
            message.append(request.inlineData.bytes, request.inlineData.count)
            return true
        }
        var length = 0
        for index in 0..<request.segmentCount { length += Int(request.segments[index].length) }
        message.reserve(length)
        for index in 0..<request.segmentCount {
            let segment = request.segments[index]
            if segment.length == 0 { continue }
            guard
                let source = resolve(
                    key: segment.key, address: segment.address, length: UInt64(segment.length), access: 0,
                    domain: queuePair.domain)
            else { return false }
            message.append(source, Int(segment.length))
        }
        return true
    }

    /// Writes bytes into a list of segments, which has room for them; false when a key does not open its memory, and
    /// nothing has been written then.
    func scatter(
        _ bytes: UnsafeRawBufferPointer, into segments: UnsafeMutablePointer<Segment>, _ count: Int,
        domain: ProtectionDomain
    ) -> Bool {
        for isChecking in [true, false] {
            var done = 0
            for index in 0..<count where done < bytes.count {
                let segment = segments[index]
                let length = min(Int(segment.length), bytes.count - done)
                if length == 0 { continue }
                guard
                    let place = resolve(
                        key: segment.key, address: segment.address, length: UInt64(length),
                        access: IBV_ACCESS_LOCAL_WRITE.rawValue, domain: domain)
                else { return false }
                if !isChecking { place.copyMemory(from: bytes.baseAddress! + done, byteCount: length) }
                done += length
            }
        }
        return true
    }

    /// The message that was gathered.
    var gathered: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: message.bytes, count: message.count) }
}
