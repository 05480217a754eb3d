import CIBVerbs
import CLinux
import ProviderKit

// Segments of work requests, each written to the place where it lies.

extension UnsafeMutableRawPointer {
    @inline(__always)
    func putRemote(_ address: UInt64, _ key: UInt32) {
        RemoteAddressSegment.address.put(address, in: self)
        RemoteAddressSegment.key.put(UInt64(key), in: self)
    }

    /// What to compare with is left alone where nothing is compared.
    @inline(__always)
    func putAtomic(_ operation: UInt32, compareAdd: UInt64, swap: UInt64) {
        if operation == Opcode.compareSwap {
            AtomicSegment.swapOrAdd.put(swap, in: self)
            AtomicSegment.compare.put(compareAdd, in: self)
        } else {
            AtomicSegment.swapOrAdd.put(compareAdd, in: self)
        }
    }

    @inline(__always)
    func putPiece(_ length: UInt32, _ key: UInt32, _ address: UInt64) {
        DataSegment.length.put(length, in: self)
        DataSegment.key.put(key, in: self)
        DataSegment.address.put(address, in: self)
    }

    /// Where a datagram goes: what the address handle has prepared, and the queue pair there.
    @inline(__always)
    func putAddress(_ ah: UnsafeMutablePointer<ibv_ah>, queuePair: UInt32, key: UInt32) {
        let prepared = UnsafeRawPointer(ah.mlx5.vector)
        put(prepared.get16(0), at: 0)
        put(prepared.get16(16), at: 16)
        put(prepared.get16(32), at: 32)
        AddressVector.queueKey.put(UInt64(key), in: self)
        put(Filled(AddressVector.isExtended, 1), Filled(AddressVector.queuePair, queuePair))
    }
}

extension SendRing {
    /// Writes a list of pieces of memory; those without a byte are left out. How many segments, or -EINVAL.
    @inline(__always)
    func putPieces(
        _ list: UnsafePointer<ibv_sge>?, _ count: UInt32, at segment: UnsafeMutableRawPointer, isAtomic: Bool
    ) -> Int32 {
        guard count != 0 else { return 0 }
        guard var element = list else { return -EINVAL }
        var target = segment
        var segments: Int32 = 0
        var rest = count
        repeat {
            let length = element.pointee.length
            if _fastPath(length != 0) {
                target = wrapped(target)
                target.putPiece(isAtomic ? 8 : length, element.pointee.lkey, element.pointee.addr)
                target += DataSegment.byteCount
                segments &+= 1
            }
            element += 1
            rest &-= 1
        } while rest != 0
        return segments
    }

    /// Copies the data itself behind a word that says how much it is; nothing at all for no data. How many segments, or
    /// -EINVAL when there is more than `room`.
    @inline(__always)
    func putInline(
        _ list: UnsafePointer<ibv_sge>?, _ count: UInt32, at segment: UnsafeMutableRawPointer, room: UInt32
    ) -> Int32 {
        guard count != 0 else { return 0 }
        guard var element = list else { return -EINVAL }
        var target = segment + InlineSegment.headerByteCount
        var left = room
        var rest = count
        repeat {
            let length = element.pointee.length
            guard length <= left else { return -EINVAL }
            if length != 0 {
                guard let bytes = UnsafeRawPointer(bitPattern: UInt(element.pointee.addr)) else { return -EINVAL }
                target = copy(bytes, Int(length), to: target)
            }
            left &-= length
            element += 1
            rest &-= 1
        } while rest != 0
        return finishInline(room &- left, at: segment)
    }

    /// Copies bytes of inline data, also over the end: where the next byte goes.
    @inline(__always)
    func copy(
        _ bytes: UnsafeRawPointer, _ count: Int, to target: UnsafeMutableRawPointer
    ) -> UnsafeMutableRawPointer {
        let here = end - target
        if _fastPath(count <= here) {
            target.copyMemory(from: bytes, byteCount: count)
            return target + count
        }
        target.copyMemory(from: bytes, byteCount: here)
        start.copyMemory(from: bytes + here, byteCount: count &- here)
        return start + (count &- here)
    }

    /// Writes how much inline data there is: how many segments it takes.
    @inline(__always)
    func finishInline(_ length: UInt32, at segment: UnsafeMutableRawPointer) -> Int32 {
        guard length != 0 else { return 0 }
        segment.put(Filled(InlineSegment.isInline, 1), Filled(InlineSegment.length, length))
        return Int32(bitPattern: (length &+ (UInt32(InlineSegment.headerByteCount) &+ 15)) / 16)
    }
}

