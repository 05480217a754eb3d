import CLinux
import ProviderKit

/// A register in which a send queue's doorbell rings, in a page of registers (UAR) whose stores the processor may combine.
/// It has two halves, used in turn: the 8 first bytes of the last work request go there, or, when there is but one, the
/// whole of it, which then need not be fetched (BlueFlame).
struct BlueFlame {
    /// The register.
    let register: UnsafeMutableRawPointer
    /// Size of a half in bytes.
    let size: UInt32
    /// Whether work requests may go there whole.
    let takesRequests: Bool
    /// Whether several queue pairs ring here.
    let isShared: Bool
    /// Where the next store goes.
    fileprivate(set) var half: UInt32 = 0

    init(register: UnsafeMutableRawPointer, size: UInt32, takesRequests: Bool, isShared: Bool) {
        self.register = register
        self.size = size
        self.takesRequests = takesRequests && size > 0
        self.isShared = isShared
    }
}

/// A register and its lock, at an address of their own: queue pairs share them.
struct BlueFlameObject: ~Copyable {
    let lock: QueueLock
}

typealias BlueFlamePointer = UnsafeMutablePointer<BlueFlameObject>

extension BlueFlamePointer {
    static func make(_ register: BlueFlame) -> BlueFlamePointer {
        let object = allocateObject(holding: BlueFlame.self)
        object.initialize(to: BlueFlameObject(lock: QueueLock(isSkipped: !register.isShared)))
        object.state.initialize(to: register)
        return object
    }

    @inline(__always)
    private var state: UnsafeMutablePointer<BlueFlame> { behind(0, as: BlueFlame.self) }

    /// Rings. The record in memory has been written.
    /// - Parameters:
    ///   - request: the last work request that was written.
    ///   - segments: its size in units of 16 bytes; 0 when it is not to go whole.
    ///   - ring: where it lies: it goes on at the beginning behind the end.
    @inline(__always)
    func ring(_ request: UnsafeMutableRawPointer, segments: UInt32, of ring: SendRing) {
        pointee.lock.lock()
        // The record must arrive before what is combined here. Also where the lock has ordered that on x86: a lock that is
        // not taken orders nothing.
        linux_flush_to_device()
        let target = state.pointee.register + Int(state.pointee.half)
        if segments > 1 && segments &* 16 <= state.pointee.size && state.pointee.takesRequests {
            copy(request, blocks: (segments &+ 3) / 4, to: target, ring)
        } else {
            linux_store_to_device(target, request.load(as: UInt64.self))
        }
        // Before the lock is free: another's ring must not overtake this one in the buffers of the processor.
        linux_flush_to_device()
        state.pointee.half ^= state.pointee.size
        pointee.lock.unlock()
    }

    @inline(__always)
    private func copy(
        _ request: UnsafeMutableRawPointer, blocks: UInt32, to target: UnsafeMutableRawPointer, _ ring: SendRing
    ) {
        var source = request
        var target = target
        var rest = blocks
        repeat {
            linux_copy_to_device(target, source)
            target += SendRing.blockSize
            source += SendRing.blockSize
            if source == ring.end { source = ring.start }
            rest &-= 1
        } while rest != 0
    }
}
