import CIBVerbs
import ProviderKit

// The parts of work requests, written in place.

extension UnsafeMutableRawPointer {
    /// Writes the header of a work request.
    /// - Parameters:
    ///   - index: The index of the work request in its queue.
    ///   - length: The size of the work request in units of 16 bytes.
    @inline(__always)
    func putHeader(_ opcode: UInt64, flags: UInt64 = 0, index: UInt32, length: UInt32) {
        put(
            Filled(WorkRequestHeader.opcode, opcode), Filled(WorkRequestHeader.flags, flags),
            Filled(WorkRequestHeader.index, UInt64(index)), Filled(WorkRequestHeader.length, UInt64(length)))
    }

    /// Writes an SGE.
    @inline(__always)
    func putSGE(_ sge: ibv_sge) {
        put(Filled(SGE.key, UInt64(sge.lkey)), Filled(SGE.length, UInt64(sge.length)))
        SGE.address.put(sge.addr, in: self)
    }

    /// Writes the header of an SGE list.
    @inline(__always)
    func putListHeader(_ count: UInt32) {
        put(Filled(SGEListHeader.kind, PayloadKind.sgeList), Filled(SGEListHeader.count, UInt64(count)))
    }

    /// Writes the header of inline data.
    @inline(__always)
    func putInlineHeader(_ length: UInt32) {
        put(Filled(InlineDataHeader.kind, PayloadKind.inlineData), Filled(InlineDataHeader.length, UInt64(length)))
    }
}

/// A payload that was written: its size in the work request with its header, and the bytes of the message.
struct Payload {
    let size: UInt32
    let length: UInt32
}

/// Writes an SGE list, and 8 zeroed bytes after it: the end of a unit of 16 bytes. Returns nil for an SGE list whose
/// length does not fit in 32 bits.
@inline(__always)
func putSGEs(
    _ list: UnsafePointer<ibv_sge>, _ count: UInt32, at payload: UnsafeMutableRawPointer
) -> Payload? {
    payload.putListHeader(count)
    var target = payload + SGEListHeader.byteCount
    var length: UInt64 = 0
    var sge = list
    var rest = count
    repeat {
        length &+= UInt64(sge.pointee.length)
        target.putSGE(sge.pointee)
        target += SGE.byteCount
        sge += 1
        rest &-= 1
    } while rest != 0
    target.put(0 as UInt64, at: 0)
    guard length >> 32 == 0 else { return nil }
    return Payload(
        size: UInt32(SGEListHeader.byteCount) &+ count &* UInt32(SGE.byteCount),
        length: UInt32(truncatingIfNeeded: length))
}

/// Writes inline data, zeroed to a unit of 16 bytes. Returns nil for too much of it, or for an address of 0.
@inline(__always)
func putInline(
    _ list: UnsafePointer<ibv_sge>?, _ count: UInt32, at payload: UnsafeMutableRawPointer
) -> Payload? {
    let start = payload + InlineDataHeader.byteCount
    var length: UInt32 = 0
    if count != 0 {
        guard var sge = list else { return nil }
        var rest = count
        repeat {
            let bytes = sge.pointee.length
            guard bytes <= Limits.inlineData &- length else { return nil }
            if bytes != 0 {
                guard let source = UnsafeRawPointer(bitPattern: UInt(sge.pointee.addr)) else { return nil }
                (start + Int(length)).copyMemory(from: source, byteCount: Int(bytes))
            }
            length &+= bytes
            sge += 1
            rest &-= 1
        } while rest != 0
    }
    return finishInline(length, at: payload)
}

/// Writes the header of `length` bytes of inline data, and zeroes the rest of their last unit of 16 bytes.
@inline(__always)
func finishInline(_ length: UInt32, at payload: UnsafeMutableRawPointer) -> Payload {
    let used = Int(length) &+ InlineDataHeader.byteCount
    let padding = (16 &- (used & 15)) & 15
    let end = payload + used
    for index in 0..<padding { (end + index).storeBytes(of: 0, as: UInt8.self) }
    payload.putInlineHeader(length)
    return Payload(size: UInt32(used), length: length)
}
