import CIBVerbs
import CLinux
import ProviderKit

// The segments of send WQEs, written in place.

extension UnsafeMutableRawPointer {
    @inline(__always)
    func putRemote(_ address: UInt64, _ key: UInt32) {
        RemoteAddressSegment.address.put(address, in: self)
        RemoteAddressSegment.key.put(UInt64(key), in: self)
    }

    /// Writes the atomic segment. Fetch-add leaves the compare field unwritten.
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
    func putSGE(_ length: UInt32, _ key: UInt32, _ address: UInt64) {
        DataSegment.length.put(length, in: self)
        DataSegment.key.put(key, in: self)
        DataSegment.address.put(address, in: self)
    }

    /// Copies the address vector of the address handle, and adds the destination QPN and Q_Key.
    @inline(__always)
    func putAddress(_ ah: UnsafeMutablePointer<ibv_ah>, queuePair: UInt32, key: UInt32) {
        let prepared = UnsafeRawPointer(ah.mlx5.vector)
        put(prepared.get16(0), at: 0)
        put(prepared.get16(16), at: 16)
        put(prepared.get16(32), at: 32)
        AddressVector.qkey.put(UInt64(key), in: self)
        put(Filled(AddressVector.isExtended, 1), Filled(AddressVector.queuePair, queuePair))
    }
}

extension SendRing {
    /// Writes the data segments of an SGE list, without SGEs of length 0. Returns the number of segments, or -EINVAL.
    @inline(__always)
    func putSGEs(
        _ list: UnsafePointer<ibv_sge>?, _ count: UInt32, at segment: UnsafeMutableRawPointer, isAtomic: Bool
    ) -> Int32 {
        guard count != 0 else { return 0 }
        guard var sge = list else { return -EINVAL }
        var target = segment
        var segments: Int32 = 0
        var rest = count
        repeat {
            let length = sge.pointee.length
            if _fastPath(length != 0) {
                target = wrapped(target)
                target.putSGE(isAtomic ? 8 : length, sge.pointee.lkey, sge.pointee.addr)
                target += DataSegment.byteCount
                segments &+= 1
            }
            sge += 1
            rest &-= 1
        } while rest != 0
        return segments
    }

    /// Copies the data of an SGE list as inline data; writes nothing if there is no data. Returns its size in units of
    /// 16 bytes, or -EINVAL for more than `room` bytes.
    @inline(__always)
    func putInline(
        _ list: UnsafePointer<ibv_sge>?, _ count: UInt32, at segment: UnsafeMutableRawPointer, room: UInt32
    ) -> Int32 {
        guard count != 0 else { return 0 }
        guard var sge = list else { return -EINVAL }
        var target = segment + InlineSegment.headerByteCount
        var left = room
        var rest = count
        repeat {
            let length = sge.pointee.length
            guard length <= left else { return -EINVAL }
            if length != 0 {
                guard let bytes = UnsafeRawPointer(bitPattern: UInt(sge.pointee.addr)) else { return -EINVAL }
                target = copy(bytes, Int(length), to: target)
            }
            left &-= length
            sge += 1
            rest &-= 1
        } while rest != 0
        return finishInline(room &- left, at: segment)
    }

    /// Copies inline data, which wraps at the end of the ring. Returns the address of the next byte.
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

    /// Writes the header of `length` bytes of inline data. Returns the size of both in units of 16 bytes.
    @inline(__always)
    func finishInline(_ length: UInt32, at segment: UnsafeMutableRawPointer) -> Int32 {
        guard length != 0 else { return 0 }
        segment.put(Filled(InlineSegment.isInline, 1), Filled(InlineSegment.length, length))
        return Int32(bitPattern: (length &+ (UInt32(InlineSegment.headerByteCount) &+ 15)) / 16)
    }
}

/// A UMR that binds a memory window to a range of memory, or invalidates it.
struct UMR {
    /// The maximum length of a KLM.
    static var maximumLength: UInt64 { 1 << 31 }

    /// The mkey to modify: the current rkey of the memory window.
    let mkey: UInt32
    /// The lowest 8 bits of the new rkey.
    let variant: UInt32
    /// Whether the memory window belongs to one queue pair (type 2).
    let isType2: Bool
    let address: UInt64
    /// 0 invalidates the memory window.
    let length: UInt64
    /// The lkey of the memory region.
    let lkey: UInt32
    let access: UInt32
    let isZeroBased: Bool
    /// The opcode of the work completion.
    let completionOpcode: ibv_wc_opcode

