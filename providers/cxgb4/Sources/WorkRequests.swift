import CIBVerbs
import ProviderKit

// The work requests of the adapter, except for their headers and payloads, written in place.

extension UnsafeMutableRawPointer {
    /// Writes a SEND.
    /// - Parameter operation: `Operation.send` or `.sendInvalidate`; `IBV_SEND_SOLICITED` in `flags` adds the solicited
    ///   event.
    @inline(__always)
    func putSend(_ operation: UInt32, _ flags: UInt32, invalidated: UInt32, length: UInt32) {
        // 3 to 6: plain, with invalidation, solicited, both.
        let operation = operation &+ (flags.has(IBV_SEND_SOLICITED) ? 2 : 0)
        put(
            Filled(SendRequest.operation, UInt64(operation)), Filled(SendRequest.invalidated, UInt64(invalidated)))
        SendRequest.length.put(UInt64(length), in: self)
        put(0 as UInt64, at: SendRequest.reservedOffset)
    }

    /// Writes an RDMA WRITE.
    @inline(__always)
    func putWrite(key: UInt32, address: UInt64, immediate: UInt32, length: UInt32) {
        WriteRequest.immediate.put(UInt64(immediate), in: self)
        put(Filled(WriteRequest.length, UInt64(length)), Filled(WriteRequest.key, UInt64(key)))
        WriteRequest.address.put(address, in: self)
    }

    /// Writes an RDMA READ. A READ of nothing has the key 2 on both sides, which no region has.
    @inline(__always)
    func putRead(sink: ibv_sge?, key: UInt32, address: UInt64) {
        let (key, address) = sink == nil ? (2, 0) : (key, address)
        let sink = sink ?? ibv_sge(addr: 0, length: 0, lkey: 2)
        put(0 as UInt64, at: ReadRequest.reservedOffset)
        put(
            Filled(ReadRequest.sinkKey, UInt64(sink.lkey)), Filled(ReadRequest.sinkHigh, sink.addr >> 32))
        put(Filled(ReadRequest.sinkLow, sink.addr), Filled(ReadRequest.length, UInt64(sink.length)))
        put(Filled(ReadRequest.sourceKey, UInt64(key)), Filled(ReadRequest.sourceHigh, address >> 32))
        ReadRequest.sourceLow.put(address, in: self)
    }

    /// Writes a bind of a memory window.
    func putBinding(key: UInt32, isType2: Bool, region: UInt32, _ info: ibv_mw_bind_info) {
        func flag(_ access: ibv_access_flags, _ bit: UInt64) -> UInt64 {
            info.mw_access_flags & access.rawValue != 0 ? bit : 0
        }
        let isZeroBased = info.mw_access_flags & IBV_ACCESS_ZERO_BASED.rawValue != 0
        // `FW_RI_MEM_ACCESS_REM_WRITE`, `FW_RI_MEM_ACCESS_REM_READ`.
        let access = flag(IBV_ACCESS_REMOTE_WRITE, 1) | flag(IBV_ACCESS_REMOTE_READ, 2)
        put(
            Filled(BindRequest.bindsQueuePair, isType2 ? 1 : 0), Filled(BindRequest.isVirtual, isZeroBased ? 0 : 1),
            Filled(BindRequest.access, access), Filled(BindRequest.regionKey, UInt64(region)))
        BindRequest.windowKey.put(UInt64(key), in: self)
        BindRequest.length.put(info.length, in: self)
        BindRequest.address.put(isZeroBased ? 0 : info.addr, in: self)
        put(0 as UInt64, at: BindRequest.reservedOffset)
    }
}

extension UnsafeMutablePointer<SendQueue> {
    /// Whether a list is a WRITE and a SEND that one `WriteSendRequest` can hold.
    @inline(__always)
    func canPair(_ write: UnsafeMutablePointer<ibv_send_wr>) -> Bool {
        guard pointee.pairsWriteAndSend, write.pointee.opcode == IBV_WR_RDMA_WRITE, let send = write.pointee.next,
            send.pointee.next == nil,
            send.pointee.opcode == IBV_WR_SEND || send.pointee.opcode == IBV_WR_SEND_WITH_INV
        else { return false }
        return isShort(write, send)
    }

