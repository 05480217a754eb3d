typealias Elements = UnsafePointer<ScatterGatherElement>

extension Core {
    /// Whether all pieces lie in regions that allow `access`.
    mutating func areValid(_ elements: Elements, count: Int, domain: UInt32, access: AccessFlags) -> Bool {
        for index in 0..<count {
            let element = elements + index
            if element.pointee.length == 0 { continue }
            if keys.translate(
                key: element.pointee.key, protectionDomain: domain, address: element.pointee.address,
                length: UInt64(element.pointee.length), access: access) == nil
            {
                return false
            }
        }
        return true
    }

    /// Copies `byteCount` bytes from `offset` on, counted over all pieces, to `target`.
    /// False when a key is not valid (any more).
    @inline(__always)
    mutating func gather(
        _ elements: Elements, count: Int, domain: UInt32, offset: UInt32, byteCount: Int,
        to target: UnsafeMutableRawPointer
    ) -> Bool {
        forEachPiece(elements, count: count, domain: domain, offset: offset, byteCount: byteCount, access: []) {
            memory, done, length in
            (target + done).copyMemory(from: memory, byteCount: length)
        }
    }

    /// Copies `byteCount` bytes from `source` into the pieces, from `offset` on, counted over all of them.
    /// False when a key is not valid (any more); some bytes may have been written then.
    @inline(__always)
    mutating func scatter(
        _ elements: Elements, count: Int, domain: UInt32, offset: UInt32, byteCount: Int, from source: UnsafeRawPointer
    ) -> Bool {
        forEachPiece(
            elements, count: count, domain: domain, offset: offset, byteCount: byteCount, access: .localWrite
        ) { memory, done, length in
            memory.copyMemory(from: source + done, byteCount: length)
        }
    }

    @inline(__always)
    private mutating func forEachPiece(
        _ elements: Elements, count: Int, domain: UInt32, offset: UInt32, byteCount: Int, access: AccessFlags,
        _ body: (UnsafeMutableRawPointer, Int, Int) -> Void
    ) -> Bool {
        var skip = offset
        var done = 0
        var index = 0
        while done < byteCount {
            guard index < count else { return false }
            let element = elements + index
            index &+= 1
            let length = element.pointee.length
            if skip >= length {
                skip &-= length
                continue
            }
            let part = min(Int(length &- skip), byteCount &- done)
            guard
                let memory = keys.translate(
                    key: element.pointee.key, protectionDomain: domain,
                    address: element.pointee.address &+ UInt64(skip), length: UInt64(part), access: access)
            else { return false }
            body(memory, done, part)
            done &+= part
            skip = 0
        }
        return true
    }
}
