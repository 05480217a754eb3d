/// A scatter/gather list (`ibv_send_wr.sg_list`, `ibv_recv_wr.sg_list`).
typealias SGList = UnsafePointer<SGE>

extension Core {
    /// Whether all SGEs are in memory regions that allow `access`.
    mutating func areValid(_ sgList: SGList, count: Int, domain: UInt32, access: AccessFlags) -> Bool {
        for index in 0..<count {
            let sge = sgList + index
            if sge.pointee.length == 0 { continue }
            if keys.translate(
                key: sge.pointee.lkey, protectionDomain: domain, address: sge.pointee.address,
                length: UInt64(sge.pointee.length), access: access) == nil
            {
                return false
            }
        }
        return true
    }

    /// Copies `byteCount` bytes from `offset` on, counted over all SGEs, to `target`. Returns false when an L_Key is
    /// not valid.
    @inline(__always)
    mutating func gather(
        _ sgList: SGList, count: Int, domain: UInt32, offset: UInt32, byteCount: Int,
        to target: UnsafeMutableRawPointer
    ) -> Bool {
        forEachSGE(sgList, count: count, domain: domain, offset: offset, byteCount: byteCount, access: .local) {
            memory, done, length in
            (target + done).copyMemory(from: memory, byteCount: length)
        }
    }

    /// Copies `byteCount` bytes from `source` into the SGEs, from `offset` on, counted over all SGEs. Returns false
    /// when an L_Key is not valid; some bytes may have been written then.
    @inline(__always)
    mutating func scatter(
        _ sgList: SGList, count: Int, domain: UInt32, offset: UInt32, byteCount: Int, from source: UnsafeRawPointer
    ) -> Bool {
        forEachSGE(
            sgList, count: count, domain: domain, offset: offset, byteCount: byteCount, access: .localWrite
        ) { memory, done, length in
            memory.copyMemory(from: source + done, byteCount: length)
        }
    }

    @inline(__always)
    mutating func forEachSGE(
        _ sgList: SGList, count: Int, domain: UInt32, offset: UInt32, byteCount: Int, access: AccessFlags,
        _ body: (UnsafeMutableRawPointer, Int, Int) -> Void
    ) -> Bool {
        var skip = offset
        var done = 0
        var index = 0
        while done < byteCount {
            guard index < count else { return false }
            let sge = sgList + index
            index &+= 1
            let length = sge.pointee.length
            if skip >= length {
                skip &-= length
                continue
            }
            let part = min(Int(length &- skip), byteCount &- done)
            guard
                let memory = keys.translate(
                    key: sge.pointee.lkey, protectionDomain: domain,
                    address: sge.pointee.address &+ UInt64(skip), length: UInt64(part), access: access)
            else { return false }
            body(memory, done, part)
            done &+= part
            skip = 0
        }
        return true
    }
}