    private func isShort(
        _ write: UnsafeMutablePointer<ibv_send_wr>, _ send: UnsafeMutablePointer<ibv_send_wr>
    ) -> Bool {
        // The combined request has neither a solicited event nor a fence, and no inline data in the WRITE.
        let plain = IBV_SEND_SIGNALED.rawValue
        guard write.pointee.send_flags & ~plain == 0, write.pointee.num_sge >= 1,
            write.pointee.num_sge <= Int32(Limits.pairedSGE), let list = write.pointee.sg_list, list.pointee.length != 0
        else { return false }
        guard send.pointee.send_flags & ~(plain | IBV_SEND_INLINE.rawValue) == 0, send.pointee.num_sge == 1,
            let one = send.pointee.sg_list, one.pointee.length == Limits.pairedLength
        else { return false }
        return !send.pointee.send_flags.has(IBV_SEND_INLINE) || one.pointee.addr != 0
    }

    /// Writes a WRITE and the SEND after it as one work request, which has two completions. Returns as `write` does.
    @inline(never)
    func writePair(_ write: UnsafeMutablePointer<ibv_send_wr>, _ send: UnsafeMutablePointer<ibv_send_wr>) -> Int32 {
        let target = pointee.ring.target
        let one = send.pointee.sg_list.pointee
        let sendPayload = target + WriteSendRequest.sendPayloadOffset
        if send.pointee.send_flags.has(IBV_SEND_INLINE) {
            guard let bytes = UnsafeRawPointer(bitPattern: UInt(one.addr)) else { return -EINVAL }
            sendPayload.put(
                Filled(ShortInlineData.kind, PayloadKind.inlineData), Filled(ShortInlineData.length, UInt64(one.length))
            )
            (sendPayload + ShortInlineData.dataOffset).copyMemory(from: bytes, byteCount: Int(one.length))
        } else {
            sendPayload.putListHeader(1)
            (sendPayload + SGEListHeader.byteCount).putSGE(one)
        }
        target.put(0 as UInt64, at: WriteSendRequest.reservedOffset)
        guard
            let payload = putSGEs(
                write.pointee.sg_list, UInt32(write.pointee.num_sge), at: target + WriteSendRequest.byteCount)
        else { return -EINVAL }
        let sendIndex = pointee.index &+ 1 == pointee.entries ? 0 : pointee.index &+ 1
        target.put(
            Filled(WriteSendRequest.sendFlags, UInt32(headerFlags(send.pointee.send_flags, fence: 0))),
            Filled(WriteSendRequest.sendIndex, sendIndex))
        let invalidates = send.pointee.opcode == IBV_WR_SEND_WITH_INV
        WriteSendRequest.invalidated.put(invalidates ? send.pointee.invalidate_rkey : 0, in: target)
        target.put(
            Filled(WriteSendRequest.length, UInt64(payload.length)),
            Filled(WriteSendRequest.key, UInt64(write.pointee.wr.rdma.rkey)))
        WriteSendRequest.address.put(write.pointee.wr.rdma.remote_addr, in: target)
        let slots = finish(
            target, WorkRequestOpcode.writeSend, headerFlags(write.pointee.send_flags, fence: 0),
            size: UInt32(WriteSendRequest.byteCount) &+ payload.size,
            PostedSend(
                id: write.pointee.wr_id, length: 0,
                state: .init(Operation.write, isSignaled: isSignaled(write.pointee.send_flags))))
        record(
            PostedSend(
                id: send.pointee.wr_id, length: 0,
                state: .init(
                    invalidates ? Operation.sendInvalidate : Operation.send,
                    isSignaled: isSignaled(send.pointee.send_flags))))
        return slots
    }
}
