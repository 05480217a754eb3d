import CLinux
import ProviderKit

/// A BlueFlame register of a UAR page, which is the doorbell of send queues. It has two buffers, used alternately. The
/// doorbell is a store of the first 8 bytes of the last WQE; or, if only one WQE was posted, of the whole WQE, which
/// the device then need not fetch (BlueFlame).
struct BlueFlame {
    /// The address of the register.
    let register: UnsafeMutableRawPointer
    /// The size of a buffer in bytes.
    let bufferSize: UInt32
    /// Whether a whole WQE may be written to the register (BlueFlame).
    let allowsBlueFlame: Bool
    /// Whether several queue pairs use the register.
    let isShared: Bool
    /// The offset of the buffer of the next doorbell.
    fileprivate(set) var offset: UInt32 = 0

    init(register: UnsafeMutableRawPointer, bufferSize: UInt32, allowsBlueFlame: Bool, isShared: Bool) {
        self.register = register
        self.bufferSize = bufferSize
        self.allowsBlueFlame = allowsBlueFlame && bufferSize > 0
        self.isShared = isShared
    }
}

/// A BlueFlame register and its lock, separately allocated because queue pairs share them.
struct BlueFlameObject: ~Copyable {
    let lock: QueueLock
}

typealias BlueFlamePointer = UnsafeMutablePointer<BlueFlameObject>

extension BlueFlamePointer {
    static func make(_ blueFlame: BlueFlame) -> BlueFlamePointer {
        let object = allocateObject(holding: BlueFlame.self)
        object.initialize(to: BlueFlameObject(lock: QueueLock(isSkipped: !blueFlame.isShared)))
        object.state.initialize(to: blueFlame)
        return object
    }

    @inline(__always)
    private var state: UnsafeMutablePointer<BlueFlame> { behind(0, as: BlueFlame.self) }

    /// The register, of which only the lock's holder uses the offset.
    var register: BlueFlame { state.pointee }

    /// Rings the doorbell. The doorbell record has been written.
    /// - Parameters:
    ///   - wqe: The last WQE.
    ///   - segments: The size of the WQE in units of 16 bytes (`ds`), or 0 to write only its first 8 bytes.
    ///   - ring: The send queue of the WQE. A WQE wraps from its end to its start.
    @inline(__always)
    func ring(_ wqe: UnsafeMutableRawPointer, segments: UInt32, of ring: SendRing) {
        pointee.lock.lock()
        // The doorbell record must be visible before the write-combined stores. The lock does not ensure that: a
        // skipped lock orders nothing.
        linux_flush_to_device()
        let target = state.pointee.register + Int(state.pointee.offset)
        if segments > 1 && segments &* 16 <= state.pointee.bufferSize && state.pointee.allowsBlueFlame {
            copy(wqe, wqebbs: (segments &+ 3) / 4, to: target, ring)
        } else {
            linux_store_to_device(target, wqe.load(as: UInt64.self))
        }
        // Before unlocking: another thread's doorbell must not overtake this one in the write-combining buffers.
        linux_flush_to_device()
        state.pointee.offset ^= state.pointee.bufferSize
        pointee.lock.unlock()
    }

    @inline(__always)
    private func copy(
        _ wqe: UnsafeMutableRawPointer, wqebbs: UInt32, to target: UnsafeMutableRawPointer, _ ring: SendRing
    ) {
        var source = wqe
        var target = target
        var rest = wqebbs
        repeat {
            linux_copy_to_device(target, source)
            target += SendRing.wqebbSize
            source += SendRing.wqebbSize
            if source == ring.end { source = ring.start }
            rest &-= 1
        } while rest != 0
    }
}
