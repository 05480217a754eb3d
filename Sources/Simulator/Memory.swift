import CSimulator

extension Device {
    /// The memory of an SGE or a remote address. Nil: unknown or invalidated key, other protection domain, outside of
    /// the region, or access that was not granted.
    /// - Parameters:
    ///   - access: The required `enum ibv_access_flags`; 0 for a local read.
    ///   - queuePair: The responder's QPN, for windows of type 2.
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
        guard region.key == key, !region.isInvalid, region.domain === domain, region.access & access == access else {
            return nil
        }
        return translate(region, address, length)
    }

    private func translate(_ region: MemoryRegion, _ address: UInt64, _ length: UInt64) -> UnsafeMutableRawPointer? {
        guard contains(address, length, region.virtualAddress, region.length) else { return nil }
        return UnsafeMutableRawPointer(bitPattern: UInt(region.start &+ (address &- region.virtualAddress)))
    }

    private func contains(_ address: UInt64, _ length: UInt64, _ start: UInt64, _ size: UInt64) -> Bool {
        address >= start && address - start <= size && length <= size - (address - start)
    }

    /// Gathers the payload of a send WQE into `message`; false when an lkey does not grant access.
    func gather(_ request: SendRequest, _ queuePair: QueuePair) -> Bool {
        if request.isInline {
            message.reserve(request.inlineData.count)
            message.append(request.inlineData.bytes, request.inlineData.count)
            return true
        }
        var length = 0
        for index in 0..<request.sgeCount { length += Int(request.sges[index].length) }
        message.reserve(length)
        for index in 0..<request.sgeCount {
            let sge = request.sges[index]
            if sge.length == 0 { continue }
            guard
                let source = resolve(
                    key: sge.key, address: sge.address, length: UInt64(sge.length), access: 0,
                    domain: queuePair.domain)
            else { return false }
            message.append(source, Int(sge.length))
        }
        return true
    }

    /// Scatters bytes to SGEs, which have room for them. Returns false, and writes nothing, when an lkey does not grant
    /// access.
    func scatter(
        _ bytes: UnsafeRawBufferPointer, into sges: UnsafeMutablePointer<SGE>, _ count: Int,
        domain: ProtectionDomain
    ) -> Bool {
        for isChecking in [true, false] {
            var done = 0
            for index in 0..<count where done < bytes.count {
                let sge = sges[index]
                let length = min(Int(sge.length), bytes.count - done)
                if length == 0 { continue }
                guard
                    let place = resolve(
                        key: sge.key, address: sge.address, length: UInt64(length),
                        access: IBV_ACCESS_LOCAL_WRITE.rawValue, domain: domain)
                else { return false }
                if !isChecking { place.copyMemory(from: bytes.baseAddress! + done, byteCount: length) }
                done += length
            }
        }
        return true
    }

    /// The bytes of `message`.
    var gathered: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: message.bytes, count: message.count) }
}