/// What a work request changes of a memory key: a window is bound to a piece of memory, or its binding is taken back.
struct KeyChange {
    /// A translation holds no more.
    static var maximumLength: UInt64 { 1 << 31 }

    /// The key as it is.
    let window: UInt32
    /// The lowest 8 bits of the key as it is to be.
    let variant: UInt32
    /// Belongs to one queue pair (type 2).
    let isOwned: Bool
    let address: UInt64
    /// 0 takes the binding back.
    let length: UInt64
    let region: UInt32
    let access: UInt32
    let isZeroBased: Bool
    let completion: ibv_wc_opcode

    /// Nil when it names no memory region for the memory.
    init?(binding window: UnsafeMutablePointer<ibv_mw>, key: UInt32, _ info: ibv_mw_bind_info) {
        self.init(window.pointee.rkey, window.pointee.type, key: key, info)
    }

    init?(_ window: UInt32, _ type: ibv_mw_type, key: UInt32, _ info: ibv_mw_bind_info) {
        guard info.length == 0 || info.mr != nil else { return nil }
        self.window = window
        variant = key & 0xFF
        isOwned = type == IBV_MW_TYPE_2
        address = info.addr
        length = info.length
        region = info.length == 0 ? 0 : info.mr.pointee.lkey
        func flag(_ access: ibv_access_flags, _ bit: UInt32) -> UInt32 {
            info.mw_access_flags & access.rawValue != 0 ? 1 << bit : 0
        }
        // From local write on; local read is the kernel's.
        access =
            flag(IBV_ACCESS_LOCAL_WRITE, 1) | flag(IBV_ACCESS_REMOTE_READ, 2) | flag(IBV_ACCESS_REMOTE_WRITE, 3)
            | flag(IBV_ACCESS_REMOTE_ATOMIC, 4)
        isZeroBased = info.mw_access_flags & IBV_ACCESS_ZERO_BASED.rawValue != 0
        completion = IBV_WC_BIND_MW
    }

    /// Takes a binding back, as IBV_WR_LOCAL_INV does.
    static func invalidation(of window: UInt32) -> KeyChange { KeyChange(invalidated: window) }

    private init(invalidated window: UInt32) {
        self.window = window
        variant = 0
        isOwned = true
        address = 0
        length = 0
        region = 0
        access = 0
        isZeroBased = false
        completion = IBV_WC_LOCAL_INV
    }

    /// What is changed, and under which condition.
    func putControl(at segment: UnsafeMutableRawPointer) {
        segment.put(0 as UInt64, at: 16)
        segment.put(SIMD2<UInt64>(), at: 24)
        segment.put(0 as UInt64, at: 40)
        let isBinding = length != 0
        segment.put(
            Filled(KeyControlSegment.isInline, 1), Filled(KeyControlSegment.hasTranslationOffset, 1),
            isBinding
                ? Filled(KeyControlSegment.checksFree, isOwned ? 1 : 0)
                : Filled(KeyControlSegment.checksQueuePair, isOwned ? 1 : 0))
        // In units of 16 bytes, aligned to four of them.
        KeyControlSegment.translations.put(isBinding ? 4 : 0, in: segment)
        KeyControlSegment.mask.put(
            KeyMask.isFree | KeyMask.key | (isOwned ? KeyMask.queuePair : 0)
                | (isBinding ? KeyMask.length | KeyMask.address | KeyMask.access : 0), in: segment)
    }

    /// The key's new state. What is not in the mask stays as it was in the memory.
    func putContext(at segment: UnsafeMutableRawPointer, queuePair: UInt32) {
        let anyQueuePair: UInt32 = 0xFFFFFF
        segment.put(
            Filled(KeyContextSegment.queuePair, isOwned && length != 0 ? queuePair : anyQueuePair),
            Filled(KeyContextSegment.key, variant))
        KeyContextSegment.isFree.put(length == 0 ? 1 : 0, in: segment)
        guard length != 0 else { return }
        KeyContextSegment.access.put(UInt8(truncatingIfNeeded: access), in: segment)
        KeyContextSegment.address.put(isZeroBased ? 0 : address, in: segment)
        KeyContextSegment.length.put(length, in: segment)
    }

    /// The memory.
    func putTranslation(at segment: UnsafeMutableRawPointer) {
        TranslationSegment.length.put(UInt32(truncatingIfNeeded: length), in: segment)
        TranslationSegment.key.put(region, in: segment)
        TranslationSegment.address.put(address, in: segment)
        for offset in [16, 32, 48] { segment.put(SIMD2<UInt64>(), at: offset) }
    }
}