    /// A bind; an invalidation if the length is 0. Nil if the length is not 0 and `info` has no memory region.
    init?(binding window: UnsafeMutablePointer<ibv_mw>, key: UInt32, _ info: ibv_mw_bind_info) {
        self.init(window.pointee.rkey, window.pointee.type, key: key, info)
    }

    init?(_ mkey: UInt32, _ type: ibv_mw_type, key: UInt32, _ info: ibv_mw_bind_info) {
        guard info.length == 0 || info.mr != nil else { return nil }
        self.mkey = mkey
        variant = key & 0xFF
        isType2 = type == IBV_MW_TYPE_2
        address = info.addr
        length = info.length
        lkey = info.length == 0 ? 0 : info.mr.pointee.lkey
        func flag(_ access: ibv_access_flags, _ bit: UInt32) -> UInt32 {
            info.mw_access_flags & access.rawValue != 0 ? 1 << bit : 0
        }
        // Local read, bit 0, is not in `MKeyMask.access`.
        access =
            flag(IBV_ACCESS_LOCAL_WRITE, 1) | flag(IBV_ACCESS_REMOTE_READ, 2) | flag(IBV_ACCESS_REMOTE_WRITE, 3)
            | flag(IBV_ACCESS_REMOTE_ATOMIC, 4)
        isZeroBased = info.mw_access_flags & IBV_ACCESS_ZERO_BASED.rawValue != 0
        completionOpcode = IBV_WC_BIND_MW
    }

    /// An invalidation (`IBV_WR_LOCAL_INV`).
    static func invalidation(of mkey: UInt32) -> UMR { UMR(invalidated: mkey) }

    private init(invalidated mkey: UInt32) {
        self.mkey = mkey
        variant = 0
        isType2 = true
        address = 0
        length = 0
        lkey = 0
        access = 0
        isZeroBased = false
        completionOpcode = IBV_WC_LOCAL_INV
    }

    /// Writes the UMR control segment: the fields to modify and the condition.
    func putControl(at segment: UnsafeMutableRawPointer) {
        segment.put(0 as UInt64, at: 16)
        segment.put(SIMD2<UInt64>(), at: 24)
        segment.put(0 as UInt64, at: 40)
        let isBinding = length != 0
        segment.put(
            Filled(UMRControlSegment.isInline, 1), Filled(UMRControlSegment.hasTranslationOffset, 1),
            isBinding
                ? Filled(UMRControlSegment.checksFree, isType2 ? 1 : 0)
                : Filled(UMRControlSegment.checksQueuePair, isType2 ? 1 : 0))
        // In units of 16 bytes. The list is padded to 64 bytes.
        UMRControlSegment.klmOctowords.put(isBinding ? 4 : 0, in: segment)
        UMRControlSegment.mask.put(
            MKeyMask.isFree | MKeyMask.key | (isType2 ? MKeyMask.queuePair : 0)
                | (isBinding ? MKeyMask.length | MKeyMask.address | MKeyMask.access : 0), in: segment)
    }

    /// Writes the mkey context segment. Fields that are not in `mkey_mask` are left unwritten.
    func putMKeyContext(at segment: UnsafeMutableRawPointer, queuePair: UInt32) {
        let anyQueuePair: UInt32 = 0xFFFFFF
        segment.put(
            Filled(MKeyContextSegment.queuePair, isType2 && length != 0 ? queuePair : anyQueuePair),
            Filled(MKeyContextSegment.key, variant))
        MKeyContextSegment.isFree.put(length == 0 ? 1 : 0, in: segment)
        guard length != 0 else { return }
        MKeyContextSegment.access.put(UInt8(truncatingIfNeeded: access), in: segment)
        MKeyContextSegment.address.put(isZeroBased ? 0 : address, in: segment)
        MKeyContextSegment.length.put(length, in: segment)
    }

    /// Writes the KLM, padded to 64 bytes.
    func putKLM(at segment: UnsafeMutableRawPointer) {
        KLMSegment.length.put(UInt32(truncatingIfNeeded: length), in: segment)
        KLMSegment.key.put(lkey, in: segment)
        KLMSegment.address.put(address, in: segment)
        for offset in [16, 32, 48] { segment.put(SIMD2<UInt64>(), at: offset) }
    }
}
